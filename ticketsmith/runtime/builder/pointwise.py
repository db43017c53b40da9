"""What is computed number by number, with broadcasting."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ticketsmith.runtime.builder.core import HIDDEN, Array, Builder, Value, common_batch, strip
from ticketsmith.runtime.graph import MOST_AXES, Shape

Operand = Value | Array | float


def operand(value: Operand) -> Value | Array:
    """A number as an array."""
    return value if isinstance(value, (Value, np.ndarray)) else np.array(value, np.float32)


def apply(b: Builder, op: str, *operands: Operand) -> Value:
    """``op`` is one of ``ops.ELEMENTWISE``, of two operands (``where``: three), which are broadcast."""
    parts = [operand(one) for one in operands]
    values = [one for one in parts if isinstance(one, Value)]
    full = np.broadcast_shapes(*(one.shape for one in parts))
    batch = common_batch(values, full)
    if len(values) == 1 and len(parts) == 2:
        affine = _with_constant(b, op, parts[0], parts[1], full, batch)
        if affine is not None:
            return affine
    inner = strip(full)

    def inside(one: Value | Array) -> Shape:
        padded = (1,) * (len(full) - len(one.shape)) + one.shape
        return padded[1:] if len(inner) < len(full) else padded or (1,)

    names = [b.at(one, inside(one)) for one in parts]
    return Value(b.emit(op, names, inner), full, inner, batch)


def _with_constant(b: Builder, op: str, left: Any, right: Any, full: Shape, batch: int | None) -> Value | None:
    """A value with a constant that is the same everywhere, or for each feature: an affine map."""
    first = isinstance(left, Value)
    value, constant = (left, right) if first else (right, left)
    if value.shape != full or op not in ("add", "sub", "mul", "div") or (op == "div" and not first):
        return None
    inner = strip(full)
    if len(inner) > 3:
        if constant.size != 1:
            return None
        inner = (math.prod(inner[:-1]), inner[-1]) if inner[-1] > 1 else (math.prod(inner),)
    constant = constant.astype(np.float32)
    features, axis = (inner[0], 0) if len(inner) == 3 else (inner[-1], len(inner) - 1)
    wide = constant.reshape((1,) * (len(full) - constant.ndim) + constant.shape)
    wide = wide.reshape(wide.shape[len(full) - len(inner) :]) if constant.size > 1 else wide
    if constant.size == 1 or wide.size == wide.shape[axis] == features:
        flat = np.broadcast_to(constant.ravel(), (features,)).astype(np.float32)
        one, zero = np.ones(features, np.float32), np.zeros(features, np.float32)
        maps: dict[str, tuple[Array, Array]] = {
            "add": (one, flat),
            "sub": (one, -flat) if first else (-one, flat),
            "mul": (flat, zero),
            "div": (1 / np.where(flat == 0, np.nan, flat), zero),
        }
        scale, shift = maps[op]
        if not (np.isfinite(scale).all() and np.isfinite(shift).all()):
            return None
        name = b.emit("affine", [b.at(value, inner)], inner, {"scale": scale, "shift": shift})
        return Value(name, full, inner, batch)
    if op in ("add", "sub") and first and wide.shape == inner:
        shift = constant.reshape(inner) if op == "add" else -constant.reshape(inner)
        return Value(b.emit("add_constant", [b.at(value, inner)], inner, {"value": shift}), full, inner, batch)
    return None


def unary(b: Builder, kind: str, x: Value) -> Value:
    """``kind`` is one of ``node.ACTIVATIONS``."""
    inner = strip(x.shape) if len(x.shape) <= MOST_AXES else x.inner
    return b.keep_shape("activation", x, inner, activation=kind)


def gelu(b: Builder, x: Value, approximate: str = "none") -> Value:
    """Hendrycks and Gimpel 2016; ``approximate`` by ``"tanh"``, or not."""
    return unary(b, "gelu_tanh" if approximate == "tanh" else "gelu", x)


def power(b: Builder, x: Value, exponent: float) -> Value:
    """``x`` to a constant."""
    if exponent == 1:
        return x
    if exponent in (2, 3):
        square = apply(b, "mul", x, x)
        return square if exponent == 2 else apply(b, "mul", square, x)
    if exponent in (0.5, -0.5):
        root = unary(b, "sqrt", x)
        return root if exponent > 0 else apply(b, "div", 1.0, root)
    if exponent == -1:
        return apply(b, "div", 1.0, x)
    return apply(b, "power", x, exponent)


def opposite(b: Builder, x: Value) -> Value:
    """``not x``, of zeros and ones."""
    return apply(b, "sub", 1.0, x)


def not_equal(b: Builder, left: Operand, right: Operand) -> Value:
    """1 where two numbers differ, else 0."""
    return opposite(b, apply(b, "equal", left, right))


def where(b: Builder, condition: Operand, left: Operand, right: Operand) -> Value:
    """``left`` where the condition is not zero, else ``right``. Infinite constants become very large numbers."""
    branches = (
        np.clip(one, HIDDEN, -HIDDEN) if isinstance(one, np.ndarray) and one.dtype.kind == "f" else one
        for one in (operand(left), operand(right))
    )
    return apply(b, "where", condition, *branches)


def clip(b: Builder, x: Value, low: float | None, high: float | None) -> Value:
    """Not below ``low``, not above ``high``."""
    if low == 0 and high in (None, 6):
        return unary(b, "relu" if high is None else "relu6", x)
    if low is not None and low > -3e38:
        x = apply(b, "maximum", x, low)
    return x if high is None or high > 3e38 else apply(b, "minimum", x, high)


def leaky(b: Builder, x: Value, slope: Array | float) -> Value:
    """``x`` where it is above zero, and elsewhere ``slope * x``."""
    below = apply(b, "mul", apply(b, "minimum", x, 0.0), slope)
    return apply(b, "add", unary(b, "relu", x), below)


def elu(b: Builder, x: Value, alpha: float = 1.0, scale: float = 1.0, inner: float = 1.0) -> Value:
    """Clevert et al. 2016; ``scale`` times it, and with ``inner`` times ``x`` in the exponent (Barron 2017, CELU)."""
    low = apply(b, "minimum", x, 0.0)
    low = low if inner == 1 else apply(b, "mul", low, inner)
    below = apply(b, "sub", unary(b, "exp", low), 1.0)
    whole = apply(b, "add", unary(b, "relu", x), apply(b, "mul", below, alpha))
    return whole if scale == 1 else apply(b, "mul", whole, scale)


def mish(b: Builder, x: Value) -> Value:
    """Misra 2019."""
    return apply(b, "mul", x, unary(b, "tanh", softplus(b, x)))


def softplus(b: Builder, x: Value) -> Value:
    """``log(1 + exp(x))``, from parts that do not overflow."""
    small = unary(b, "exp", apply(b, "mul", unary(b, "abs", x), -1.0))
    return apply(b, "add", unary(b, "relu", x), unary(b, "log", apply(b, "add", small, 1.0)))
