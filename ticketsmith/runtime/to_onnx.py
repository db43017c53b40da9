"""Graphs to ONNX models, so that a dense library can serve a network that has too few zeros. Needs the package ``onnx``."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from functools import partial

import numpy as np

from ticketsmith.runtime.builder.core import HIDDEN, Array, UnsupportedError
from ticketsmith.runtime.graph import Graph, Node, attention_heads, conv_geometry, pool_geometry
from ticketsmith.runtime.onnx.constants import OnnxError
from ticketsmith.runtime.onnx.writer import BOOL, FLOAT, Writer


def _finish(to: Writer, node: Node, value: str) -> str:
    """A product with its residual and its activation."""
    if node.residual is not None:
        value = to.emit("Add", [value, to.value(node, 1)])
    return to.activate(node, value)


def _bias(to: Writer, node: Node) -> list[str]:
    return [to.tensor(node, "bias")] if "bias" in node.weights else []


def _linear(to: Writer, node: Node) -> str:
    bias = _bias(to, node)
    if len(to.shapes[node.output]) == 1:
        return _finish(to, node, to.emit("Gemm", [to.value(node), to.tensor(node, "weight"), *bias], transB=1))
    output = to.emit("MatMul", [to.value(node), to.tensor(node, "weight", "turned", np.transpose)])
    return _finish(to, node, to.emit("Add", [output, *bias]) if bias else output)


def _conv2d(to: Writer, node: Node) -> str:
    stride, padding, dilation, groups = conv_geometry(node)
    output = _transpose_of(to, node)
    if output is None:
        inputs = [to.value(node), to.tensor(node, "weight"), *_bias(to, node)]
        kernel = to.graph.parameter(node, "weight").shape[2:]
        output = to.emit(
            "Conv", inputs, kernel_shape=kernel, strides=stride, pads=[*padding, *padding], dilations=dilation, group=groups
        )  # fmt: skip
    return _finish(to, node, output)


def _transpose_of(to: Writer, node: Node) -> str | None:
    """A convolution of elements with zeros between them, which are then not multiplied; None for any other."""
    (stride, padding, dilation, groups), pad = conv_geometry(node), to.makers.get(node.inputs[0])
    if pad is None or pad.op != "pad" or stride != (1, 1) or pad.real("value"):
        return None
    before, behind, between = (pad.numbers(name, 3) for name in ("before", "behind", "between"))
    weight = to.graph.parameter(node, "weight")
    outputs, inner, *kernel = weight.shape
    spans = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    begin = [span - n - p for span, n, p in zip(spans, before[1:], padding, strict=True)]
    end = [span - n - p for span, n, p in zip(spans, behind[1:], padding, strict=True)]
    more = [max(0, -n) for n in end]
    fits = all(extra <= gap for extra, gap in zip(more, between[1:], strict=True)) and min(begin) >= 0
    if not any(between) or before[0] or behind[0] or between[0] or not fits:
        return None

    def turned(value: Array) -> Array:
        parts = np.flip(value, (2, 3)).reshape(groups, outputs // groups, inner, *kernel).swapaxes(1, 2)
        return parts.reshape(groups * inner, outputs // groups, *kernel)

    inputs = [to.value(pad), to.tensor(node, "weight", "transposed", turned), *_bias(to, node)]
    return to.emit(
        "ConvTranspose", inputs, kernel_shape=kernel, strides=[gap + 1 for gap in between[1:]], dilations=dilation,
        pads=[*begin, *(max(0, n) for n in end)], output_padding=more, group=groups,
    )  # fmt: skip


def _affine(to: Writer, node: Node) -> str:
    """A batch norm where it is one, since that becomes a convolution; else with a number, or one for each feature."""
    value, image = to.value(node), len(to.shapes[node.output]) == 3
    scale, shift = (to.graph.parameter(node, name) for name in ("scale", "shift"))
    if image and any((array != array[0]).any() for array in (scale, shift)):
        ones, zeros = (to.constant(one(len(scale), np.float32)) for one in (np.ones, np.zeros))
        parameters = [to.tensor(node, "scale"), to.tensor(node, "shift"), zeros, ones]
        return to.activate(node, to.emit("BatchNormalization", [value, *parameters], epsilon=0.0))
    for op, name, array, idle in (("Mul", "scale", scale, 1), ("Add", "shift", shift, 0)):
        if (array != idle).any():
            same = (array == array[0]).all()
            value = to.emit(op, [value, to.number(array[0]) if same else to.tensor(node, name)])
    return to.activate(node, value)


def _elementwise(op: str, to: Writer, node: Node) -> str:
    return to.activate(node, to.emit(op, to.operands(node)))


def _comparison(op: str, to: Writer, node: Node) -> str:
    output = to.emit(op, to.operands(node))
    if node.activation == "linear":
        to.booleans[node.output] = output
    return to.activate(node, to.emit("Cast", [output], to=FLOAT))


def _where(to: Writer, node: Node) -> str:
    rank = len(to.shapes[node.output])
    condition, *branches = node.inputs
    output = to.booleans.get(condition) if len(to.shapes[condition]) == rank else None
    output = output or to.emit("Cast", [to.align(condition, rank)], to=BOOL)
    return to.activate(node, to.emit("Where", [output, *(to.align(name, rank) for name in branches)]))


def _axis(to: Writer, node: Node) -> int:
    """The axis of a node, with the batch."""
    last = len(to.shapes[node.output]) - 1
    return 1 + (node.number("axis") if "axis" in node.attributes else last)


def _concat(to: Writer, node: Node) -> str:
    fixed = node.output in to.fixed
    parts = [to.values[name] if fixed else to.with_batch(name) for name in node.inputs]
    return to.emit("Concat", parts, axis=_axis(to, node))


def _expand(to: Writer, node: Node) -> str:
    shape = to.shapes[node.output]
    return to.emit("Expand", [to.align(node.inputs[0], len(shape)), to.integers([1, *shape])])


def _upsample(to: Writer, node: Node) -> str:
    scales = to.constant(np.array([1, 1, *node.numbers("factors", 2, 1)], np.float32))
    return to.emit(
        "Resize", [to.value(node), "", scales], mode="nearest", coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )  # fmt: skip


def _pad(to: Writer, node: Node) -> str:
    shape, value = to.shapes[node.inputs[0]], to.value(node)
    before, behind, between = (node.numbers(name, len(shape)) for name in ("before", "behind", "between"))
    filler = to.number(node.real("value"))
    if any(between):  # each element gets an axis, along which it is padded
        apart = list(zip(shape, between, strict=True))
        value = to.reshape(value, tuple(size for n, gap in apart for size in ((n, 1) if gap else (n,))))
        gaps = [end for _, gap in apart for end in ((0, gap) if gap else (0,))]
        value = to.emit("Pad", [value, to.integers([*[0] * (len(gaps) + 2), *gaps]), filler])
        value = to.reshape(value, tuple(n * (1 + gap) for n, gap in apart))
        behind = tuple(n - gap for n, gap in zip(behind, between, strict=True))
    return to.emit("Pad", [value, to.integers([0, *before, 0, *behind]), filler])


def _slice(to: Writer, node: Node) -> str:
    numbers = (node.number("begin"), node.number("end"), _axis(to, node), node.attributes.get("step", 1))
    return to.emit("Slice", [to.value(node), *(to.integers([number]) for number in numbers)])


def _pool(op: str, to: Writer, node: Node) -> str:
    kernel, stride, padding = pool_geometry(node)
    if kernel == to.shapes[node.inputs[0]][1:] and not any(padding):
        return to.emit(f"Global{op}", [to.value(node)])
    counted = {} if op == "MaxPool" else {"count_include_pad": int(node.attributes.get("count_padding", True))}
    return to.emit(op, [to.value(node)], kernel_shape=kernel, strides=stride, pads=[*padding, *padding], **counted)


def _layer_norm(to: Writer, node: Node) -> str:
    inputs = [to.value(node), to.tensor(node, "scale"), to.tensor(node, "shift")]
    return to.emit("LayerNormalization", inputs, axis=-1, epsilon=node.real("epsilon"))


def _rms_norm(to: Writer, node: Node) -> str:
    value = to.value(node)
    square = to.emit("ReduceMean", [to.emit("Pow", [value, to.number(2.0)]), to.integers([-1])], keepdims=1)
    length = to.emit("Sqrt", [to.emit("Add", [square, to.number(node.real("epsilon"))])])
    return to.emit("Mul", [to.emit("Div", [value, length]), to.tensor(node, "scale")])


def _group_norm(to: Writer, node: Node) -> str:
    shape, groups = to.shapes[node.output], node.number("groups", 1)
    parts = to.reshape(to.value(node), (groups, math.prod(shape) // groups))
    ones, zeros = (to.constant(one(groups, np.float32)) for one in (np.ones, np.zeros))
    output = to.emit("InstanceNormalization", [parts, ones, zeros], epsilon=node.real("epsilon"))
    output = to.reshape(output, shape)
    wide = (-1, *[1] * (len(shape) - 1))
    for op, name in (("Mul", "scale"), ("Add", "shift")):
        output = to.emit(op, [output, to.tensor(node, name, f"{len(shape)} axes", lambda one: one.reshape(wide))])
    return output


def _rotary(to: Writer, node: Node) -> str:
    (tokens, features), heads = to.shapes[node.output], node.number("heads", 1)
    half = features // heads // 2
    interleaved = bool(node.attributes.get("interleaved"))
    pairs = (half, 2) if interleaved else (2, half)
    cos, sin = (
        to.tensor(node, name, f"pairs {pairs}", lambda table: table.reshape(tokens, 1, *pairs))
        for name in ("cos", "sin")
    )
    value = to.reshape(to.value(node), (tokens, heads, *pairs))
    swapped = to.emit("Gather", [value, to.integers([1, 0])], axis=4 if interleaved else 3)
    output = to.emit("Add", [to.emit("Mul", [value, cos]), to.emit("Mul", [swapped, sin])])
    return to.reshape(output, (tokens, features))


def _attention(to: Writer, node: Node) -> str:
    """Heads that share keys and values are rows of one product."""
    (heads, shared), scale = attention_heads(node), node.real("scale")
    (queries, width), (keys, _), (_, value_width) = (to.shapes[name] for name in node.inputs[:3])
    width, value_width, rows = width // heads, value_width // shared, heads // shared * queries
    query = to.transpose(to.reshape(to.value(node), (queries, heads, width)), (1, 0, 2))
    key = to.transpose(to.reshape(to.value(node, 1), (keys, shared, width)), (1, 2, 0))
    value = to.transpose(to.reshape(to.value(node, 2), (keys, shared, value_width)), (1, 0, 2))

    def regrouped(array: str, *shape: int) -> str:
        return array if heads == shared else to.reshape(array, shape)

    scores = to.emit("MatMul", [regrouped(query, shared, rows, width), key])
    scores = to.emit("Mul", [regrouped(scores, heads, queries, keys), to.number(scale)])
    if len(node.inputs) > 3:
        scores = to.emit("Add", [scores, to.value(node, 3)])
    if node.attributes["causal"]:
        later = np.where(np.tri(queries, keys, dtype=bool), 0, HIDDEN).astype(np.float32)
        scores = to.emit("Add", [scores, to.constant(later, "later", ("later", queries, keys))])
    weights = regrouped(to.emit("Softmax", [scores], axis=-1), shared, rows, keys)
    mixed = regrouped(to.emit("MatMul", [weights, value]), heads, queries, value_width)
    return to.reshape(to.transpose(mixed, (1, 0, 2)), (queries, heads * value_width))


WRITERS: dict[str, Callable[[Writer, Node], str]] = {
    "linear": _linear,
    "conv2d": _conv2d,
    "max_pool": partial(_pool, "MaxPool"),
    "avg_pool": partial(_pool, "AveragePool"),
    "affine": _affine,
    "activation": lambda to, node: to.activate(node, to.value(node)),
    **{op: partial(_elementwise, op.capitalize()) for op in ("add", "sub", "mul", "div")},
    "maximum": partial(_elementwise, "Max"),
    "minimum": partial(_elementwise, "Min"),
    "power": partial(_elementwise, "Pow"),
    "equal": partial(_comparison, "Equal"),
    "less": partial(_comparison, "Less"),
    "less_equal": partial(_comparison, "LessOrEqual"),
    "where": _where,
    "add_constant": lambda to, node: to.activate(node, to.emit("Add", [to.value(node), to.tensor(node, "value")])),
    "constant": lambda to, node: to.tensor(node, "value", "sample", lambda value: value[None]),
    "cast": lambda to, node: to.emit("Cast", [to.value(node)], to=FLOAT),
    **dict.fromkeys(("reshape", "flatten"), lambda to, node: to.reshape(to.value(node), to.shapes[node.output])),
    "permute": lambda to, node: to.transpose(to.value(node), node.attributes["axes"]),
    "concat": _concat,
    "expand": _expand,
    "upsample": _upsample,
    "pad": _pad,
    "slice": _slice,
    "reduce": lambda to, node: to.emit(
        f"Reduce{node.attributes['function'].capitalize()}",
        [to.value(node), to.integers([axis + 1 for axis in node.attributes["axes"]])],
        keepdims=1,
    ),
    "matmul": lambda to, node: to.emit("MatMul", to.operands(node)),
    "rotary": _rotary,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
    "softmax": lambda to, node: to.emit("Softmax", [to.value(node)], axis=_axis(to, node)),
    "embedding": lambda to, node: to.emit("Gather", [to.tensor(node, "table"), to.value(node)], axis=0),
    "attention": _attention,
}
"""Of each operator of ``ops``, but for those that have a reason there, the function that writes it."""


__all__ = ["to_onnx"]


def to_onnx(graph: Graph, batch: int | None = None) -> bytes:
    """The graph as a serialised ONNX model, with its inputs and outputs in the graph's order.

    Each has the batch as its first axis: ``batch`` samples, or any number of them where it is None. What is one number a
    sample has no other axis.

    Raises UnsupportedError for what cannot be written (the step of a session, more weights than 2 GiB), and OnnxError where
    ``onnx`` is not installed.
    """
    if importlib.util.find_spec("onnx") is None:
        raise OnnxError('writing ONNX models needs onnx: pip install "ticketsmith[serve]".')
    if graph.step is not None:
        raise UnsupportedError("the step of a session cannot be written as an ONNX model.")
    return Writer(graph, batch, WRITERS).model()
