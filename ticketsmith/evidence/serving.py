"""Measured inference speed, as evidence sees it: plain data and its JSON; ``ticketsmith.inference`` measures."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar, get_type_hints

from ticketsmith.errors import TicketSmithError
from ticketsmith.prices.rate import Rate

FORMAT = 1
"""The version of the JSON document."""


@dataclass(frozen=True)
class Timing:
    """One model on one runtime at one batch size, measured side by side with the dense reference.

    Latencies are milliseconds a call; ``speedup`` is the reference's latency over this one's (median of the ratios of
    interleaved rounds) with a bootstrap interval ``speedup_low .. speedup_high``, widened by how much identical copies
    of the reference differ. ``claimed`` is False when that interval holds 1.0. ``throughput`` is inputs a second,
    ``max_error`` the largest absolute difference of an output from eager PyTorch's.
    """

    variant: str
    level: int
    seed: int
    key: str
    sparsity: float
    runtime: str
    batch_size: int
    threads: int
    rounds: int
    median_ms: float
    p10_ms: float
    p90_ms: float
    throughput: float
    speedup: float
    speedup_low: float
    speedup_high: float
    max_error: float

    @property
    def claimed(self) -> bool:
        return not (self.speedup_low <= 1.0 <= self.speedup_high)


@dataclass(frozen=True)
class Refusal:
    """A model that a runtime could not run, and why; it has no timing."""

    variant: str
    level: int
    seed: int
    runtime: str
    batch_size: int
    reason: str


@dataclass(frozen=True)
class Benchmark:
    """A whole benchmark: where, how, and every timing.

    ``reference`` names the dense model's runtime, ``reference_key`` the run that is that model. ``machine`` holds facts
    for a reader, in order; ``resolution`` among them says how much identical copies of the reference differ, and
    ``noise`` is there only when the machine was not quiet, and says how that showed. ``machine_rate`` is what an hour of
    the machine costs, None when nobody said.
    """

    machine: Mapping[str, str]
    reference: str
    device: str
    confidence: float
    timings: tuple[Timing, ...]
    reference_key: str = ""
    refusals: tuple[Refusal, ...] = ()
    machine_rate: Rate | None = None


class DocumentError(TicketSmithError):
    """A document is not a benchmark; the message names the field."""


_Row = TypeVar("_Row", Timing, Refusal)


def to_json(benchmark: Benchmark) -> dict[str, Any]:
    """Plain data for ``json.dumps``: the fields of Benchmark, Timing and Refusal by their names, and ``format``.

    ``machine_rate`` is there only when it is known: documents without it are older ones too.
    """
    plain = asdict(benchmark)
    rows = {"timings": list(plain.pop("timings")), "refusals": list(plain.pop("refusals"))}
    if benchmark.machine_rate is None:
        del plain["machine_rate"]
    return {"format": FORMAT, **plain, "machine": dict(benchmark.machine), **rows}


def from_json(document: Any) -> Benchmark:
    """The inverse of ``to_json``. Raises DocumentError for whatever ``to_json`` would not have written."""
    plain = _mapping("the document", document)
    if plain.get("format") != FORMAT:
        raise DocumentError(f"benchmark: `format` is {plain.get('format')!r}; this version reads {FORMAT}.")
    _names("the document", plain, {"format", *(field.name for field in fields(Benchmark))}, {"machine_rate"})
    machine = {
        str(name): _value(f"`machine.{name}`", str, fact)
        for name, fact in _mapping("`machine`", plain["machine"]).items()
    }
    confidence = _value("`confidence`", float, plain["confidence"])
    if not 0.0 < confidence < 1.0:
        raise DocumentError(f"benchmark: `confidence` must lie between 0 and 1, not {confidence!r}.")
    return Benchmark(
        machine=machine,
        reference=_value("`reference`", str, plain["reference"]),
        device=_value("`device`", str, plain["device"]),
        confidence=confidence,
        timings=_rows("timings", Timing, plain["timings"]),
        reference_key=_value("`reference_key`", str, plain["reference_key"]),
        refusals=_rows("refusals", Refusal, plain["refusals"]),
        machine_rate=_rate(plain.get("machine_rate")),
    )


def _rows(name: str, kind: type[_Row], entries: Any) -> tuple[_Row, ...]:
    if not isinstance(entries, list):
        raise DocumentError(f"benchmark: `{name}` must be a list, not {entries!r:.60}.")
    types = get_type_hints(kind)
    expected = {field.name: types[field.name] for field in fields(kind)}
    rows = []
    for index, entry in enumerate(entries):
        place = f"{name}[{index}]"
        plain = _mapping(f"`{place}`", entry)
        _names(f"`{place}`", plain, set(expected))
        rows.append(kind(**{key: _value(f"`{place}.{key}`", expected[key], value) for key, value in plain.items()}))
    return tuple(rows)


def _rate(entry: Any) -> Rate | None:
    if entry is None:
        return None
    place = "`machine_rate`"
    plain = _mapping(place, entry)
    types = get_type_hints(Rate)
    _names(place, plain, {field.name for field in fields(Rate)}, {"on_demand"})
    on_demand = plain.get("on_demand")
    known = {name: _value(f"`machine_rate.{name}`", types[name], plain[name]) for name in types.keys() - {"on_demand"}}
    return Rate(**known, on_demand=None if on_demand is None else _value("`machine_rate.on_demand`", float, on_demand))


def _mapping(place: str, plain: Any) -> Mapping[str, Any]:
    if not isinstance(plain, Mapping):
        raise DocumentError(f"benchmark: {place} must be an object, not {plain!r:.60}.")
    return plain


def _names(
    place: str, plain: Mapping[str, Any], expected: AbstractSet[str], optional: AbstractSet[str] = frozenset()
) -> None:
    for name in sorted(expected - optional - plain.keys()):
        raise DocumentError(f"benchmark: {place} lacks the field `{name}`.")
    for name in sorted(map(str, plain.keys() - expected)):
        raise DocumentError(f"benchmark: {place} has an unknown field `{name}`.")


def _value(place: str, kind: type, value: Any) -> Any:
    """``value``, of type ``kind``: 1 is a float in JSON, true is no number. Numbers are finite and not negative."""
    accepted = (int, float) if kind is float else (kind,)
    if not isinstance(value, accepted) or isinstance(value, bool) != (kind is bool):
        raise DocumentError(f"benchmark: {place} must be a {kind.__name__}, not {value!r:.60}.")
    if isinstance(value, int | float) and not 0 <= value <= sys.float_info.max:
        raise DocumentError(f"benchmark: {place} must be a finite number, 0 or more, not {value!r:.60}.")
    return kind(value)
