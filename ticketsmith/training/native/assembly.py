"""The operations of a step, and of an evaluation, of a graph; and the values that they work on."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ticketsmith.training.native import operations as ops
from ticketsmith.training.native import packing
from ticketsmith.training.native.graph import Add, BatchNorm, Conv, Dropout, Graph, Linear, Node, Pool, Relu, Shape
from ticketsmith.training.native.operations import Layer, Operations, Sink, Value
from ticketsmith.training.native.packing import Layout, Pair
from ticketsmith.training.native.parameters import Parameters

INPUT = "input"


class Assembly:
    """Made once for a network and a batch size. A ReLU is part of what it follows, where nobody else reads that: both are then
    one value."""

    def __init__(
        self, graph: Graph, parameters: Parameters, batch: int, affine: tuple[NDArray[np.float32], NDArray[np.float32]]
    ) -> None:
        self._graph, self._parameters = graph, parameters
        self._affine = affine
        self._image = any(np.prod(node.shape[1:]) > 1 or isinstance(node, Conv) for node in graph.nodes)
        self._lanes, self._blocks = packing.lanes(batch, self._image)
        self._nodes = {node.name: node for node in graph.nodes}
        self._readers: dict[str, list[Node]] = {INPUT: [], **{node.name: [] for node in graph.nodes}}
        for node in graph.nodes:
            for name in node.inputs:
                self._readers[name].append(node)
        self._relus = {node.name: relu for node in graph.nodes if (relu := self._relu_behind(node))}
        self._values = self._buffers(self._blocks, gradients=True)
        self._rows: dict[str, NDArray[np.float32]] = {}
        self._alive: list[Operations] = []
        self._step: Any = None
        self._evaluations: dict[str, Any] = {}
        self._evaluation: tuple[int, dict[str, Value]] | None = None

    def step(self) -> Any:
        """The addresses of the operations of a step."""
        if self._step is None:
            self._step = self._addresses(self._training())
        return self._step

    def evaluation(self, averaged: bool, examples: int) -> tuple[Any, int]:
        """Those of an evaluation, and how many examples it takes at most."""
        if self._evaluation is None:
            blocks = max(self._blocks, -(-examples // self._lanes))
            same = blocks == self._blocks
            self._evaluation = blocks, self._values if same else self._buffers(blocks, gradients=False)
        blocks, values = self._evaluation
        part = "average" if averaged and "average" in self._parameters.settings.parts else "values"
        if part not in self._evaluations:
            self._evaluations[part] = self._addresses(self._forward(values, part, training=False))
        return self._evaluations[part], blocks * self._lanes

    def _addresses(self, operations: Operations) -> Any:
        self._alive.append(operations)
        return (ctypes.c_void_p * len(operations))(*map(ctypes.addressof, operations))

    def _relu_behind(self, node: Node) -> str | None:
        readers = self._readers[node.name]
        alone = isinstance(node, Linear | Conv | BatchNorm | Add) and len(readers) == 1 and isinstance(readers[0], Relu)
        return readers[0].name if alone else None

    def _shape(self, name: str) -> Shape:
        shape = self._graph.input_shape if name == INPUT else self._nodes[name].shape
        return shape if self._image else (int(np.prod(shape)), 1, 1)

    def _borders(self) -> dict[str, Pair]:
        """As wide as readers' padding, and as what the gradient of a convolution's input reads of its output's."""
        borders = dict.fromkeys(self._readers, (0, 0))
        for node in self._graph.nodes:
            if isinstance(node, Conv):
                image, outputs = self._shape(node.inputs[0])[1:], node.shape[1:]
                reach = packing.reach(ops.kernel_of(node, self._parameters), node.stride, node.padding, image, outputs)
                for name, needs in ((node.inputs[0], node.padding), (node.name, reach)):
                    name = self._relus.get(name, name)
                    borders[name] = max(borders[name][0], needs[0]), max(borders[name][1], needs[1])
        return borders

    def _buffers(self, blocks: int, gradients: bool) -> dict[str, Value]:
        borders = self._borders()
        values = {}
        for name in self._readers:
            if name not in self._relus:
                layout = Layout(self._shape(name), self._lanes, blocks, borders[name])
                slopes = packing.zeros(layout.size) if gradients and name != INPUT else None
                values[name] = Value(layout, packing.zeros(layout.size), slopes)
        return values | {name: values[relu] for name, relu in self._relus.items()}

    def _forward(self, values: dict[str, Value], part: str, training: bool) -> Operations:
        values = dict(values)
        scale, shift = self._affine
        operations = [ops.gather(values[INPUT], scale, shift, self._rows_of(INPUT) if training else None)]
        for node in self._graph.nodes:
            source, out = values[node.inputs[0]], values[node.name]
            with_relu = node.name in self._relus
            if isinstance(node, Linear | Conv):
                operations += Layer(node, source, out, self._parameters).forward(part, with_relu)
            elif isinstance(node, BatchNorm):
                operations.append(ops.batch_norm(node, source, out, self._parameters, part, training, with_relu))
            elif isinstance(node, Pool):
                operations.append(ops.pool(node, source, out))
            elif isinstance(node, Add):
                operations += ops.add(source, values[node.inputs[1]], out, with_relu)
            elif isinstance(node, Dropout) and training:
                operations.append(ops.drop(node, self._graph.nodes.index(node), source, out))
            elif isinstance(node, Dropout):
                values[node.name] = source
            elif source is not out:
                operations.append(ops.relu(source, out))
        return operations if training else [*operations, ops.outputs(values[self._graph.nodes[-1].name])]

    def _rows_of(self, name: str) -> NDArray[np.float32] | None:
        """Room for a value by examples, where a reader wants it."""
        distances = {ops.by_examples(node, self._parameters) for node in self._readers[name]} - {None}
        if distances and name not in self._rows:
            (row,) = distances
            self._rows[name] = packing.zeros(self._lanes * self._blocks * int(row or 0)).reshape(-1, int(row or 0))
        return self._rows.get(name)

    def _training(self) -> Operations:
        values = self._values
        last = self._graph.nodes[-1].name
        operations = [*self._forward(values, "values", training=True), ops.loss(self._graph.loss, values[last])]
        if last in self._relus.values():
            operations.append(ops.gate(values[last]))
        written: set[str] = set()
        left = {name: len(readers) for name, readers in self._readers.items()}
        for node in reversed(self._graph.nodes):
            if node.name in self._relus.values():
                continue  # what it follows has the same value, whose gradient is gated when it is complete
            sinks = {}
            for name in node.inputs:
                left[name] -= 1
                if name != INPUT:
                    sinks[name] = Sink(values[name], name in written, name in self._relus.values() and not left[name])
                    written.add(name)
            operations += self._backward(node, sinks)
        return [*operations, *ops.update(self._parameters)]

    def _backward(self, node: Node, sinks: dict[str, Sink]) -> Operations:
        source, out = self._values[node.inputs[0]], self._values[node.name]
        sink = sinks.get(node.inputs[0])
        if isinstance(node, Linear | Conv):
            layer = Layer(node, source, out, self._parameters)
            wanted = ops.by_examples(node, self._parameters) is not None
            rows = self._rows_of(node.inputs[0]) if wanted else None
            before = [ops.rows(source, rows)] if rows is not None and node.inputs[0] != INPUT else []
            return [*(layer.input_gradient(sink) if sink else []), *before, *layer.weight_gradient(rows)]
        if isinstance(node, BatchNorm):
            return ops.batch_norm_gradient(node, source, out, self._parameters, sink)
        if sink is None and not isinstance(node, Add):
            return []
        if isinstance(node, Pool) and sink:
            return ops.pool_gradient(node, source, out, sink)
        operations = []
        for one in sinks.values():
            if isinstance(node, Dropout):
                operations.append(ops.drop_gradient(node, self._graph.nodes.index(node), out, one))
            elif isinstance(node, Add):
                operations.append(ops.add_gradient(out, one))
            else:
                operations.append(ops.relu_gradient(out, one))
            if one.gated:
                operations.append(ops.gate(one.value))
        return operations
