"""A network whose zeros do not pay is handed to a dense library, when that is installed and faster."""

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

_ROUNDS = 15
_ROUND_SECONDS = 2e-3
_CONVINCING = 0.97
_CLEAR = 0.8

_library_seconds: dict[tuple[object, ...], float] = {}
"""What a call took in the library, by shapes: it does not depend on which weights are zero."""


def faster(own: Deployment, model: nn.Module | OnnxFile, example: Tensor, folder: Path, threads: int) -> Deployment:
    """``own``, or the same model in ONNX Runtime where that is installed, knows the model and beats it by more than noise."""
    try:
        inputs, ready = np.ascontiguousarray(example.detach().numpy()), own.load(threads)
        key = _key(model, example, threads)
        if key in _library_seconds and _best(ready, inputs) < _CLEAR * _library_seconds[key]:
            return own  # writing the model for the library takes longer than this
        other = OnnxRuntime().deploy(model, example, folder)  # type: ignore[arg-type]
        library = other.load(threads)
        _library_seconds[key] = _best(library, inputs)
        return other if _is_faster(library, ready, inputs) else own
    except CannotRunError:
        return own
    except Exception:  # whatever a library raises; there is a program already, which serves
        return own


def _key(model: nn.Module | OnnxFile, example: Tensor, threads: int) -> tuple[object, ...]:
    shapes = () if isinstance(model, OnnxFile) else tuple((n, tuple(p.shape)) for n, p in model.named_parameters())
    own = str(model.path) if isinstance(model, OnnxFile) else str(model)
    return own, shapes, tuple(example.shape), threads


def _best(call: Callable[[Any], Any], inputs: NDArray[Any]) -> float:
    call(inputs)
    return min(_seconds(call, inputs, 1) for _ in range(_ROUNDS))


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
