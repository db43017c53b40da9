"""Interpolation along one axis as a matrix, by the rules of ONNX's Resize."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[Any]

_ROUNDING: dict[str, Callable[[Floats], Floats]] = {
    "floor": np.floor,
    "ceil": np.ceil,
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
}


def matrix(
    size: int, count: int, scale: float, mode: str, way: str, rounding: str, cubic: float
) -> NDArray[np.float32]:
    """What makes ``count`` values of ``size``, [count, size]. ``mode`` is nearest, linear or cubic; ``way`` a coordinate
    transformation; ``cubic`` its coefficient (Keys 1981). Raises ValueError for what is not known."""
    table = np.zeros((count, size), np.float32)
    places = _places(size, count, scale, way)
    below = np.floor(places)
    part = places - below
    if mode == "nearest":
        if rounding not in _ROUNDING:
            raise ValueError(f"rounding {rounding}")
        taps: list[tuple[Floats, Floats]] = [(_ROUNDING[rounding](places), np.ones(count))]
    elif mode == "linear":
        taps = [(below, 1 - part), (below + 1, part)]
    elif mode == "cubic":
        taps = [(below + move, _keys(np.abs(part - move), cubic)) for move in (-1, 0, 1, 2)]
    else:
        raise ValueError(f"mode {mode}")
    for place, weight in taps:
        np.add.at(table, (np.arange(count), np.clip(place, 0, size - 1).astype(int)), weight)
    return table


def _places(size: int, count: int, scale: float, way: str) -> Floats:
    index = np.arange(count, dtype=np.float32)  # of this precision, so that ties fall as they do in other runtimes
    if way == "align_corners":
        return index * (size - 1) / max(1, count - 1)
    if way == "asymmetric":
        return index / np.float32(scale)
    if way == "half_pixel" or (way == "pytorch_half_pixel" and count > 1):
        return (index + 0.5) / np.float32(scale) - 0.5
    if way == "pytorch_half_pixel":
        return np.zeros(1)
    raise ValueError(f"coordinates {way}")


def _keys(distance: Floats, a: float) -> Floats:
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))
