"""Norms, softmax and reductions over axes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ticketsmith.runtime.builder import arrays, pointwise, windows
from ticketsmith.runtime.builder.core import Array, Builder, Value, check_axes, strip
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
    return result if keep else arrays.squeeze(b, result, axes)


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
        pooled = windows.adaptive_pool(b, "avg_pool", x, (1, 1))
        return pooled if keep else arrays.squeeze(b, pooled, (2, 3))
    inner = strip(x.shape)
    skip = len(x.shape) - len(inner)
    if skip and 0 in over:
        over.remove(0)
    full = tuple(1 if axis in over else n for axis, n in enumerate(x.shape))
    result = tuple(full[skip:])
    if over:
        name = b.emit("reduce", [b.at(x, inner)], result, axes=[a - skip for a in over], function=function)
        x = Value(name, full, result, x.batch)
    return x if keep else arrays.squeeze(b, x, over)
