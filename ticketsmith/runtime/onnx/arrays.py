"""Operators of ONNX that compute number by number, reduce arrays, or give their elements in another shape or order."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from ticketsmith.runtime.builder import arrays, pointwise, products, reductions
from ticketsmith.runtime.builder.core import Builder, Value
from ticketsmith.runtime.graph import MOST_ELEMENTS
from ticketsmith.runtime.onnx.constants import Call


def _unary(kind: str) -> Callable[[Call], Value]:
    return lambda call: pointwise.unary(call.b, kind, call.x)


def _binary(op: str, call: Call, turned: bool = False, boolean: bool = False) -> Value:
    call.get("broadcast")  # of opsets before 7; with `axis`, which is refused, it is another one than NumPy's
    left, right = call.inputs[::-1] if turned else call.inputs
    return replace(pointwise.apply(call.b, op, left, right), boolean=boolean)


def _several(op: str, call: Call) -> Any:
    total = call.inputs[0]
    for one in call.inputs[1:]:
        total = pointwise.apply(call.b, op, total, one)
    return total


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


_SAME_NAME = ("relu", "sigmoid", "tanh", "erf", "exp", "log", "sqrt", "sin", "cos", "abs")
"""Activations that ONNX and the runtime call the same."""

ELEMENTWISE: dict[str, Callable[[Call], Any]] = {
    **{name.capitalize(): _unary(name) for name in _SAME_NAME},
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
    "Celu": lambda call: pointwise.elu(call.b, call.x, call.get("alpha", 1.0), inner=1 / call.get("alpha", 1.0)),
    "Softplus": lambda call: pointwise.softplus(call.b, call.x),
    "Mish": lambda call: pointwise.mish(call.b, call.x),
    "Softsign": _softsign,
    "Neg": lambda call: pointwise.apply(call.b, "mul", call.x, -1.0),
    "Reciprocal": lambda call: pointwise.apply(call.b, "div", 1.0, call.x),
    "Clip": _clip,
    "Pow": _power,
    **{name.capitalize(): partial(_binary, name) for name in ("add", "sub", "mul", "div")},
    "Sum": partial(_several, "add"),
    "Max": partial(_several, "maximum"),
    "Min": partial(_several, "minimum"),
    "Equal": partial(_binary, "equal", boolean=True),
    "Less": partial(_binary, "less", boolean=True),
    "LessOrEqual": partial(_binary, "less_equal", boolean=True),
    "Greater": partial(_binary, "less", turned=True, boolean=True),
    "GreaterOrEqual": partial(_binary, "less_equal", turned=True, boolean=True),
    "And": partial(_binary, "mul", boolean=True),
    "Or": partial(_binary, "maximum", boolean=True),
    "Not": lambda call: replace(pointwise.opposite(call.b, call.x), boolean=True),
    "IsNaN": lambda call: replace(pointwise.not_equal(call.b, call.x, call.x), boolean=True),
    "Where": lambda call: pointwise.where(call.b, *call.inputs),
    **dict.fromkeys(("Cast", "CastLike"), _cast),
}


def _reshape(call: Call) -> Value:
    sizes = call.numbers(1, "shape") or []
    if not call.get("allowzero", 0):
        sizes = [call.x.shape[axis] if n == 0 else n for axis, n in enumerate(sizes)]
    return arrays.reshape(call.x, sizes)


def _expand(call: Call) -> Value:
    shape = tuple(call.numbers(1, "shape") or [])
    return arrays.expand(call.b, call.x, np.broadcast_shapes(call.x.shape, shape))


def _flatten(call: Call) -> Value:
    axis = call.get("axis", 1)
    axis = axis + len(call.x.shape) if axis < 0 else axis
    return arrays.reshape(call.x, (math.prod(call.x.shape[:axis]), math.prod(call.x.shape[axis:])))


def _squeeze(call: Call) -> Value:
    axes = call.numbers(1, "axes")
    if axes is None:
        raise ValueError("without axes, the batch may go too")
    return arrays.squeeze(call.x, axes)


def _split(call: Call) -> list[Value]:
    axis, sizes = call.get("axis", 0), call.numbers(1, "split")
    if sizes is None:
        return arrays.split(call.b, call.x, -(-call.x.shape[axis] // (call.get("num_outputs") or call.outputs)), axis)
    return arrays.split(call.b, call.x, sizes, axis)


def _slice(call: Call) -> Value:
    x = call.x
    starts, ends = call.numbers(1, "starts") or [], call.numbers(2, "ends") or []
    axes = call.numbers(3, "axes") or list(range(len(starts)))
    steps = call.numbers(4, "steps") or [1] * len(starts)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if step < 0:
            x = arrays.take(call.b, x, axis, np.arange(x.shape[axis])[start:end:step])
        else:
            x = arrays.part(call.b, x, axis, start, end, step)
    return x


def _pad(call: Call) -> Value:
    rank, pads, filler = len(call.x.shape), call.numbers(1, "pads") or [], call.constant(2)
    mode = call.get("mode", "constant")
    value = call.get("value", 0.0) if filler is None or not filler.size else float(filler.reshape(-1)[0])
    axes = call.numbers(3, "axes")
    before, behind = [0] * rank, [0] * rank
    listed = list(range(rank)) if axes is None else [axis % rank for axis in axes]
    for place, axis in enumerate(listed):
        before[axis], behind[axis] = pads[place], pads[place + len(listed)]
    return arrays.pad_by(call.b, call.x, before, behind, mode, value)


def _tile(call: Call) -> Value:
    x, repeats = call.x, call.numbers(1, "repeats") or []
    if math.prod((*x.shape, *repeats)) > MOST_ELEMENTS or max(repeats, default=1) > MOST_ELEMENTS:
        raise ValueError("its result is too large")
    return arrays.tile(call.b, x, repeats)


def _space_to_depth(call: Call) -> Value:
    b, size = call.b, call.get("blocksize")
    _, channels, rows, cols = call.x.shape
    parts = arrays.reshape(call.x, (1, channels, rows // size, size, cols // size, size))
    parts = arrays.permute(b, parts, (0, 3, 5, 1, 2, 4))
    return arrays.reshape(parts, (1, channels * size**2, rows // size, cols // size))


def _cumulative(call: Call) -> Value:
    axis = int(np.asarray(call.constant(1)).reshape(-1)[0])
    size = call.x.shape[axis]
    matrix = np.tri(size, k=-1 if call.get("exclusive", 0) else 0, dtype=np.float32)
    return products.along(call.b, call.x, axis, matrix.T if call.get("reverse", 0) else matrix)


def _over(function: Callable[[Builder, Value, list[int], bool], Value], call: Call) -> Value:
    axes = call.numbers(1, "axes")
    if not axes and call.get("noop_with_empty_axes", 0):
        raise ValueError("no axes")
    return function(call.b, call.x, axes or list(range(len(call.x.shape))), bool(call.get("keepdims", 1)))


def _reduce(function: str, call: Call) -> Value:
    if call.get("noop_with_empty_axes", 0) and not call.numbers(1, "axes"):
        return call.x
    return _over(lambda b, x, axes, keep: reductions.reduce(b, function, x, axes, keep), call)


def _square_sum(b: Builder, x: Value, axes: list[int], keep: bool) -> Value:
    return reductions.reduce(b, "sum", pointwise.apply(b, "mul", x, x), axes, keep)


ARRAYS: dict[str, Callable[[Call], Any]] = {
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Transpose": lambda call: arrays.permute(call.b, call.x, call.get("perm") or range(len(call.x.shape))[::-1]),
    "Squeeze": _squeeze,
    "Unsqueeze": lambda call: arrays.unsqueeze(call.x, call.numbers(1, "axes") or []),
    "Concat": lambda call: arrays.concat(call.b, call.inputs, call.get("axis", 0)),
    "Split": _split,
    "Slice": _slice,
    "Pad": _pad,
    "Expand": _expand,
    "Tile": _tile,
    **{f"Reduce{name.capitalize()}": partial(_reduce, name) for name in ("mean", "sum", "max", "min")},
    "ReduceL1": partial(_over, lambda b, x, axes, keep: reductions.vector_norm(b, x, 1, axes, keep)),
    "ReduceL2": partial(_over, lambda b, x, axes, keep: reductions.vector_norm(b, x, 2, axes, keep)),
    "ReduceSumSquare": partial(_over, _square_sum),
    "ReduceLogSumExp": partial(_over, reductions.logsumexp),
    "CumSum": _cumulative,
    "DepthToSpace": lambda call: arrays.depth_to_space(
        call.b, call.x, call.get("blocksize"), call.get("mode", "DCR") == "DCR"
    ),
    "SpaceToDepth": _space_to_depth,
    "Shape": lambda call: np.array(call.x.shape[call.get("start", 0) : call.get("end")], np.int64),
    "Size": lambda call: np.array(math.prod(call.x.shape), np.int64),
    "Identity": lambda call: call.input(0),
}
