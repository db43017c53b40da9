"""A network with few zeros is handed to a dense library, when that is installed and faster."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from ticketsmith.inference.onnx_runtime import OnnxRuntime
from ticketsmith.inference.runtimes import CannotRunError, Deployment, OnnxFile

DENSE_ABOVE = 0.5
"""The density of a network's products above which a dense library may be faster: sparser ones are not raced with it."""

_ROUNDS = 15
_ROUND_SECONDS = 2e-3
_CONVINCING = 0.97


def faster(own: Deployment, model: nn.Module | OnnxFile, example: Tensor, folder: Path, threads: int) -> Deployment:
    """``own``, or the same model in ONNX Runtime where that is installed, knows the model and beats it by more than noise."""
    try:
        other = OnnxRuntime().deploy(model, example, folder)  # type: ignore[arg-type]
        library = other.load(threads)
        inputs = np.ascontiguousarray(example.detach().numpy())
        return other if _is_faster(library, own.load(threads), inputs) else own
    except CannotRunError:
        return own
    except Exception:  # whatever a library raises; there is a program already, which serves
        return own


def _is_faster(one: Callable[[Any], Any], other: Callable[[Any], Any], inputs: NDArray[Any]) -> bool:
    """Whether ``one`` wins by more than noise; they take turns, and the best round of each counts."""
    calls = (one, other)
    best, repeats = [0.0, 0.0], [1, 1]
    for index, call in enumerate(calls):
        call(inputs)
        best[index] = _seconds(call, inputs, 1)
        repeats[index] = max(1, int(_ROUND_SECONDS / max(best[index], 1e-7)))
    for _ in range(_ROUNDS):
        for index, call in enumerate(calls):
            best[index] = min(best[index], _seconds(call, inputs, repeats[index]))
    return best[0] < _CONVINCING * best[1]


def _seconds(call: Callable[[Any], Any], inputs: NDArray[Any], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call(inputs)
    return (time.perf_counter() - start) / repeats
