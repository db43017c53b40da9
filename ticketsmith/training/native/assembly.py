"""The operations of a step, and of an evaluation, of a graph; and the values that they work on."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ticketsmith.native.abi import Gather, Operation
from ticketsmith.training.native import operations as ops
from ticketsmith.training.native import packing
from ticketsmith.training.native.graph import Add, BatchNorm, Conv, Dropout, Graph, Linear, Node, Pool, Relu, Shape
from ticketsmith.training.native.operations import Layer, Operations, Sink, Value
from ticketsmith.training.native.packing import Layout, Pair
from ticketsmith.training.native.parameters import Parameters

INPUT = "input"
_BY_BLOCK = Conv | Pool | Relu
"""Nodes whose examples can be passed block by block."""
_MOST_AT_ONCE = 2**20
"""Floats of values up to which nodes take all examples at once."""


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
        self._norms = {
            node.name: norm for node in graph.nodes if isinstance(node, Add) and (norm := self._norm_before(node))
        }
        self._values = self._buffers(self._blocks, gradients=True)
        self._rows: dict[str, NDArray[np.float32]] = {}
        self._alive: list[Operations] = []
        self.parts: list[str] = []
        """Of a step, to which each of its operations belongs: data, forward, backward or weights."""
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

    def held(self) -> int:
        """Bytes of the tables of a step's operations."""
        self.step()
        tables = {id(array): array for one in self._alive[0] for array in one.arrays if array.dtype == np.int32}
        return sum(array.nbytes for array in tables.values())

    def _addresses(self, operations: Operations) -> Any:
        self._alive.append(operations)
        return (ctypes.c_void_p * len(operations))(*map(ctypes.addressof, operations))

    def _relu_behind(self, node: Node) -> str | None:
        readers = self._readers[node.name]
        alone = isinstance(node, Linear | Conv | BatchNorm | Add) and len(readers) == 1 and isinstance(readers[0], Relu)
        return readers[0].name if alone else None

    def _norm_before(self, node: Add) -> str | None:
        """A batch norm that only this sum reads. It adds the other value to its own, which then lies nowhere."""
        alone = (name for name in node.inputs if isinstance(self._nodes.get(name), BatchNorm))
        return next((name for name in alone if len(self._readers[name]) == 1), None)

    def _shared_gradients(self) -> dict[str, str]:
        """Values whose gradient is that of a sum, by its name: what the sum alone reads; and one that others read, too, and all
        of them before what the sum's other value is made by, since their gradients come on top when nobody needs the sum's."""
        order = {node.name: place for place, node in enumerate(self._graph.nodes)}
        shared: dict[str, str] = {}
        for node in reversed(self._graph.nodes):
            if not isinstance(node, Add) or node.inputs[0] == node.inputs[1]:
                continue
            for name in node.inputs:
                if name != INPUT and len(self._readers[name]) == 1 and name not in self._relus.values():
                    shared[name] = node.name
            for name, other in (node.inputs, node.inputs[::-1]):
                rest = [order[reader.name] for reader in self._readers[name] if reader is not node]
                copied, normal = other not in shared, isinstance(self._nodes.get(other), BatchNorm)
                limit = order[node.name] if copied else order[other]
                if name != INPUT and rest and max(rest) < limit and (copied or normal) and node.name not in shared:
                    shared[name] = node.name
                    break
        return shared

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
                    self._widen(borders, (name,), needs)
        alike = [(*node.inputs, node.name) for node in self._graph.nodes if isinstance(node, Add | Dropout)]
        before: dict[str, Pair] = {}
        while borders != before:  # what is added lies alike, and so does what that is added to
            before = dict(borders)
            for names in alike:
                for name in names:
                    self._widen(borders, names, borders[self._relus.get(name, name)])
        return borders

    def _widen(self, borders: dict[str, Pair], names: Iterable[str], needs: Pair) -> None:
        for name in names:
            name = self._relus.get(name, name)
            borders[name] = max(borders[name][0], needs[0]), max(borders[name][1], needs[1])

    def _buffers(self, blocks: int, gradients: bool) -> dict[str, Value]:
        borders, shared = self._borders(), self._shared_gradients()
        values: dict[str, Value] = {}
        norms = {norm: name for name, norm in self._norms.items()}
        for name in reversed(self._readers):
            if name in self._relus:
                values[name] = values[self._relus[name]]
            elif name in norms:
                values[name] = values[norms[name]]
            else:
                layout = Layout(self._shape(name), self._lanes, blocks, borders[name])
                slopes = None
                if gradients and name != INPUT:
                    slopes = values[shared[name]].slopes if name in shared else packing.zeros(layout.size)
                values[name] = Value(layout, packing.zeros(layout.size), slopes)
        return values

    def _forward(self, values: dict[str, Value], part: str, training: bool) -> Operations:
        values = dict(values)
        scale, shift = self._affine
        coarse = training and self._graph.bfloat16
        rows = self._rows_of(INPUT) if training and not coarse else None
        operations = [ops.gather(values[INPUT], scale, shift, rows)]
        if coarse:
            operations.append(ops.round_numbers(values[INPUT]))
        last = values[self._graph.nodes[-1].name]
        for nodes in self._runs(self._graph.nodes):
            for one in self._blocks_of(nodes, values):
                for node in nodes:
                    each = self._forward_of(node, one, part, training)
                    operations += each
                    if coarse and each and values[node.name] is not last:
                        operations.append(ops.round_numbers(one[node.name]))
        return operations if training else [*operations, ops.outputs(values[self._graph.nodes[-1].name])]

    def _runs(self, nodes: Iterable[Node]) -> list[list[Node]]:
        """Nodes in order, together those ``_BY_BLOCK``."""
        return [list(run) for _, run in groupby(nodes, key=lambda node: isinstance(node, _BY_BLOCK) or node.name)]

    def _blocks_of(self, nodes: list[Node], values: dict[str, Value]) -> Iterable[dict[str, Value]]:
        """Block by block, so that what one node writes is still in the cache when the next one reads it; and all at once, where
        all of them stay there."""
        names = {name for node in nodes for name in (node.name, *node.inputs)}
        each = {id(values[name]): values[name] for name in names}
        size = sum(value.layout.size for value in each.values())
        if not all(isinstance(node, _BY_BLOCK) for node in nodes) or size < _MOST_AT_ONCE:
            return [values]
        blocks = []
        for block in range(values[nodes[0].name].layout.blocks):
            parts = {key: value.of_block(block) for key, value in each.items()}
            blocks.append(values | {name: parts[id(values[name])] for name in names})
        return blocks

    def _forward_of(self, node: Node, values: dict[str, Value], part: str, training: bool) -> Operations:
        source, out = values[node.inputs[0]], values[node.name]
        with_relu = node.name in self._relus
        if isinstance(node, Linear | Conv):
            return Layer(node, source, out, self._parameters).forward(part, with_relu, training)
        if isinstance(node, BatchNorm):
            if node.name in self._norms.values():
                return []
            return [ops.batch_norm(node, source, out, self._parameters, part, training, with_relu)]
        if isinstance(node, Pool):
            return [ops.pool(node, source, out)]
        if isinstance(node, Add):
            return [self._sum(node, values, part, training, with_relu)]
        if isinstance(node, Dropout) and training:
            return [ops.drop(node, self._graph.nodes.index(node), source, out)]
        if isinstance(node, Dropout):
            values[node.name] = source
        elif source is not out:
            return [ops.relu(source, out)]
        return []

    def _sum(self, node: Add, values: dict[str, Value], part: str, training: bool, with_relu: bool) -> Operation:
        out, name = values[node.name], self._norms.get(node.name)
        if name is None:
            return ops.add(values[node.inputs[0]], values[node.inputs[1]], out, with_relu)
        norm, (other,) = self._nodes[name], [one for one in node.inputs if one != name]
        assert isinstance(norm, BatchNorm)
        source = values[norm.inputs[0]]
        return ops.batch_norm(norm, source, out, self._parameters, part, training, with_relu, values[other])

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
        parts: list[tuple[str, Operations]] = []
        if self._graph.bfloat16:
            parts.append(("weights", ops.round_weights(self._parameters)))
        parts.append(("forward", self._forward(values, "values", training=True)))
        parts.append(("backward", [ops.loss(self._graph.loss, values[last])]))
        if last in self._relus.values():
            parts.append(("backward", [ops.gate(values[last])]))
        sinks = self._sinks()
        for nodes in self._runs(reversed(self._graph.nodes)):
            nodes = [node for node in nodes if node.name in sinks]
            for one in self._blocks_of(nodes, values):
                parts += [("backward", self._backward(node, one, sinks[node.name])) for node in nodes]
            parts += [("weights", self._weight_gradient(node)) for node in nodes if isinstance(node, Linear | Conv)]
        parts.append(("weights", ops.update(self._parameters)))
        self.parts = ["data" if isinstance(one, Gather) else part for part, each in parts for one in each]
        return [one for _, each in parts for one in each]

    def _sinks(self) -> dict[str, dict[str, tuple[bool, bool]]]:
        """For each node, and each of its inputs: whether there is a gradient already, and whether it is gated afterwards. What
        a ReLU follows has the ReLU's value, whose gradient is gated when it is complete."""
        written: set[str] = set()
        left = {name: len(readers) for name, readers in self._readers.items()}
        sinks: dict[str, dict[str, tuple[bool, bool]]] = {}
        for node in reversed(self._graph.nodes):
            if node.name in self._relus.values():
                continue
            sinks[node.name] = {}
            for name in node.inputs:
                left[name] -= 1
                if name != INPUT:
                    sinks[node.name][name] = name in written, name in self._relus.values() and not left[name]
                    written.add(name)
        return sinks

    def _weight_gradient(self, node: Linear | Conv) -> Operations:
        source, out = self._values[node.inputs[0]], self._values[node.name]
        wanted = ops.by_examples(node, self._parameters) is not None
        rows = self._rows_of(node.inputs[0]) if wanted else None
        there = node.inputs[0] == INPUT and not self._graph.bfloat16  # from the start, but not rounded
        before = [] if rows is None or there else [ops.rows(source, rows)]
        return [*before, *Layer(node, source, out, self._parameters).weight_gradient(rows)]

    def _backward(self, node: Node, values: dict[str, Value], wanted: dict[str, tuple[bool, bool]]) -> Operations:
        """Of the inputs."""
        source, out = values[node.inputs[0]], values[node.name]
        sinks = {name: Sink(values[name], add, gated) for name, (add, gated) in wanted.items()}
        sink = sinks.get(node.inputs[0])
        if isinstance(node, Linear | Conv):
            before = [ops.round_gradient(out)] if self._graph.bfloat16 else []
            layer = Layer(node, source, out, self._parameters)
            return [*before, *(layer.input_gradient(sink) if sink else [])]
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
                if one.value.slopes is not out.slopes:
                    operations.append(ops.add_gradient(out, one))
            else:
                operations.append(ops.relu_gradient(out, one))
            if one.gated:
                operations.append(ops.gate(one.value))
        return operations
