"""Operators of PyTorch that compute number by number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ticketsmith.runtime.builder import arrays, pointwise
from ticketsmith.runtime.builder.core import Builder, Value


def _unary(kind: str) -> Callable[..., Value]:
    return lambda b, x: pointwise.unary(b, kind, x)


def _binary(op: str, turned: bool = False) -> Callable[..., Value]:
    def translate(b: Builder, left: Any, right: Any, alpha: float = 1, rounding_mode: Any = None) -> Value:
        if rounding_mode is not None:
            raise ValueError(f"rounding {rounding_mode}")
        if turned:
            left, right = right, left
        if alpha != 1:  # of what is taken off
            right = pointwise.operand(right)
            right = pointwise.apply(b, "mul", right, alpha) if isinstance(right, Value) else right * alpha
        return pointwise.apply(b, op, left, right)

    return translate


def _not(b: Builder, x: Value) -> Value:
    if not x.boolean:
        raise ValueError("bits of whole numbers")
    return pointwise.opposite(b, x)


def _logical(op: str) -> Callable[..., Value]:
    def translate(b: Builder, left: Any, right: Any) -> Value:
        if not all(one.boolean if isinstance(one, Value) else one.dtype == np.bool_ for one in (left, right)):
            raise ValueError("bits of whole numbers")
        return pointwise.apply(b, op, left, right)

    return translate


def _power(b: Builder, x: Any, exponent: Any) -> Value:
    if isinstance(exponent, (int, float)):
        return pointwise.power(b, x, float(exponent))
    return pointwise.apply(b, "power", x, exponent)


def _to(b: Builder, x: Value, *others: Any, dtype: Any = None, **_: Any) -> Value:
    wanted = dtype or next((one for one in others if isinstance(one, torch.dtype)), None)
    if wanted is None or wanted.is_floating_point or x.boolean:
        return x
    if wanted == torch.bool:
        return pointwise.not_equal(b, x, 0.0)
    if not x.integer:
        raise ValueError(f"rounding to {wanted}")
    return x


def _glu(b: Builder, x: Value, dim: int = -1) -> Value:
    left, right = arrays.split(b, x, [x.shape[dim] // 2] * 2, dim)
    return pointwise.apply(b, "mul", left, pointwise.unary(b, "sigmoid", right))


def _prelu(b: Builder, x: Value, slope: Any) -> Value:
    return pointwise.leaky(b, x, slope.reshape(-1, *[1] * (len(x.shape) - 2)) if slope.size > 1 else slope.reshape(()))


def _softplus(b: Builder, x: Value, beta: float = 1, threshold: float = 20) -> Value:
    scaled = x if beta == 1 else pointwise.apply(b, "mul", x, beta)
    curve = (
        pointwise.softplus(b, scaled) if beta == 1 else pointwise.apply(b, "div", pointwise.softplus(b, scaled), beta)
    )
    # above the threshold it is the line: beyond 16 the same numbers
    return curve if threshold >= 16 else pointwise.where(b, pointwise.apply(b, "less", threshold, scaled), x, curve)


def _sign(b: Builder, x: Value) -> Value:
    above = pointwise.apply(b, "less", pointwise.apply(b, "mul", x, -1.0), 0.0)
    return pointwise.apply(b, "sub", above, pointwise.apply(b, "less", x, 0.0))


ELEMENTWISE: dict[str, Callable[..., Any]] = {
    **{
        name: _unary(name)
        for name in ("relu", "silu", "sigmoid", "tanh", "relu6", "exp", "log", "sqrt", "erf", "sin", "cos", "abs")
    },
    "hardswish": _unary("hard_swish"),
    "hardsigmoid": _unary("hard_sigmoid"),
    "gelu": pointwise.gelu,
    "hardtanh": lambda b, x, low=-1.0, high=1.0: pointwise.clip(b, x, low, high),
    "clamp": lambda b, x, low=None, high=None, **named: pointwise.clip(
        b, x, named.get("min", low), named.get("max", high)
    ),
    "clamp_min": lambda b, x, low: pointwise.clip(b, x, low, None),
    "clamp_max": lambda b, x, high: pointwise.clip(b, x, None, high),
    "leaky_relu": lambda b, x, slope=0.01: pointwise.leaky(b, x, slope),
    "prelu": _prelu,
    "elu": pointwise.elu,
    "selu": lambda b, x: pointwise.elu(b, x, 1.6732632423543772, 1.0507009873554805),
    "softplus": _softplus,
    "mish": pointwise.mish,
    "glu": _glu,
    "log1p": lambda b, x: pointwise.unary(b, "log", pointwise.apply(b, "add", x, 1.0)),
    "expm1": lambda b, x: pointwise.apply(b, "sub", pointwise.unary(b, "exp", x), 1.0),
    "sign": _sign,
    "neg": lambda b, x: pointwise.apply(b, "mul", x, -1.0),
    "rsqrt": lambda b, x: pointwise.power(b, x, -0.5),
    "reciprocal": lambda b, x: pointwise.apply(b, "div", 1.0, x),
    "square": lambda b, x: pointwise.power(b, x, 2),
    "pow": _power,
    "add": _binary("add"),
    "sub": _binary("sub"),
    "rsub": _binary("sub", turned=True),
    "mul": _binary("mul"),
    "div": _binary("div"),
    "maximum": _binary("maximum"),
    "minimum": _binary("minimum"),
    "eq": _binary("equal"),
    "ne": pointwise.not_equal,
    "isnan": lambda b, x: pointwise.not_equal(b, x, x),
    "lt": _binary("less"),
    "le": _binary("less_equal"),
    "gt": _binary("less", turned=True),
    "ge": _binary("less_equal", turned=True),
    **dict.fromkeys(("logical_not", "bitwise_not", "__invert__"), _not),
    **dict.fromkeys(("logical_and", "bitwise_and", "__and__"), _logical("mul")),
    **dict.fromkeys(("logical_or", "bitwise_or", "__or__"), _logical("maximum")),
    "where": pointwise.where,
    "masked_fill": lambda b, x, mask, value: pointwise.where(b, mask, value, x),
    **dict.fromkeys(("to", "_to_copy", "type_as", "float"), _to),
}
