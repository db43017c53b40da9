"""Norms, softmax, reductions over axes, and windows over rows and columns: pools and interpolation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ticketsmith.runtime.builder import arrays, pointwise, products
from ticketsmith.runtime.builder.core import Array, Builder, Value, check_axes, strip
from ticketsmith.runtime.graph import Shape
from ticketsmith.runtime.ops import OPERATORS


def batch_norm(b: Builder, x: Value, weight: Array | None, bias: Array | None, mean: Array, variance: Array, epsilon: float
               ) -> Value:  # fmt: skip
    """By running statistics, which are a scale and a shift for each channel (axis 1)."""
    rest = x.shape[2:]
    if x.shape[0] != 1 or len(rest) > 2:
        raise ValueError(f"batch norm of {x.shape}")
    inner = (x.shape[1], *[1] * (2 - len(rest)), *rest) if rest else (x.shape[1],)
    scale = (variance.astype(np.float64) + epsilon) ** -0.5 * (1.0 if weight is None else weight)
    shift = (0.0 if bias is None else bias) - mean * scale
    return b.keep_shape("affine", x, inner, {"scale": scale, "shift": shift})


def norm(b: Builder, op: str, x: Value, axes: int, scale: Array | None = None, shift: Array | None = None,
         epsilon: float = 1e-5) -> Value:  # fmt: skip
    """layer_norm or rms_norm over the last ``axes`` axes."""
    check_axes(x, range(len(x.shape) - axes, len(x.shape)))
    size = math.prod(x.shape[len(x.shape) - axes :])
    rows = math.prod(x.shape) // size
    inner = (rows, size) if rows > 1 else (size,)
    weights = {"scale": np.ones(size, np.float32) if scale is None else scale.reshape(-1)}
    if "shift" in OPERATORS[op].parameters:
        weights["shift"] = np.zeros(size, np.float32) if shift is None else shift.reshape(-1)
    elif shift is not None:
        raise ValueError("a shift")
    return b.keep_shape(op, x, inner, weights, epsilon=float(epsilon))


def group_norm(b: Builder, x: Value, groups: int, scale: Array | None = None, shift: Array | None = None,
               epsilon: float = 1e-5) -> Value:  # fmt: skip
    """Over groups of channels (axis 1)."""
    inner = x.shape[1:]
    if x.shape[0] != 1 or not inner:
        raise ValueError(f"group norm of {x.shape}")
    channels = inner[0]
    weights = {
        "scale": np.ones(channels, np.float32) if scale is None else scale,
        "shift": np.zeros(channels, np.float32) if shift is None else shift,
    }
    return b.keep_shape("group_norm", x, inner, weights, groups=int(groups), epsilon=float(epsilon))


def softmax(b: Builder, x: Value, axis: int) -> Value:
    """Along one axis."""
    axis %= len(x.shape)
    check_axes(x, {axis})
    inner = strip(x.shape)
    place = axis - (len(x.shape) - len(inner))
    return b.keep_shape("softmax", x, inner, axis=place)


def log_softmax(b: Builder, x: Value, axis: int) -> Value:
    """Along one axis."""
    low = pointwise.apply(b, "sub", x, reduce(b, "max", x, [axis], True))
    total = reduce(b, "sum", pointwise.unary(b, "exp", low), [axis], True)
    return pointwise.apply(b, "sub", low, pointwise.unary(b, "log", total))


def logsumexp(b: Builder, x: Value, axes: Sequence[int], keep: bool) -> Value:
    """``log(sum(exp(x)))``, from parts that do not overflow."""
    largest = reduce(b, "max", x, axes, True)
    total = reduce(b, "sum", pointwise.unary(b, "exp", pointwise.apply(b, "sub", x, largest)), axes, True)
    result = pointwise.apply(b, "add", pointwise.unary(b, "log", total), largest)
    return result if keep else arrays.squeeze(result, axes)


def vector_norm(b: Builder, x: Value, order: float, axes: Sequence[int], keep: bool) -> Value:
    """The length of the vectors that lie along ``axes``: of order 1, 2 or infinity."""
    if order == 2:
        return pointwise.unary(b, "sqrt", reduce(b, "sum", pointwise.apply(b, "mul", x, x), axes, keep))
    if order not in (1, math.inf):
        raise ValueError(f"a norm of order {order}")
    return reduce(b, "sum" if order == 1 else "max", pointwise.unary(b, "abs", x), axes, keep)


def variance(b: Builder, x: Value, axes: Sequence[int], correction: float, keep: bool) -> Value:
    """The mean square of what is left without the mean; ``correction`` is what is taken off the count."""
    count = math.prod(x.shape[axis] for axis in axes)
    centred = pointwise.apply(b, "sub", x, reduce(b, "mean", x, axes, True))
    total = reduce(b, "sum", pointwise.apply(b, "mul", centred, centred), axes, keep)
    return pointwise.apply(b, "div", total, count - correction)


def reduce(b: Builder, function: str, x: Value, axes: Sequence[int], keep: bool) -> Value:
    """``function`` is sum, mean, max or min."""
    if function == "min":
        return pointwise.apply(b, "mul", reduce(b, "max", pointwise.apply(b, "mul", x, -1.0), axes, keep), -1.0)
    over = sorted({axis % len(x.shape) for axis in axes})
    check_axes(x, over)
    if function == "mean" and len(x.shape) == 4 and over == [2, 3] and x.shape[0] == 1:
        pooled = adaptive_pool(b, "avg_pool", x, (1, 1))
        return pooled if keep else arrays.squeeze(pooled, (2, 3))
    inner = strip(x.shape)
    skip = len(x.shape) - len(inner)
    if skip and 0 in over:
        over.remove(0)
    full = tuple(1 if axis in over else n for axis, n in enumerate(x.shape))
    result = tuple(full[skip:])
    if over:
        name = b.emit("reduce", [b.at(x, inner)], result, axes=[a - skip for a in over], function=function)
        x = Value(name, full, result, x.batch)
    return x if keep else arrays.squeeze(x, over)


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


def _mean_within(b: Builder, x: Value, kernel: Any, stride: Any, begin: Any, end: Any, padding: bool, ceil: bool
                 ) -> Value:  # fmt: skip
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


def interpolation(size: int, count: int, scale: float, mode: str, way: str, rounding: str, cubic: float) -> Array:
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
