"""Measured inference speed, as evidence sees it: plain data and its JSON; ``ticketsmith.inference`` measures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config
from pydantic_core import to_jsonable_python

from ticketsmith.errors import TicketSmithError
from ticketsmith.prices.rate import Rate

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

Number = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]

FORMAT = 2
"""The version of the JSON document. Version 1 is read too: what it did not know is at its default."""


@with_config(STRICT)
@dataclass(frozen=True)
class Timing:
    """One model on one runtime in one **cell**: the same phase, precision, batch size and number of threads.

    Latencies are milliseconds a call: ``median_ms`` (p50) and the other percentiles of the interleaved rounds.
    ``throughput`` is units a second (``Benchmark.unit``). ``speedup`` is the latency of the dense model on the strongest
    dense runtime of the cell, named by ``against``, over this one's (median of the ratios of interleaved rounds) with a
    bootstrap interval ``speedup_low .. speedup_high``, widened by how much identical copies of a model differ. ``claimed``
    is False when that interval holds 1.0. ``max_error`` is the largest absolute difference of an output from what
    ``compared_with`` gives (empty: eager PyTorch in float32, as in older documents), ``tolerance`` what was allowed.

    ``dense`` tells a runtime that multiplies zeros like any other number. ``precision`` is that of the weights:
    ``float32``, ``bfloat16`` or ``int8``; a result is compared with dense ones of the same. ``phase`` is empty for one
    call of a model as it is, ``prefill`` or ``decode`` where a model generates. ``roofline`` (0..1) is the time that the
    machine's peaks allow at least over the measured one; it needs ``flops`` and ``bytes``, the arithmetic and the memory
    traffic of a call that cannot be avoided. ``load_ms`` is the time from a file to a model that is ready,
    ``first_call_ms`` of the first call after that, ``resident_bytes`` and ``peak_bytes`` the memory of a whole process that
    does nothing but this, ``file_bytes`` what lies on disk. ``agreement`` (0..1) is the share of inputs for which a model
    of low precision gives the same class as in float32. ``handed_to`` names the dense runtime to which this one gave the
    whole model, since that was faster. None: not measured.
    """

    variant: str
    level: Count
    seed: Count
    key: str
    sparsity: Number
    runtime: str
    batch_size: Count
    threads: Count
    rounds: Count
    median_ms: Number
    p10_ms: Number
    p90_ms: Number
    throughput: Number
    speedup: Number
    speedup_low: Number
    speedup_high: Number
    max_error: Number
    p99_ms: Number | None = None
    tolerance: Number | None = None
    precision: str = "float32"
    dense: bool = True
    phase: str = ""
    against: str = ""
    flops: Number | None = None
    bytes: Number | None = None
    roofline: Number | None = None
    load_ms: Number | None = None
    first_call_ms: Number | None = None
    resident_bytes: Number | None = None
    peak_bytes: Number | None = None
    file_bytes: Number | None = None
    agreement: Number | None = None
    handed_to: str = ""
    compared_with: str = ""

    @property
    def runs_on(self) -> str:
        """The runtime as a reader is told of it: ``sparse (by openvino)`` where that computed the model."""
        return f"{self.runtime} (by {self.handed_to})" if self.handed_to else self.runtime

    @property
    def claimed(self) -> bool:
        return not (self.speedup_low <= 1.0 <= self.speedup_high)

    @property
    def cell(self) -> tuple[str, str, int, int]:
        """What timings share that may be compared: phase, precision, batch size, threads."""
        return self.phase, self.precision, self.batch_size, self.threads


@with_config(STRICT)
@dataclass(frozen=True)
class Refusal:
    """A model that a runtime could not run, and why; it has no timing."""

    variant: str
    level: Count
    seed: Count
    runtime: str
    batch_size: Count
    reason: str


@with_config(STRICT)
@dataclass(frozen=True)
class LoadStep:
    """Requests that arrived at random (Poisson) at ``rate`` a second, whether or not earlier ones were answered.

    ``percentile_ms`` is the latency, waiting included, that the load test's percentile of ``requests`` had at most.
    ``kept`` is False when that was above the target, or answers fell behind arrivals.
    """

    rate: Number
    answered_rate: Number
    requests: Count
    median_ms: Number
    percentile_ms: Number
    kept: bool


@with_config(STRICT)
@dataclass(frozen=True)
class LoadTest:
    """The highest rate of arrivals, requests a second, that one model on one runtime answers within a latency target.

    ``percentile`` (0..1) of the requests must be answered within ``target_ms``. ``highest_rate`` is 0 when no rate that
    was tried kept it.
    """

    variant: str
    level: Count
    seed: Count
    key: str
    sparsity: Number
    runtime: str
    precision: str
    threads: Count
    dense: bool
    target_ms: Number
    percentile: Number
    highest_rate: Number
    steps: tuple[LoadStep, ...] = ()


@with_config(STRICT)
@dataclass(frozen=True)
class LayerSpeed:
    """One layer's shape alone: the sparse runtime at one sparsity against the best dense runtime that was measured.

    ``kind`` is ``linear``, ``convolution``, ``depthwise convolution``, ...; ``shape`` tells it to a reader
    (``300x784``, ``3x3 64->64 at 32x32``). ``speedup`` as in Timing.
    """

    kind: str
    shape: str
    batch_size: Count
    sparsity: Number
    speedup: Number
    speedup_low: Number
    speedup_high: Number


@with_config(STRICT)
@dataclass(frozen=True)
class Peaks:
    """What this machine can do at most, measured beside the timings: float32 operations and bytes read, a second.

    ``bytes`` is for what lies in memory; ``reads`` tells it for buffers of other sizes (bytes, bytes a second), which are
    read again and again and so lie in the caches that they fit.
    """

    threads: Count
    flops: Number
    bytes: Number
    reads: tuple[tuple[Count, Number], ...] = ()


@with_config(STRICT)
@dataclass(frozen=True)
class Benchmark:
    """A whole benchmark: where, how, and every timing.

    ``reference`` names the runtime whose outputs and whose dense model the others were raced beside, ``reference_key`` the
    run that is that model. ``unit`` is what ``throughput`` counts: ``image``, ``token``, ``request``. ``machine`` holds
    facts for a reader, in order; ``resolution`` among them says how much identical copies of the reference differ, and
    ``noise`` is there only when the machine was not quiet, and says how that showed. ``machine_rate`` is what an hour of
    the machine costs, None when nobody said.
    """

    machine: Mapping[str, str]
    reference: str
    device: str
    confidence: Annotated[float, Field(gt=0, lt=1)]
    timings: tuple[Timing, ...]
    reference_key: str = ""
    refusals: tuple[Refusal, ...] = ()
    machine_rate: Rate | None = None
    unit: str = "request"
    peaks: tuple[Peaks, ...] = ()
    loads: tuple[LoadTest, ...] = ()
    layers: tuple[LayerSpeed, ...] = ()


def with_precision(runtime: str, precision: str) -> str:
    """A runtime where no column tells the precision: ``sparse (int8)``; float32 goes without saying."""
    return runtime if precision == "float32" else f"{runtime} ({precision})"


class DocumentError(TicketSmithError):
    """A document is not a benchmark; the message names the field."""


def to_json(benchmark: Benchmark) -> dict[str, Any]:
    """Plain data for ``json.dumps``: the fields of Benchmark and its rows by their names, and ``format``."""
    plain: dict[str, Any] = to_jsonable_python(asdict(benchmark))
    return {"format": FORMAT, **plain}


def from_json(document: Any) -> Benchmark:
    """The inverse of ``to_json``. Raises DocumentError for whatever ``to_json`` would not have written."""
    if not isinstance(document, Mapping):
        raise DocumentError(f"benchmark: the document must be an object, not {document!r:.60}.")
    version = document.get("format")
    if version not in range(1, FORMAT + 1):
        raise DocumentError(f"benchmark: `format` is {version!r}; this version reads 1 to {FORMAT}.")
    try:
        content = json.dumps({name: value for name, value in document.items() if name != "format"})
        benchmark = _adapter().validate_json(content)
    except ValidationError as error:
        raise DocumentError(f"benchmark: {problem(error)}") from error
    except (TypeError, ValueError) as error:
        raise DocumentError(f"benchmark: the document is no JSON: {error}.") from error
    return benchmark


@cache
def _adapter() -> TypeAdapter[Benchmark]:
    return TypeAdapter(Benchmark)


def problem(error: ValidationError) -> str:
    """The first thing that is wrong: its place as a reader would write it, and what was expected."""
    first = error.errors(include_url=False)[0]
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
    match first["type"]:
        case "missing":
            return f"the field `{place}` is missing."
        case "unexpected_keyword_argument":
            return f"the field `{place}` is unknown."
        case _:
            text = first["msg"].removeprefix("Input ").removeprefix("Value error, ")
            return f"`{place}` {text[:1].lower()}{text[1:]}, not {first['input']!r:.60}."
