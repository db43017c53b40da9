"""An ONNX model in the making: nodes and initializers, with the batch as the first axis of every value."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from ticketsmith.runtime.builder.core import Array, UnsupportedError
from ticketsmith.runtime.graph import Graph, Node, Port, Shape

_OPSET, _IR = 18, 8
"""Both libraries know later ones, but ONNX Runtime computes the means of windows of opset 19 by a slower kernel."""

_MOST_BYTES = 2**31 - 2**20
"""Of weights: protobuf holds 2 GiB, with the rest of the model."""

FLOAT, BOOL, INT64 = 1, 9, 7  # onnx.TensorProto.DataType


class Writer:
    """Writes nodes one after another. A value has the shape ``[batch, *its shape in the graph]``, or ``[1, ...]`` where it
    does not depend on the inputs."""

    def __init__(self, graph: Graph, batch: int | None, writers: Mapping[str, Callable[[Writer, Node], str]]) -> None:
        self.graph, self.batch, self.writers, self.shapes = graph, batch, writers, graph.shapes()
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
        self._names = {*(port.name for port in graph.inputs), *self.makers}
        self._output = ""

    def model(self) -> bytes:
        from onnx import helper

        for port in self.graph.inputs:
            self._output = port.name
            self.values[port.name] = port.name if port.shape else self.reshape(port.name, (1,))
        for node in self.graph.nodes:
            self._node(node)
        pairs = zip(self.graph.outputs, self.graph.output_shapes(), strict=True)
        outputs = [Port(self._result(name, shape), shape) for name, shape in pairs]
        nodes, initializers = self._needed([port.name for port in outputs])
        inputs, results = ([self._port(port) for port in side] for side in (self.graph.inputs, outputs))
        empty = helper.make_graph(nodes, "ticketsmith", inputs, results)
        model = helper.make_model(empty, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)
        model.graph.initializer.extend(initializers)  # at last, so that weights are not copied with the graph
        return bytes(model.SerializeToString())

    def _node(self, node: Node) -> None:
        write = self.writers.get(node.op)
        if write is None:
            raise UnsupportedError(f"{node}: it cannot be written as ONNX.")
        self._output = node.output
        if all(name in self.fixed for name in node.inputs):
            self.fixed.add(node.output)
        before = len(self.nodes)
        output = write(self, node)
        if len(self.nodes) > before and self.nodes[-1].output[0] == output:  # the last of what it becomes has its name
            self.nodes[-1].output[0] = output = node.output
        self.values[node.output] = output

    def _result(self, name: str, shape: Shape) -> str:
        """An output of the model: a value with the batch, by a name that no input and no other output has."""
        self._output = name
        value = self.with_batch(name)
        if not shape:
            value = self.emit("Reshape", [value, self.integers([-1])])
        elif value in self.ends:
            value = self.emit("Identity", [value])
        self.ends.add(value)
        return value

    def _port(self, port: Port) -> Any:
        from onnx import helper

        batch, kind = self.batch or "batch", INT64 if port.dtype == "int64" else FLOAT
        return helper.make_tensor_value_info(port.name, kind, [batch, *port.shape])

    def _needed(self, outputs: Sequence[str]) -> tuple[list[Any], list[Any]]:
        """Without what others have taken the place of: nodes and initializers."""
        needed, nodes = set(outputs), []
        for node in reversed(self.nodes):
            if needed.intersection(node.output):
                needed.update(node.input)
                nodes.append(node)
        return nodes[::-1], [one for one in self.initializers.values() if one.name in needed]

    def _unique(self, name: str) -> str:
        fresh, count = name, 0
        while fresh in self._names:
            count += 1
            fresh = f"{name}.{count}"
        self._names.add(fresh)
        return fresh

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
        return self.values[node.inputs[place]]

    def align(self, name: str, rank: int) -> str:
        """A value with axes of size 1 behind the batch, so that it is broadcast as it is without one."""
        shape = self.shapes[name]
        missing = (1,) * (rank - len(shape))
        return self.reshape(self.values[name], (*missing, *shape)) if missing else self.values[name]

    def operands(self, node: Node) -> list[str]:
        """The inputs of a node, aligned with its output."""
        return [self.align(name, len(self.shapes[node.output])) for name in node.inputs]

    def with_batch(self, name: str) -> str:
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

    def activate(self, node: Node, value: str) -> str:
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
