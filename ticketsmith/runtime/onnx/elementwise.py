"""Operators of ONNX that compute number by number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ticketsmith.runtime.builder import pointwise
from ticketsmith.runtime.builder.core import Value
from ticketsmith.runtime.onnx.call import Call


def _unary(kind: str) -> Callable[[Call], Value]:
    return lambda call: pointwise.unary(call.b, kind, call.x)


def _binary(op: str, turned: bool = False, boolean: bool = False) -> Callable[[Call], Value]:
    def translate(call: Call) -> Value:
        call.get("broadcast")  # of opsets before 7; with `axis`, which is refused, it is another one than NumPy's
        left, right = call.inputs[::-1] if turned else call.inputs
        return replace(pointwise.apply(call.b, op, left, right), boolean=boolean)

    return translate


def _several(op: str) -> Callable[[Call], Any]:
    def translate(call: Call) -> Any:
        total = call.inputs[0]
        for one in call.inputs[1:]:
            total = pointwise.apply(call.b, op, total, one)
        return total

    return translate


def _power(call: Call) -> Value:
    exponent = call.input(1)
    if isinstance(exponent, np.ndarray) and exponent.size == 1:
        return pointwise.power(call.b, call.x, float(exponent.reshape(-1)[0]))
    return pointwise.apply(call.b, "power", *call.inputs)


def _clip(call: Call) -> Value:
    low, high = (call.constant(1), call.constant(2)) if call.opset >= 11 else (call.get("min"), call.get("max"))
    numbers = [None if one is None else float(np.asarray(one).reshape(-1)[0]) for one in (low, high)]
    return pointwise.clip(call.b, call.x, *numbers)


def _swish(call: Call) -> Value:
    alpha = call.get("alpha", 1.0)
    if alpha == 1:
        return pointwise.unary(call.b, "silu", call.x)
    gate = pointwise.unary(call.b, "sigmoid", pointwise.apply(call.b, "mul", call.x, alpha))
    return pointwise.apply(call.b, "mul", call.x, gate)


def _fast_gelu(call: Call) -> Value:
    bias = call.input(1)
    x = call.x if bias is None else pointwise.apply(call.b, "add", call.x, bias)
    return pointwise.unary(call.b, "gelu_tanh", x)


def _celu(call: Call) -> Value:
    alpha = call.get("alpha", 1.0)
    return pointwise.elu(call.b, call.x, alpha, inner=1 / alpha)


def _hard_sigmoid(call: Call) -> Value:
    alpha, beta = call.get("alpha", 0.2), call.get("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return pointwise.unary(call.b, "hard_sigmoid", call.x)
    line = pointwise.apply(call.b, "add", pointwise.apply(call.b, "mul", call.x, alpha), beta)
    return pointwise.clip(call.b, line, 0.0, 1.0)


def _prelu(call: Call) -> Value:
    slope = call.constant(1)
    if slope is None:
        raise ValueError("no slope")
    return pointwise.leaky(call.b, call.x, slope)


def _softsign(call: Call) -> Value:
    size = pointwise.apply(call.b, "add", pointwise.unary(call.b, "abs", call.x), 1.0)
    return pointwise.apply(call.b, "div", call.x, size)


def _cast(call: Call) -> Value:
    """``x`` as numbers of another type: that of ``to``, or that of the second input."""
    import onnx

    types, like = onnx.TensorProto, call.input(1)
    if like is None:
        to = call.get("to")
    elif isinstance(like, Value):
        to = types.BOOL if like.boolean else types.INT64 if like.integer else types.FLOAT
    else:
        to = onnx.helper.np_dtype_to_tensor_dtype(like.dtype)
    if to == types.BOOL and not call.x.boolean:
        return replace(pointwise.not_equal(call.b, call.x, 0.0), boolean=True)
    if to in (types.INT64, types.INT32) and not (call.x.integer or call.x.boolean):
        raise ValueError("rounding to whole numbers")
    if to not in (types.FLOAT, types.DOUBLE, types.INT64, types.INT32, types.BOOL):
        raise ValueError(f"a cast to {types.DataType.Name(to)}")
    return call.x


ELEMENTWISE: dict[str, Callable[[Call], Any]] = {
    **{
        name: _unary(name.lower())
        for name in ("Relu", "Sigmoid", "Tanh", "Erf", "Exp", "Log", "Sqrt", "Sin", "Cos", "Abs")
    },
    "HardSwish": _unary("hard_swish"),
    "Swish": _swish,
    "Gelu": lambda call: pointwise.gelu(call.b, call.x, call.get("approximate", "none")),
    "FastGelu": _fast_gelu,
    "HardSigmoid": _hard_sigmoid,
    "LeakyRelu": lambda call: pointwise.leaky(call.b, call.x, call.get("alpha", 0.01)),
    "PRelu": _prelu,
    "Elu": lambda call: pointwise.elu(call.b, call.x, call.get("alpha", 1.0)),
    "Selu": lambda call: pointwise.elu(
        call.b, call.x, call.get("alpha", 1.67326319217681884765625), call.get("gamma", 1.05070102214813232421875)
    ),
    "Celu": _celu,
    "Softplus": lambda call: pointwise.softplus(call.b, call.x),
    "Mish": lambda call: pointwise.mish(call.b, call.x),
    "Softsign": _softsign,
    "Neg": lambda call: pointwise.apply(call.b, "mul", call.x, -1.0),
    "Reciprocal": lambda call: pointwise.apply(call.b, "div", 1.0, call.x),
    "Clip": _clip,
    "Pow": _power,
    "Add": _binary("add"),
    "Sub": _binary("sub"),
    "Mul": _binary("mul"),
    "Div": _binary("div"),
    "Sum": _several("add"),
    "Max": _several("maximum"),
    "Min": _several("minimum"),
    "Equal": _binary("equal", boolean=True),
    "Less": _binary("less", boolean=True),
    "LessOrEqual": _binary("less_equal", boolean=True),
    "Greater": _binary("less", turned=True, boolean=True),
    "GreaterOrEqual": _binary("less_equal", turned=True, boolean=True),
    "And": _binary("mul", boolean=True),
    "Or": _binary("maximum", boolean=True),
    "Not": lambda call: replace(pointwise.opposite(call.b, call.x), boolean=True),
    "IsNaN": lambda call: replace(pointwise.not_equal(call.b, call.x, call.x), boolean=True),
    "Where": lambda call: pointwise.where(call.b, *call.inputs),
    **dict.fromkeys(("Cast", "CastLike"), _cast),
}
