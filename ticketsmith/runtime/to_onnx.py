"""Graphs to ONNX models, so that a dense library can serve a network that has too few zeros. Needs the package ``onnx``.

Written are the patterns that the optimisers of ONNX Runtime and OpenVINO know: a convolution and its activation, a product
with a constant and its bias, attention as two products around a softmax, with the batch as the first axis of every value.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from ticketsmith.runtime.build import HIDDEN, Array, UnsupportedError
from ticketsmith.runtime.from_onnx import OnnxError
from ticketsmith.runtime.graph import Graph, Node, Port, Shape, attention_heads, conv_geometry, pool_geometry

__all__ = ["to_onnx"]

_OPSET, _IR = 18, 8
"""Both libraries know later ones, but ONNX Runtime computes the means of windows of opset 19 by a slower kernel."""

_MOST_BYTES = 2**31 - 2**20
"""Of weights: protobuf holds 2 GiB, with the rest of the model."""

_FLOAT, _BOOL, _INT64 = 1, 9, 7  # onnx.TensorProto.DataType


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
    return _Writer(graph, batch).model()


class _Writer:
    """Writes nodes one after another. A value has the shape ``[batch, *its shape in the graph]``, or ``[1, ...]`` where it
    does not depend on the inputs."""

    def __init__(self, graph: Graph, batch: int | None) -> None:
        self.graph, self.batch, self.shapes = graph, batch, graph.shapes()
        self.makers = {node.output: node for node in graph.nodes}
        self.values: dict[str, str] = {}
        self.booleans: dict[str, str] = {}
        """What comparisons made, before it became zeros and ones."""
        self.fixed: set[str] = set()
        """Values of the graph that do not depend on the inputs."""
        self.ends = {port.name for port in graph.inputs}
        """Names of the model's inputs and outputs."""
        self.nodes: list[Any] = []
        self.initializers: dict[Hashable, Any] = {}
        self.bytes = 0
        self._taken = {*(port.name for port in graph.inputs), *self.makers}
        self._output = ""

    def model(self) -> bytes:
        from onnx import helper

        for port in self.graph.inputs:
            self._output = port.name
            self.values[port.name] = port.name if port.shape else self.reshape(port.name, (1,))
        for node in self.graph.nodes:
            self._node(node)
        given = zip(self.graph.outputs, self.graph.output_shapes(), strict=True)
        outputs = [Port(self._given(name, shape), shape) for name, shape in given]
        nodes, kept = self._needed([port.name for port in outputs])
        inputs, results = ([self._port(port) for port in side] for side in (self.graph.inputs, outputs))
        empty = helper.make_graph(nodes, "ticketsmith", inputs, results)
        made = helper.make_model(empty, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)
        made.graph.initializer.extend(kept)  # at last, so that weights are not copied with the graph
        return bytes(made.SerializeToString())

    def _node(self, node: Node) -> None:
        write = _WRITTEN.get(node.op)
        if write is None:
            raise UnsupportedError(f"{node}: it cannot be written as ONNX.")
        self._output = node.output
        if all(name in self.fixed for name in node.inputs):
            self.fixed.add(node.output)
        before = len(self.nodes)
        made = write(self, node)
        if len(self.nodes) > before and self.nodes[-1].output[0] == made:  # the last of what it becomes has its name
            self.nodes[-1].output[0] = made = node.output
        self.values[node.output] = made

    def _given(self, name: str, shape: Shape) -> str:
        """An output of the model: a value with the batch, by a name that no input and no other output has."""
        self._output = name
        value = self.batched(name)
        if not shape:
            value = self.emit("Reshape", [value, self.integers([-1])])
        elif value in self.ends:
            value = self.emit("Identity", [value])
        self.ends.add(value)
        return value

    def _port(self, port: Port) -> Any:
        from onnx import helper

        batch, kind = self.batch or "batch", _INT64 if port.dtype == "int64" else _FLOAT
        return helper.make_tensor_value_info(port.name, kind, [batch, *port.shape])

    def _needed(self, outputs: Sequence[str]) -> tuple[list[Any], list[Any]]:
        """Without what others have taken the place of: nodes and initializers."""
        needed, kept = set(outputs), []
        for node in reversed(self.nodes):
            if needed.intersection(node.output):
                needed.update(node.input)
                kept.append(node)
        return kept[::-1], [one for one in self.initializers.values() if one.name in needed]

    # ---- parts of a model

    def _unique(self, name: str) -> str:
        found, count = name, 0
        while found in self._taken:
            count += 1
            found = f"{name}.{count}"
        self._taken.add(found)
        return found

    def emit(self, op: str, inputs: Sequence[str], **attributes: Any) -> str:
        """One node more; the name of its output."""
        from onnx import helper

        name = self._unique(self._output)
        self.nodes.append(helper.make_node(op, list(inputs), [name], **attributes))
        return name

    def constant(self, value: Array, name: str = "constant", key: Hashable = None) -> str:
        """An initializer; equal ones, and those of one ``key``, are one."""
        from onnx import numpy_helper

        key = key or (value.dtype.str, value.shape, value.tobytes())
        if key not in self.initializers:
            self.bytes += value.nbytes
            if self.bytes > _MOST_BYTES:
                raise UnsupportedError("the model has more than 2 GiB of weights, which an ONNX model cannot hold.")
            self.initializers[key] = numpy_helper.from_array(np.asarray(value, order="C"), self._unique(name))
        return str(self.initializers[key].name)

    def number(self, value: float) -> str:
        """A constant of one element, which has no axes."""
        return self.constant(np.array(value, np.float32))

    def integers(self, values: Sequence[int]) -> str:
        return self.constant(np.array(values, np.int64))

    def tensor(self, node: Node, name: str, kind: str = "", form: Callable[[Array], Array] | None = None) -> str:
        """A parameter of a node, in another form of which ``kind`` is the name."""
        value, own = self.graph.parameter(node, name), node.weights[name]
        if (own, kind) in self.initializers:
            return str(self.initializers[own, kind].name)
        return self.constant(value if form is None else form(value), own, (own, kind))

    def value(self, node: Node, place: int = 0) -> str:
        """An input of a node."""
        return self.values[node.inputs[place]]

    def aligned(self, name: str, rank: int) -> str:
        """A value with axes of size 1 behind the batch, so that it is broadcast as it is without one."""
        shape = self.shapes[name]
        missing = (1,) * (rank - len(shape))
        return self.reshape(self.values[name], (*missing, *shape)) if missing else self.values[name]

    def batched(self, name: str) -> str:
        """A value that has the batch, also where it does not depend on the inputs."""
        value = self.values[name]
        if name not in self.fixed:
            return value
        ones = self.integers([1] * len(self.shapes[name]))
        size = self.emit("Shape", [self.graph.input], start=0, end=1)
        return self.emit("Expand", [value, self.emit("Concat", [size, ones], axis=0)])

    def reshape(self, value: str, shape: Shape) -> str:
        """Of each sample."""
        return self.emit("Reshape", [value, self.integers([0, *shape])])

    def transpose(self, value: str, axes: Sequence[int]) -> str:
        """Of each sample."""
        return self.emit("Transpose", [value], perm=[0, *(axis + 1 for axis in axes)])

    def activated(self, node: Node, value: str) -> str:
        """With what follows a node: its activation."""
        kind = node.activation
        if kind == "linear":
            return value
        if kind == "relu6":
            return self.emit("Clip", [value, self.number(0.0), self.number(6.0)])
        if kind in ("gelu", "gelu_tanh"):
            return self._gelu(value, kind == "gelu_tanh")
        if kind == "silu":
            return self.emit("Mul", [value, self.emit("Sigmoid", [value])])
        if kind == "hard_sigmoid":
            return self.emit("HardSigmoid", [value], alpha=1 / 6, beta=0.5)
        return self.emit("HardSwish" if kind == "hard_swish" else kind.capitalize(), [value])

    def _gelu(self, value: str, approximate: bool) -> str:
        """As PyTorch's exporter writes it, which both libraries put together again."""
        if approximate:
            cube = self.emit("Mul", [self.emit("Pow", [value, self.number(3)]), self.number(0.044715)])
            inner = self.emit("Mul", [self.emit("Add", [value, cube]), self.number(math.sqrt(2 / math.pi))])
            share, half = self.emit("Tanh", [inner]), self.emit("Mul", [value, self.number(0.5)])
            return self.emit("Mul", [half, self.emit("Add", [share, self.number(1)])])
        share = self.emit("Erf", [self.emit("Div", [value, self.number(math.sqrt(2))])])
        product = self.emit("Mul", [value, self.emit("Add", [share, self.number(1)])])
        return self.emit("Mul", [product, self.number(0.5)])


# ---- products


def _finished(to: _Writer, node: Node, value: str) -> str:
    """A product with its residual and its activation."""
    if node.residual is not None:
        value = to.emit("Add", [value, to.value(node, 1)])
    return to.activated(node, value)


def _bias(to: _Writer, node: Node) -> list[str]:
    return [to.tensor(node, "bias")] if "bias" in node.weights else []


def _linear(to: _Writer, node: Node) -> str:
    bias = _bias(to, node)
    if len(to.shapes[node.output]) == 1:
        return _finished(to, node, to.emit("Gemm", [to.value(node), to.tensor(node, "weight"), *bias], transB=1))
    made = to.emit("MatMul", [to.value(node), to.tensor(node, "weight", "turned", np.transpose)])
    return _finished(to, node, to.emit("Add", [made, *bias]) if bias else made)


def _conv2d(to: _Writer, node: Node) -> str:
    stride, padding, dilation, groups = conv_geometry(node)
    made = _transposed(to, node)
    if made is None:
        inputs = [to.value(node), to.tensor(node, "weight"), *_bias(to, node)]
        kernel = to.graph.parameter(node, "weight").shape[2:]
        made = to.emit(
            "Conv", inputs, kernel_shape=kernel, strides=stride, pads=[*padding, *padding], dilations=dilation, group=groups
        )  # fmt: skip
    return _finished(to, node, made)


def _transposed(to: _Writer, node: Node) -> str | None:
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


def _matmul(to: _Writer, node: Node) -> str:
    rank = len(to.shapes[node.output])
    return to.emit("MatMul", [to.aligned(name, rank) for name in node.inputs])


# ---- elementwise


def _activation(to: _Writer, node: Node) -> str:
    return to.activated(node, to.value(node))


def _affine(to: _Writer, node: Node) -> str:
    """A batch norm where it is one, since that becomes a convolution; else with a number, or one for each feature."""
    value, image = to.value(node), len(to.shapes[node.output]) == 3
    scale, shift = (to.graph.parameter(node, name) for name in ("scale", "shift"))
    if image and any((array != array[0]).any() for array in (scale, shift)):
        ones, zeros = (to.constant(one(len(scale), np.float32)) for one in (np.ones, np.zeros))
        parameters = [to.tensor(node, "scale"), to.tensor(node, "shift"), zeros, ones]
        return to.activated(node, to.emit("BatchNormalization", [value, *parameters], epsilon=0.0))
    for op, name, array, idle in (("Mul", "scale", scale, 1), ("Add", "shift", shift, 0)):
        if (array != idle).any():
            same = (array == array[0]).all()
            value = to.emit(op, [value, to.number(array[0]) if same else to.tensor(node, name)])
    return to.activated(node, value)


def _elementwise(op: str) -> Callable[[_Writer, Node], str]:
    def write(to: _Writer, node: Node) -> str:
        rank = len(to.shapes[node.output])
        return to.activated(node, to.emit(op, [to.aligned(name, rank) for name in node.inputs]))

    return write


def _compared(op: str) -> Callable[[_Writer, Node], str]:
    def write(to: _Writer, node: Node) -> str:
        rank = len(to.shapes[node.output])
        made = to.emit(op, [to.aligned(name, rank) for name in node.inputs])
        if node.activation == "linear":
            to.booleans[node.output] = made
        return to.activated(node, to.emit("Cast", [made], to=_FLOAT))

    return write


def _where(to: _Writer, node: Node) -> str:
    rank = len(to.shapes[node.output])
    condition, *branches = node.inputs
    made = to.booleans.get(condition) if len(to.shapes[condition]) == rank else None
    made = made or to.emit("Cast", [to.aligned(condition, rank)], to=_BOOL)
    return to.activated(node, to.emit("Where", [made, *(to.aligned(name, rank) for name in branches)]))


def _add_constant(to: _Writer, node: Node) -> str:
    return to.activated(node, to.emit("Add", [to.value(node), to.tensor(node, "value")]))


def _cast(to: _Writer, node: Node) -> str:
    return to.emit("Cast", [to.value(node)], to=_FLOAT)


# ---- shapes


def _axis(to: _Writer, node: Node) -> int:
    """The axis of a node, with the batch."""
    last = len(to.shapes[node.output]) - 1
    return 1 + (node.number("axis") if "axis" in node.attributes else last)


def _constant(to: _Writer, node: Node) -> str:
    return to.tensor(node, "value", "sample", lambda value: value[None])


def _reshape(to: _Writer, node: Node) -> str:
    return to.reshape(to.value(node), to.shapes[node.output])


def _permute(to: _Writer, node: Node) -> str:
    return to.transpose(to.value(node), node.attributes["axes"])


def _concat(to: _Writer, node: Node) -> str:
    fixed = node.output in to.fixed
    parts = [to.values[name] if fixed else to.batched(name) for name in node.inputs]
    return to.emit("Concat", parts, axis=_axis(to, node))


def _expand(to: _Writer, node: Node) -> str:
    shape = to.shapes[node.output]
    return to.emit("Expand", [to.aligned(node.inputs[0], len(shape)), to.integers([1, *shape])])


def _upsample(to: _Writer, node: Node) -> str:
    scales = to.constant(np.array([1, 1, *node.numbers("factors", 2, 1)], np.float32))
    return to.emit(
        "Resize", [to.value(node), "", scales], mode="nearest", coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )  # fmt: skip


def _pad(to: _Writer, node: Node) -> str:
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


def _slice(to: _Writer, node: Node) -> str:
    numbers = (node.number("begin"), node.number("end"), _axis(to, node), node.attributes.get("step", 1))
    return to.emit("Slice", [to.value(node), *(to.integers([number]) for number in numbers)])


# ---- pools, norms, reductions


def _pool(op: str) -> Callable[[_Writer, Node], str]:
    def write(to: _Writer, node: Node) -> str:
        kernel, stride, padding = pool_geometry(node)
        if kernel == to.shapes[node.inputs[0]][1:] and not any(padding):
            return to.emit(f"Global{op}", [to.value(node)])
        counted = {} if op == "MaxPool" else {"count_include_pad": int(node.attributes.get("count_padding", True))}
        return to.emit(op, [to.value(node)], kernel_shape=kernel, strides=stride, pads=[*padding, *padding], **counted)

    return write


def _reduce(to: _Writer, node: Node) -> str:
    axes = to.integers([axis + 1 for axis in node.attributes["axes"]])
    return to.emit(f"Reduce{node.attributes['function'].capitalize()}", [to.value(node), axes], keepdims=1)


def _layer_norm(to: _Writer, node: Node) -> str:
    inputs = [to.value(node), to.tensor(node, "scale"), to.tensor(node, "shift")]
    return to.emit("LayerNormalization", inputs, axis=-1, epsilon=node.real("epsilon"))


def _rms_norm(to: _Writer, node: Node) -> str:
    value = to.value(node)
    square = to.emit("ReduceMean", [to.emit("Pow", [value, to.number(2.0)]), to.integers([-1])], keepdims=1)
    length = to.emit("Sqrt", [to.emit("Add", [square, to.number(node.real("epsilon"))])])
    return to.emit("Mul", [to.emit("Div", [value, length]), to.tensor(node, "scale")])


def _group_norm(to: _Writer, node: Node) -> str:
    shape, groups = to.shapes[node.output], node.number("groups", 1)
    parts = to.reshape(to.value(node), (groups, math.prod(shape) // groups))
    ones, zeros = (to.constant(one(groups, np.float32)) for one in (np.ones, np.zeros))
    made = to.emit("InstanceNormalization", [parts, ones, zeros], epsilon=node.real("epsilon"))
    made = to.reshape(made, shape)
    wide = (-1, *[1] * (len(shape) - 1))
    for op, name in (("Mul", "scale"), ("Add", "shift")):
        made = to.emit(op, [made, to.tensor(node, name, f"{len(shape)} axes", lambda one: one.reshape(wide))])
    return made


def _softmax(to: _Writer, node: Node) -> str:
    return to.emit("Softmax", [to.value(node)], axis=_axis(to, node))


# ---- sequences


def _embedding(to: _Writer, node: Node) -> str:
    return to.emit("Gather", [to.tensor(node, "table"), to.value(node)], axis=0)


def _rotary(to: _Writer, node: Node) -> str:
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
    made = to.emit("Add", [to.emit("Mul", [value, cos]), to.emit("Mul", [swapped, sin])])
    return to.reshape(made, (tokens, features))


def _attention(to: _Writer, node: Node) -> str:
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


_WRITTEN: dict[str, Callable[[_Writer, Node], str]] = {
    "linear": _linear,
    "conv2d": _conv2d,
    "max_pool": _pool("MaxPool"),
    "avg_pool": _pool("AveragePool"),
    "affine": _affine,
    "activation": _activation,
    **{op: _elementwise(op.capitalize()) for op in ("add", "sub", "mul", "div")},
    "maximum": _elementwise("Max"),
    "minimum": _elementwise("Min"),
    "power": _elementwise("Pow"),
    "equal": _compared("Equal"),
    "less": _compared("Less"),
    "less_equal": _compared("LessOrEqual"),
    "where": _where,
    "add_constant": _add_constant,
    "constant": _constant,
    "cast": _cast,
    "reshape": _reshape,
    "flatten": _reshape,
    "permute": _permute,
    "concat": _concat,
    "expand": _expand,
    "upsample": _upsample,
    "pad": _pad,
    "slice": _slice,
    "reduce": _reduce,
    "matmul": _matmul,
    "rotary": _rotary,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
    "softmax": _softmax,
    "embedding": _embedding,
    "attention": _attention,
}
