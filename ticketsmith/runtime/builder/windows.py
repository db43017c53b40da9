"""Pools and interpolation: windows over rows and columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ticketsmith.runtime.builder import arrays, products
from ticketsmith.runtime.builder.core import Array, Builder, Value
from ticketsmith.runtime.graph import Shape


def pool(b: Builder, kind: str, x: Value, kernel: Sequence[int], stride: Sequence[int], begin: Sequence[int],
         end: Sequence[int], count_padding: bool = True, ceil: bool = False) -> Value:  # fmt: skip
    """``kind`` is max_pool over one or two axes, or avg_pool over one to three."""
    if kind == "avg_pool" and (ceil or (list(begin) != list(end) and not count_padding) or len(kernel) == 3):
        return _mean_within(b, x, kernel, stride, begin, end, count_padding, ceil)
    extra = 2 - len(kernel)
    if extra not in (0, 1) or len(x.shape) != len(kernel) + 2 or x.shape[0] != 1:
        raise ValueError(f"pooling of {x.shape} by {list(kernel)}")
    kernel, stride = [*[1] * extra, *kernel], [*[1] * extra, *stride]
    begin, end = [*[0] * extra, *begin], [*[0] * extra, *end]
    here: Shape = (x.shape[1], *[1] * extra, *x.shape[2:])
    if ceil:
        end = _ceiled(here[1:], kernel, stride, begin, end)
    name = b.at(x, here)
    if begin != end:
        low = 0.0 if kind == "avg_pool" else -3e38
        name, here = arrays.surround(b, name, here, [0, *begin], [0, *end], [0, 0, 0], low)
        begin = end = [0, 0]
    sizes = [(n + 2 * p - k) // s + 1 for n, p, k, s in zip(here[1:], begin, kernel, stride, strict=True)]
    if min(sizes) < 1:
        raise ValueError("a window larger than its input")
    inner = (here[0], *sizes)
    output = b.emit(kind, [name], inner, kernel=[int(n) for n in kernel], stride=[int(n) for n in stride],
                     padding=[int(n) for n in begin], count_padding=bool(count_padding))  # fmt: skip
    return Value(output, (1, inner[0], *inner[1 + extra :]), inner, 0)


def _mean_within(
    b: Builder, x: Value, kernel: Any, stride: Any, begin: Any, end: Any, padding: bool, ceil: bool
) -> Value:
    """Means over windows that reach beyond what counts, which is the input, with its padding or without."""
    ends = _ceiled(x.shape[2:], kernel, stride, begin, end) if ceil else end
    matrices = []
    for n, k, s, a, z, whole in zip(x.shape[2:], kernel, stride, begin, end, ends, strict=True):
        low, high = (0, a + n + z) if padding else (a, a + n)
        rows = [np.zeros(a + n + whole, np.float32) for _ in range(0, a + n + whole - k + 1, s)]
        for index, row in enumerate(rows):
            first, last = max(index * s, low), min(index * s + k, high)
            row[first:last] = 1 / max(1, last - first)
        if not rows:
            raise ValueError("a window larger than its input")
        matrices.append(np.array(rows)[:, a : a + n])
    return resize(b, x, matrices)


def _ceiled(size: Shape, kernel: Any, stride: Any, begin: Any, end: Any) -> list[int]:
    """The padding behind with which the last window is whole."""
    out = []
    for n, k, s, a, b in zip(size, kernel, stride, begin, end, strict=True):
        count = -(-(n + a + b - k) // s) + 1
        if (count - 1) * s >= n + a:  # a window that would begin in the padding behind is left out
            count -= 1
        out.append(max(b, (count - 1) * s + k - n - a))
    return out


def adaptive_pool(b: Builder, kind: str, x: Value, sizes: Sequence[int | None]) -> Value:
    """Pools to a given size; maxima to one that divides the input's."""
    spatial = x.shape[2:]
    targets = [n if s is None else int(s) for s, n in zip(sizes, spatial, strict=True)]
    if any(n % s for n, s in zip(spatial, targets, strict=True)):
        if kind == "avg_pool":
            return resize(b, x, [_windows(n, s) for n, s in zip(spatial, targets, strict=True)])
        raise ValueError(f"windows of different sizes, from {spatial} to {tuple(targets)}")
    kernel = [n // s for n, s in zip(spatial, targets, strict=True)]
    none = [0] * len(kernel)
    return pool(b, kind, x, kernel, kernel, none, none)


def upsample(b: Builder, x: Value, factors: Sequence[int]) -> Value:
    """Each element repeated, over one or two axes."""
    extra = 2 - len(factors)
    if extra not in (0, 1) or len(x.shape) != len(factors) + 2 or x.shape[0] != 1:
        raise ValueError(f"upsampling of {x.shape}")
    here = (x.shape[1], *[1] * extra, *x.shape[2:])
    high, wide = [*[1] * extra, *(int(f) for f in factors)]
    inner = (here[0], here[1] * high, here[2] * wide)
    name = b.emit("upsample", [b.at(x, here)], inner, factors=[high, wide])
    return Value(name, (1, inner[0], *inner[1 + extra :]), inner, 0)


def resize(b: Builder, x: Value, matrices: Sequence[Array]) -> Value:
    """The last axes, each one multiplied by its matrix [outputs, inputs]: any interpolation that is separable."""
    for axis, matrix in enumerate(matrices, len(x.shape) - len(matrices)):
        if matrix.shape[0] != matrix.shape[1] or (matrix != np.eye(len(matrix))).any():
            x = products.along(b, x, axis, matrix)
    return x


def nearest(b: Builder, x: Value, places: Sequence[Array]) -> Value:
    """Of each of the last axes the elements at these places, which is cheap where each is only repeated."""
    first = len(x.shape) - len(places)
    factors = [len(one) // n for one, n in zip(places, x.shape[first:], strict=True)]
    if all(np.array_equal(one, np.arange(len(one)) // max(1, f)) for one, f in zip(places, factors, strict=True)):
        return upsample(b, x, factors)
    for axis, one in enumerate(places, first):
        x = arrays.take(b, x, axis, one)
    return x


def _windows(size: int, count: int) -> Array:
    """Means over ``count`` windows that cover ``size``, as PyTorch's adaptive pools divide it: [count, size]."""
    rows = np.zeros((count, size), np.float32)
    for index, row in enumerate(rows):
        begin, end = index * size // count, -(-(index + 1) * size // count)
        row[begin:end] = 1 / (end - begin)
    return rows


_ROUNDING: dict[str, Callable[[Array], Array]] = {
    "floor": np.floor,
    "ceil": np.ceil,
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
}


def interpolation(
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
        taps: list[tuple[Array, Array]] = [(_ROUNDING[rounding](places), np.ones(count))]
    elif mode == "linear":
        taps = [(below, 1 - part), (below + 1, part)]
    elif mode == "cubic":
        taps = [(below + move, _keys(np.abs(part - move), cubic)) for move in (-1, 0, 1, 2)]
    else:
        raise ValueError(f"mode {mode}")
    for place, weight in taps:
        np.add.at(table, (np.arange(count), np.clip(place, 0, size - 1).astype(int)), weight)
    return table


def _places(size: int, count: int, scale: float, way: str) -> Array:
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


def _keys(distance: Array, a: float) -> Array:
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))
