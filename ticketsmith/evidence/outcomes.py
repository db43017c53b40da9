"""What a metric is the mean of: one outcome for each example of a split, and the file of a run that keeps them.

``outcomes.safetensors`` holds, for the final weights and those at early stop and for both splits, the outcomes of each metric
that has any: a bit an example (right or wrong), eight to the byte, or a float32. Arrays that are equal are kept once. The one
entry of its metadata, JSON, says which array belongs to which metric, and how many examples it has.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ticketsmith.errors import DamagedRunError
from ticketsmith.evidence.splits import At, Split

FILE = "outcomes.safetensors"
"""The file of a run."""

_NOTE, _FORMAT = "ticketsmith", 1
_LARGEST_LOGARITHM = 700.0  # of a metric that is an exponential: beyond it, tasks stop counting


@dataclass(frozen=True, eq=False)
class Outcomes:
    """The outcomes of one metric on one split.

    ``values`` ``[n]``: booleans (right or wrong), or finite numbers. ``sizes`` ``[n]``: of how many units (tokens) each is the
    mean, 1 or more; None is one each. ``documents`` ``[d]``: how many examples each document has, which stand one after
    another; None: every example is a document of its own. Outcomes of one document are not taken to be independent.

    The metric is ``scale`` times their mean, weighted by size; or, if ``exponential``, e to the power of the mean.
    """

    values: NDArray[Any]
    sizes: NDArray[np.int64] | None = None
    documents: NDArray[np.int64] | None = None
    scale: float = 1.0
    exponential: bool = False

    @property
    def bits(self) -> bool:
        return self.values.dtype == np.bool_

    @property
    def mean(self) -> float:
        """Weighted by size."""
        return float(np.average(self.values.astype(np.float64), weights=self.sizes))

    @property
    def metric(self) -> float:
        """What the metric comes to."""
        return math.exp(min(self.mean, _LARGEST_LOGARITHM)) if self.exponential else self.scale * self.mean

    def fault(self) -> str:
        """Why they cannot be kept, to follow what they are in a sentence; empty when nothing is wrong."""
        values, n = self.values, len(self.values) if self.values.ndim == 1 else 0
        if values.ndim != 1 or not n:
            return f"have shape {values.shape}: one for each example is needed, [n]"
        if not self.bits and values.dtype.kind != "f":
            return f"are of type {values.dtype}: booleans or floating-point numbers are needed"
        if not np.isfinite(values).all():
            return "are not all finite numbers"
        for name, numbers, total in (("sizes", self.sizes, None), ("documents", self.documents, n)):
            if numbers is None:
                continue
            if numbers.ndim != 1 or numbers.dtype.kind not in "iu" or not len(numbers) or numbers.min() < 1:
                return f"have {name} that are no whole numbers of 1 or more, [n]"
            if total is None and len(numbers) != n:
                return f"have {len(numbers):,} sizes for {n:,} examples"
            if total is not None and numbers.sum() != total:
                return f"have documents of {int(numbers.sum()):,} examples together, and are {n:,}"
        return ""

    def disagreement(self, measured: float) -> str:
        """How they disagree with the metric that was measured, to follow what they are; empty when they do not.

        Float32 and another order of adding make no difference here, nor does a metric that is no finite number.
        """
        told = self.metric
        if not math.isfinite(measured) or math.isclose(told, measured, rel_tol=1e-3, abs_tol=1e-6):
            return ""
        return f"come to {told:g}, and the metric is {measured:g}: they must be what it is the mean of"


OfStates = Mapping[At, Mapping[Split, Mapping[str, Outcomes]]]
"""Outcomes by state of the weights, split and metric."""


def to_bytes(states: OfStates) -> bytes:
    """The content of ``outcomes.safetensors``; the same outcomes give the same bytes."""
    from safetensors.numpy import save

    arrays: dict[str, NDArray[Any]] = {}
    names: dict[tuple[str, bytes], str] = {}

    def place(name: str, array: NDArray[Any]) -> str:
        identity = (array.dtype.str, hashlib.sha256(array.tobytes()).digest())
        if identity not in names:
            names[identity] = name
            arrays[name] = array
        return names[identity]

    note: dict[str, Any] = {"format": _FORMAT, "states": {}}
    for at, splits in states.items():
        for split, metrics in splits.items():
            for metric, one in metrics.items():
                name = f"{at}/{split}/{metric}"
                values = np.packbits(one.values) if one.bits else np.ascontiguousarray(one.values, np.float32)
                entry: dict[str, Any] = {}
                if (stored := place(name, values)) != name:
                    entry["values"] = stored
                if one.bits:
                    entry["examples"] = len(one.values)
                for part, numbers in (("sizes", one.sizes), ("documents", one.documents)):
                    if numbers is not None:
                        entry[part] = place(f"{name}/{part}", np.ascontiguousarray(numbers, np.int32))
                if one.scale != 1.0:
                    entry["scale"] = one.scale
                if one.exponential:
                    entry["exponential"] = True
                note["states"].setdefault(at, {}).setdefault(split, {})[metric] = entry
    return bytes(save(arrays, {_NOTE: json.dumps(note, sort_keys=True, separators=(",", ":"))}))


def from_bytes(content: bytes, what: str) -> OfStates:
    """The inverse of ``to_bytes``. Raises DamagedRunError, which begins with ``what``."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        note = json.loads(header["__metadata__"][_NOTE])
        if note["format"] != _FORMAT:
            raise ValueError(f"format {note['format']!r}; this TicketSmith reads {_FORMAT}")
        arrays = load(content)
        return {
            at: {
                split: {metric: _parsed(entry, arrays, f"{at}/{split}/{metric}") for metric, entry in metrics.items()}
                for split, metrics in splits.items()
            }
            for at, splits in note["states"].items()
        }
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedRunError(f"{what} is not what TicketSmith writes: {error!r}") from error


def _parsed(entry: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], name: str) -> Outcomes:
    values = arrays[entry.get("values", name)]
    if "examples" in entry:
        if values.dtype != np.uint8 or len(values) != -(-entry["examples"] // 8):
            raise ValueError(f"{name} has {values.nbytes:,} bytes for {entry['examples']!r} bits")
        values = np.unpackbits(values, count=entry["examples"]).astype(np.bool_)
    sizes, documents = (
        arrays[entry[part]].astype(np.int64) if part in entry else None for part in ("sizes", "documents")
    )
    scale = float(entry.get("scale", 1.0))
    outcomes = Outcomes(values, sizes, documents, scale, entry.get("exponential", False) is True)
    if what := outcomes.fault() or ("" if math.isfinite(scale) else "have no finite scale"):
        raise ValueError(f"the outcomes of {name} {what}")
    return outcomes


class SealedOutcomes:
    """Those of a sealed run, read when somebody asks. ``read`` gives the file's content; ``place`` names it in errors.

    What was read last is kept, a few runs of it, so that many runs take no memory.
    """

    def __init__(self, read: Callable[[], bytes], place: str) -> None:
        self._read, self._place = read, place

    def of(self, metric: str, split: Split, at: At) -> Outcomes | None:
        """None where the metric has none. Raises DamagedRunError."""
        return _states(self).get(at, {}).get(split, {}).get(metric)


@lru_cache(maxsize=256)
def _states(sealed: SealedOutcomes) -> OfStates:
    return from_bytes(sealed._read(), sealed._place)
