"""Layers of ONNX: convolutions, products, norms, pools, interpolation, recurrent layers and tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from ticketsmith.runtime.builder import arrays, pointwise, products, reductions, sequences
from ticketsmith.runtime.builder.core import Builder, Value
from ticketsmith.runtime.builder.sequences import Cell, Direction, unroll
from ticketsmith.runtime.onnx.constants import Call


def _pads(call: Call, size: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
          ) -> tuple[list[int], list[int]]:  # fmt: skip
    auto, axes = call.get("auto_pad", "NOTSET"), len(kernel)
    if auto == "VALID":
        return [0] * axes, [0] * axes
    if auto.startswith("SAME"):
        totals = [
            max(0, (-(-n // s) - 1) * s + d * (k - 1) + 1 - n)
            for n, k, s, d in zip(size, kernel, stride, dilation, strict=True)
        ]
        small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
        return (small, large) if auto == "SAME_UPPER" else (large, small)
    pads = [int(n) for n in call.get("pads", [0] * 2 * axes)]
    return pads[:axes], pads[axes:]


def _conv(call: Call, transposed: bool = False) -> Value:
    weight, bias = call.constant(1), call.constant(2)
    if weight is None:
        raise ValueError("no weights")
    if transposed and (call.get("output_shape") or call.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID")):
        raise ValueError("an output shape, or automatic padding")
    axes = weight.ndim - 2
    stride, dilation = call.get("strides", [1] * axes), call.get("dilations", [1] * axes)
    begin, end = _pads(call, call.x.shape[2:], weight.shape[2:], stride, dilation)
    if transposed:
        end = [pad - more for pad, more in zip(end, call.get("output_padding", [0] * axes), strict=True)]
    convolve = products.conv_transpose if transposed else products.conv
    return convolve(call.b, call.x, weight, bias, stride, begin, end, dilation, call.get("group", 1))


def _pool(kind: str, call: Call) -> Value:
    kernel = call.get("kernel_shape")
    stride = call.get("strides", [1] * len(kernel))
    dilation = call.get("dilations", [1] * len(kernel))
    if any(d != 1 for d in dilation) or call.outputs > 1:
        raise ValueError("dilation, or the places of maxima")
    begin, end = _pads(call, call.x.shape[2:], kernel, stride, dilation)
    counted = bool(call.get("count_include_pad", 0)) or (kind == "avg_pool" and not any([*begin, *end]))
    return reductions.pool(call.b, kind, call.x, kernel, stride, begin, end, counted, bool(call.get("ceil_mode", 0)))


def _gemm(call: Call) -> Value:
    b, left, right = call.b, call.input(0), call.input(1)
    call.get("broadcast")  # of old opsets; what follows broadcasts
    if call.get("transA", 0):
        left = arrays.permute(b, left, (1, 0)) if isinstance(left, Value) else left.T
    alpha, beta, bias = call.get("alpha", 1.0), call.get("beta", 1.0), call.input(2)
    if not isinstance(right, Value) and isinstance(left, Value):
        weight = right if call.get("transB", 0) else products.transpose(b, right)
        plain = isinstance(bias, np.ndarray) and bias.size == len(weight) and beta == 1 and alpha == 1
        product = products.linear(b, left, weight, bias if plain else None)
        call.get("transB")
        if bias is None or plain:
            return product if alpha == 1 else pointwise.apply(b, "mul", product, alpha)
    else:
        if call.get("transB", 0):
            right = arrays.permute(b, right, (1, 0)) if isinstance(right, Value) else right.T
        product = products.matmul(b, left, right)
    product = product if alpha == 1 else pointwise.apply(b, "mul", product, alpha)
    if bias is None:
        return product
    if beta != 1:
        bias = pointwise.apply(b, "mul", bias, beta) if isinstance(bias, Value) else bias * beta
    return pointwise.apply(b, "add", product, bias)


def _batch_norm(call: Call) -> Value:
    scale, shift, mean, variance = (call.constant(index) for index in range(1, 5))
    usual = not call.get("training_mode", 0) and call.get("spatial", 1) == 1
    if not usual or scale is None or shift is None or mean is None or variance is None:
        raise ValueError("training mode, or statistics of each place")
    return reductions.batch_norm(call.b, call.x, scale, shift, mean, variance, call.get("epsilon", 1e-5))


def _norm(op: str, call: Call) -> Value:
    axes = len(call.x.shape) - call.get("axis", -1) % len(call.x.shape)
    shift = call.constant(2) if op == "layer_norm" else None
    return reductions.norm(call.b, op, call.x, axes, call.constant(1), shift, call.get("epsilon", 1e-5))


def _group_norm(call: Call) -> Value:
    groups, channels = call.get("num_groups"), call.x.shape[1]
    scale, shift = call.constant(1), call.constant(2)
    if scale is not None and shift is not None and scale.size == groups != channels:  # before opset 21
        scale, shift = (np.repeat(one, channels // groups) for one in (scale, shift))
    return reductions.group_norm(call.b, call.x, groups, scale, shift, call.get("epsilon", 1e-5))


def _instance_norm(call: Call) -> Value:
    scale, shift = call.constant(1), call.constant(2)
    return reductions.group_norm(call.b, call.x, call.x.shape[1], scale, shift, call.get("epsilon", 1e-5))


def _softmax(function: Callable[[Builder, Value, int], Value], call: Call) -> Value:
    axis = call.get("axis", -1 if call.opset >= 13 else 1) % len(call.x.shape)
    if call.opset < 13 and axis != len(call.x.shape) - 1:
        raise ValueError("a softmax of several axes")
    return function(call.b, call.x, axis)


def _local_response(call: Call) -> Value:
    """Krizhevsky et al. 2012: each value by a power of the mean square of its neighbours' channels."""
    b, x, size = call.b, call.x, call.get("size")
    before = (size - 1) // 2
    places = np.arange(x.shape[1])
    near = places[None] - places[:, None]
    window = ((-before <= near) & (near < size - before)).astype(np.float32)
    squares = products.along(b, pointwise.apply(b, "mul", x, x), 1, window * call.get("alpha", 1e-4) / size)
    total = pointwise.apply(b, "add", squares, call.get("bias", 1.0))
    return pointwise.apply(b, "div", x, pointwise.power(b, total, call.get("beta", 0.75)))


def _recurrent(call: Call, kind: str, default: list[str]) -> list[Value]:
    b, weights, hidden, bias = call.b, call.constant(1), call.constant(2), call.constant(3)
    if weights is None or hidden is None:
        raise ValueError("no weights")
    ways, rows, size = hidden.shape
    named = [name.decode() for name in call.get("activations", [])]
    usual = {tuple(default * ways)} | ({("Relu",) * ways} if kind == "RNN" else set())
    if named and tuple(named) not in usual:
        raise ValueError(f"activations {named}")
    lengths = call.constant(4)
    if call.get("clip") or call.get("input_forget") or call.get("layout") or call.input(7) is not None:
        raise ValueError("clipping, coupled gates, peepholes, or the batch as the first axis")
    if lengths is not None and (lengths != call.x.shape[0]).any():
        raise ValueError("sequences of different lengths")
    bias = np.zeros((ways, 2 * rows), np.float32) if bias is None else bias
    orders = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}
    backwards = orders[call.get("direction", "forward")]
    states = [call.input(place) for place in (5, 6)[: 2 if kind == "LSTM" else 1]]
    states = [np.zeros((ways, 1, size), np.float32) if state is None else state for state in states]
    directions = []
    for way in range(ways):
        start = [arrays.select(b, one, 0, way) if isinstance(one, Value) else one[way] for one in states]
        biases = bias[way, :rows], bias[way, rows:]
        directions.append(Direction(weights[way], hidden[way], *biases, tuple(start), backwards[way]))
    cell = Cell(kind, bool(call.get("linear_before_reset", 0)), "relu" if "Relu" in named else "tanh")
    return unroll(b, cell, call.x, directions)


def _gather(call: Call) -> Any:
    b, axis = call.b, call.get("axis", 0)
    data, places = call.inputs[:2]
    if isinstance(places, Value):
        if axis != 0 or isinstance(data, Value):
            raise ValueError("places that are computed")
        return sequences.embedding(b, data, places)
    if places.ndim == 0:
        return arrays.select(b, data, axis, int(places))
    axis %= len(data.shape)
    elements = arrays.take(b, data, axis, places.reshape(-1))
    return arrays.reshape(elements, (*data.shape[:axis], *places.shape, *data.shape[axis + 1 :]))


def _resize(call: Call) -> Value:
    b, x = call.b, call.x
    sizes, scales = (call.constant(3), call.constant(2)) if call.opset >= 11 else (None, call.constant(1))
    call.input(1)  # a region, for a way that is refused
    if call.get("axes") or call.get("antialias") or call.get("exclude_outside"):
        raise ValueError("axes, antialiasing or excluded edges")
    if sizes is not None and sizes.size:
        counts = [int(n) for n in sizes]
        factors = [count / n for count, n in zip(counts, x.shape, strict=True)]
    else:
        factors = (scales if scales is not None else np.asarray(call.get("scales", []))).tolist()
        counts = [int(n * factor) for n, factor in zip(x.shape, factors, strict=True)]
    way = call.get("coordinate_transformation_mode", "half_pixel" if call.opset >= 11 else "asymmetric")
    rounding = call.get("nearest_mode", "round_prefer_floor" if call.opset >= 11 else "floor")
    mode = call.get("mode", "nearest")
    if counts[:2] != list(x.shape[:2]) or call.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise ValueError(f"sizes {counts}")
    matrices = [
        reductions.interpolation(n, count, factor, mode, way, rounding, call.get("cubic_coeff_a", -0.75))
        for n, count, factor in list(zip(x.shape, counts, factors, strict=True))[2:]
    ]
    if mode == "nearest":
        return reductions.nearest(b, x, [one.argmax(1) for one in matrices])
    return reductions.resize(b, x, matrices)


def _dropout(call: Call) -> Any:
    ratio, training = call.constant(1), call.constant(2)
    if training is not None and training.any() and (ratio is None or ratio.any()):
        raise ValueError("training mode")
    return call.input(0)


LAYERS: dict[str, Callable[[Call], Any]] = {
    "Conv": _conv,
    "ConvTranspose": lambda call: _conv(call, transposed=True),
    "Gemm": _gemm,
    "MatMul": lambda call: products.matmul(call.b, *call.inputs),
    "BatchNormalization": _batch_norm,
    "LayerNormalization": partial(_norm, "layer_norm"),
    **dict.fromkeys(("RMSNormalization", "SimplifiedLayerNormalization"), partial(_norm, "rms_norm")),
    "GroupNormalization": _group_norm,
    "InstanceNormalization": _instance_norm,
    "LRN": _local_response,
    "Softmax": partial(_softmax, reductions.softmax),
    "LogSoftmax": partial(_softmax, reductions.log_softmax),
    "MaxPool": partial(_pool, "max_pool"),
    "AveragePool": partial(_pool, "avg_pool"),
    "GlobalAveragePool": lambda call: reductions.adaptive_pool(
        call.b, "avg_pool", call.x, [1] * (len(call.x.shape) - 2)
    ),
    "GlobalMaxPool": lambda call: reductions.adaptive_pool(call.b, "max_pool", call.x, [1] * (len(call.x.shape) - 2)),
    **dict.fromkeys(("Resize", "Upsample"), _resize),
    "LSTM": lambda call: _recurrent(call, "LSTM", ["Sigmoid", "Tanh", "Tanh"]),
    "GRU": lambda call: _recurrent(call, "GRU", ["Sigmoid", "Tanh"]),
    "RNN": lambda call: _recurrent(call, "RNN", ["Tanh"]),
    "Gather": _gather,
    "Dropout": _dropout,
}
