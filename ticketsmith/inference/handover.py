"""A network that a dense library computes faster is handed to it, when it is installed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from torch import Tensor, nn

from ticketsmith.inference.loaders import Arrays
from ticketsmith.inference.onnx_runtime import OnnxRuntime
from ticketsmith.inference.runtimes import ArrayCall, CannotRunError, Deployment, OnnxFile

_ROUNDS = 15
_ROUND_SECONDS = 2e-3
_CONVINCING = 0.97


def faster(own: Deployment, model: nn.Module | OnnxFile, example: Tensor, folder: Path, threads: int) -> Deployment:
    """``own``, or the same model in ONNX Runtime where that is installed, knows the model and wins by more than noise."""
    try:
        other = OnnxRuntime().deploy(model, example, folder)
    except CannotRunError:
        return own
    return other if _wins(other.load(threads), own.load(threads), ArrayCall.given(example)) else own


def _wins(one: Arrays, other: Arrays, inputs: NDArray[Any]) -> bool:
    """They take turns, and the best round of each counts."""
    calls = (one, other)
    for call in calls:
        call(inputs)
    best = [_seconds(call, inputs, 1) for call in calls]
    repeats = [max(1, int(_ROUND_SECONDS / max(seconds, 1e-7))) for seconds in best]
    for _ in range(_ROUNDS):
        best = [min(b, _seconds(c, inputs, r)) for b, c, r in zip(best, calls, repeats, strict=True)]
    return best[0] < _CONVINCING * best[1]


def _seconds(call: Arrays, inputs: NDArray[Any], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call(inputs)
    return (time.perf_counter() - start) / repeats
