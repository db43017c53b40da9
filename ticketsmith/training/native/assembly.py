"""The operations of a step, and of an evaluation, of a graph."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ticketsmith.native import abi
from ticketsmith.training.native import packing
from ticketsmith.training.native.graph import Add, Conv, Dropout, Graph, Linear, Node, Relu, Shape
from ticketsmith.training.native.packing import Layout, Pair
from ticketsmith.training.native.parameters import DenseWeight, Parameters, SparseWeight
from ticketsmith.training.native.pattern import Ints

INPUT = "input"
_TILE = 4  # columns that a dense tile reads at least
_ROW = 16  # and a sparse one at most


@dataclass(frozen=True, eq=False)
class Value:
    """What a node gives for a batch, and the gradient of the loss with respect to it."""

    layout: Layout
    numbers: NDArray[np.float32]
    gradient: NDArray[np.float32] | None

    @property
    def at(self) -> int:
        return int(self.numbers.ctypes.data) + 4 * self.layout.origin

    @property
    def gradient_at(self) -> int:
        assert self.gradient is not None
        return int(self.gradient.ctypes.data) + 4 * self.layout.origin


@dataclass(frozen=True, eq=False)
class _Layer:
    """A linear layer or convolution between two layouts: a linear layer is a convolution of one pixel."""

    node: Linear | Conv
    inside: Layout
    outside: Layout
    weight: SparseWeight | DenseWeight
    kernel: Pair
    stride: Pair
    padding: Pair
    groups: int

    @property
    def flat(self) -> bool:
        return isinstance(self.node, Linear)


class Assembly:
    """Buffers and operations of one network; made once."""

    def __init__(
        self, graph: Graph, parameters: Parameters, batch: int, affine: tuple[NDArray[np.float32], NDArray[np.float32]]
    ) -> None:
        self._graph, self._parameters = graph, parameters
        pad = -len(affine[0]) % packing.VECTOR
        self._scale, self._shift = (np.concatenate([part, np.zeros(pad, np.float32)]) for part in affine)
        self._image = any(np.prod(node.shape[1:]) > 1 for node in graph.nodes)
        self._lanes, self._blocks = packing.lanes(batch, self._image)
        self._nodes = {node.name: node for node in graph.nodes}
        self._readers: dict[str, list[Node]] = {INPUT: [], **{node.name: [] for node in graph.nodes}}
        for node in graph.nodes:
            for name in node.inputs:
                self._readers[name].append(node)
        self._fused = {name: relu for name, relu in map(self._relu_behind, graph.nodes) if relu}
        self._tables: dict[Any, Any] = {}
        self._alive: list[Any] = []
        self._values = self._buffers(self._blocks, gradients=True)
        self._scratch = packing.zeros(16)
        self._rows: dict[str, NDArray[np.float32]] = {}
        self._step: Any = None
        self._evaluations: dict[bool, Any] = {}
        self._evaluation_values: tuple[int, dict[str, Value]] | None = None

    # What the engine asks for

    def step(self) -> Any:
        if self._step is None:
            self._step = self._addresses(self._training())
        return self._step

    def evaluation(self, averaged: bool, examples: int) -> tuple[Any, int]:
        """The operations of an evaluation, and how many examples it takes at most."""
        if self._evaluation_values is None:
            blocks = max(self._blocks, -(-examples // self._lanes))
            same = blocks == self._blocks
            self._evaluation_values = blocks, self._values if same else self._buffers(blocks, gradients=False)
        blocks, values = self._evaluation_values
        part = "average" if averaged and "average" in self._parameters.settings.parts else "values"
        if averaged not in self._evaluations:
            self._evaluations[averaged] = self._addresses(self._forward(values, part, training=False))
        return self._evaluations[averaged], blocks * self._lanes

    # Buffers

    def _relu_behind(self, node: Node) -> tuple[str, str | None]:
        """The ReLU that a layer can apply itself, where nobody else reads the layer."""
        readers = self._readers[node.name]
        alone = isinstance(node, Linear | Conv) and len(readers) == 1 and isinstance(readers[0], Relu)
        return node.name, readers[0].name if alone else None

    def _shape(self, name: str) -> Shape:
        shape = self._graph.input_shape if name == INPUT else self._nodes[name].shape
        return shape if self._image else (int(np.prod(shape)), 1, 1)

    def _borders(self) -> dict[str, Pair]:
        borders: dict[str, list[int]] = {name: [0, 0] for name in self._readers}
        for node in self._graph.nodes:
            if isinstance(node, Conv):
                source = self._shape(node.inputs[0])
                kernel = self._kernel(node)
                image, outputs = (source[1], source[2]), (node.shape[1], node.shape[2])
                reach = packing.reach(kernel, node.stride, node.padding, image, outputs)
                for name, needs in ((node.inputs[0], node.padding), (self._fused.get(node.name, node.name), reach)):
                    borders[name] = [max(pair) for pair in zip(borders[name], needs, strict=True)]
        return {name: (rows, columns) for name, (rows, columns) in borders.items()}

    def _kernel(self, node: Conv) -> Pair:
        _, _, height, width = self._parameters.weights[node.weight].shape
        return height, width

    def _buffers(self, blocks: int, gradients: bool) -> dict[str, Value]:
        values: dict[str, Value] = {}
        borders = self._borders()
        for name in self._readers:
            if name in self._fused:
                continue
            layout = Layout(self._shape(name), self._lanes, blocks, borders[name])
            gradient = packing.zeros(layout.size) if gradients and name != INPUT else None
            values[name] = Value(layout, packing.zeros(layout.size), gradient)
        return values | {name: values[relu] for name, relu in self._fused.items()}

    # Operations

    def _addresses(self, operations: list[abi.Operation]) -> Any:
        self._alive.append(operations)
        return (ctypes.c_void_p * len(operations))(*map(ctypes.addressof, operations))

    def _op(self, kind: type[abi.Operation], work: int, **fields: Any) -> abi.Operation:
        """An operation; arrays are kept alive and their addresses taken."""
        for name, value in fields.items():
            if isinstance(value, np.ndarray):
                self._alive.append(value)
                fields[name] = value.ctypes.data
        assert set(fields) <= {name for base in kind.__mro__ for name, *_ in vars(base).get("_fields_", ())}
        return kind(op=abi.Op(abi.STEPS.index(kind), 0, int(work)), **fields)

    def _table(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self._tables:
            self._tables[key] = make()
        return self._tables[key]

    def _forward(self, values: dict[str, Value], part: str, training: bool) -> list[abi.Operation]:
        values = dict(values)
        operations = [self._gather(values[INPUT], training)]
        for node in self._graph.nodes:
            out = values[node.name]
            source = values[node.inputs[0]]
            if isinstance(node, Linear | Conv):
                operations += self._sums(self._layer(node, source, out), source, out, part)
            elif isinstance(node, Relu) and node.name not in self._fused.values():
                operations.append(self._elementwise(abi.Relu, source, out, source.at, out.at))
            elif isinstance(node, Dropout):
                if training:
                    operations.append(self._drop(node, source, out, source.at, out.at))
                else:
                    values[node.name] = source
            elif isinstance(node, Add):
                operations.append(self._add(source, values[node.inputs[1]], out))
        if not training:
            last = values[self._graph.nodes[-1].name]
            operations.append(
                self._op(abi.Outputs, 0, features=len(last.layout.features()), lanes=last.layout.lanes, block=last.layout.block,
                         offsets=last.layout.features(), in_=last.at)
            )  # fmt: skip
        return operations

    def _training(self) -> list[abi.Operation]:
        values = self._values
        operations = [*self._forward(values, "values", training=True), self._loss()]
        writes: set[str] = set()
        left = {name: len(readers) for name, readers in self._readers.items()}
        for node in reversed(self._graph.nodes):
            if node.name in self._fused.values():
                continue  # its layer's gate has been its gradient
            name = self._fused.get(node.name, node.name)
            out = values[name]
            if name != node.name and not writes & {name}:
                operations.append(self._gate(out))  # the loss reads it
            for source_name in node.inputs:
                left[source_name] -= 1
                if source_name == INPUT:
                    continue
                source, add = values[source_name], source_name in writes
                gated = source_name in self._fused.values() and left[source_name] == 0
                writes.add(source_name)
                if isinstance(node, Linear | Conv):
                    operations += self._input_gradient(self._layer(node, source, out), source, out, add, gated)
                    continue
                if isinstance(node, Relu):
                    operations.append(
                        self._elementwise(
                            abi.Gate, out, source, out.gradient_at, source.gradient_at, add, gate=source.at
                        )
                    )
                elif isinstance(node, Dropout):
                    operations.append(self._drop(node, out, source, out.gradient_at, source.gradient_at, add))
                if gated:
                    operations.append(self._gate(source))
            if isinstance(node, Linear | Conv):
                operations += self._weight_gradient(
                    self._layer(node, values[node.inputs[0]], out), values[node.inputs[0]], out
                )
        small = self._parameters.small
        if self._parameters.vectors:
            operations.append(
                self._op(
                    abi.Update,
                    0,
                    parameter=small.parameter(),
                    gradient=self._parameters.gradient,
                    count=small.arrays["values"].size,
                )
            )
        return operations

    def _gather(self, value: Value, training: bool) -> abi.Operation:
        layout, row, rows = value.layout, 0, None
        for node in self._readers[INPUT] if training else ():
            weight = self._parameters.weights[node.weight] if isinstance(node, Linear) else None
            if isinstance(weight, DenseWeight):
                row, rows = weight.distance, self._row_buffer(INPUT, weight.distance)
        return self._op(
            abi.Gather, layout.size, offsets=layout.features(), scale=self._scale, shift=self._shift, rows=rows,
            out=value.at, features=len(layout.features()), row=row, keep=rows is not None, lanes=layout.lanes,
            blocks=layout.blocks, block=layout.block,
        )  # fmt: skip

    def _row_buffer(self, name: str, row: int) -> NDArray[np.float32]:
        if name not in self._rows:
            self._rows[name] = packing.zeros(self._lanes * self._blocks * row)
        return self._rows[name]

    def _layer(self, node: Linear | Conv, source: Value, out: Value) -> _Layer:
        weight = self._parameters.weights[node.weight]
        if isinstance(node, Linear):
            return _Layer(node, packing.features_of(source.layout), out.layout, weight, (1, 1), (1, 1), (0, 0), 1)
        return _Layer(
            node, source.layout, out.layout, weight, self._kernel(node), node.stride, node.padding, node.groups
        )

    # Forward

    def _bias(self, name: str | None, part: str) -> int | None:
        if name is None:
            return None
        return self._parameters.vectors[name].address(part)

    def _taps(self, layer: _Layer, source: Layout, group: int) -> Ints:
        """Where the taps of a group's outputs lead."""
        if layer.flat:
            return source.features()
        channels = source.shape[0] // layer.groups
        return packing.taps_of(source, np.arange(group * channels, (group + 1) * channels), layer.kernel, layer.padding)

    def _sums(self, layer: _Layer, source: Value, out: Value, part: str) -> list[abi.Operation]:
        node, weight = layer.node, layer.weight
        vectors = packing.vectors(layer.inside, layer.outside, layer.stride)
        outputs = out.layout.shape[0]
        each = outputs // layer.groups
        area = layer.kernel[0] * layer.kernel[1]
        shared = {
            "vectors": vectors,
            "in_": source.at,
            "relu": node.name in self._fused,
            "add": 0,
            "out": out.at,
            "gate": None,
        }
        outs, bias = out.layout.channels(), self._bias(node.bias, part)
        pixels = vectors.blocks * vectors.rows * vectors.cols
        channels = self._channels_a_part(
            layer.kernel, layer.stride, sparse=isinstance(weight, SparseWeight), lanes=vectors
        )
        if isinstance(weight, SparseWeight):
            starts, taps = self._table(
                (node.name, "forward"), lambda: self._forward_table(layer, source.layout, weight, channels)
            )
            return [
                self._op(abi.SparseTaps, len(taps) * pixels * 16, weights=weight.address(part), outs=outs, bias=bias,
                         outputs=outputs, starts=starts, taps=taps, parts=len(starts) // outputs, **shared)
            ]  # fmt: skip
        operations = []
        for group in range(layer.groups):
            taps = self._taps(layer, source.layout, group)
            first = group * each
            operations.append(
                self._op(abi.DenseTaps, each * len(taps) * pixels * 16, weights=weight.address(part, first * weight.distance),
                         outs=outs[first : first + each], bias=bias and bias + 4 * first, outputs=each, offsets=taps,
                         places=np.arange(len(taps), dtype=np.int32), taps=len(taps), part=channels * area,
                         distance=weight.distance, **shared)
            )  # fmt: skip
        return operations

    def _channels_a_part(self, kernel: Pair, stride: Pair, sparse: bool, lanes: abi.Vectors) -> int:
        """Of how many channels the inputs of one tile fit the first cache."""
        columns = min(_ROW if sparse else _TILE, lanes.cols)
        floats = kernel[0] * (columns * stride[1] + kernel[1] - 1) * packing.VECTOR
        if sparse and kernel == (1, 1):
            return 1 << 30
        return max(1, packing.CACHE // floats)

    def _forward_table(self, layer: _Layer, source: Layout, weight: SparseWeight, channels: int) -> tuple[Ints, Ints]:
        rows, columns = np.divmod(weight.survivors.places, weight.survivors.shape[1])
        each = len(weight.shape) and weight.shape[0] // layer.groups
        area = layer.kernel[0] * layer.kernel[1]
        groups = [self._taps(layer, source, group) for group in range(layer.groups)]
        offsets = np.stack(groups)[rows // each, columns]
        return packing.table(rows, columns // area // channels, offsets, weight.survivors.slots, weight.shape[0])

    # Backward

    def _loss(self) -> abi.Operation:
        last = self._values[self._graph.nodes[-1].name]
        layout, features = last.layout, last.layout.features()
        kind, count = (
            (abi.CrossEntropy, "classes") if self._graph.loss == "cross_entropy" else (abi.SquaredError, "features")
        )
        return self._op(kind, 0, gradient=last.gradient_at, offsets=features, lanes=layout.lanes, blocks=layout.blocks,
                        block=layout.block, in_=last.at, **{count: len(features)})  # fmt: skip

    def _elementwise(
        self,
        kind: type[abi.Operation],
        inside: Value,
        outside: Value,
        read: int,
        write: int,
        add: bool = False,
        **more: Any,
    ) -> abi.Operation:
        return self._op(
            kind, inside.layout.size // 16, vectors=packing.vectors(inside.layout, outside.layout),
            ins=inside.layout.channels(),
            outs=outside.layout.channels(), out=write, outputs=outside.layout.shape[0], add=add, in_=read, **more,
        )  # fmt: skip

    def _gate(self, value: Value) -> abi.Operation:
        """In place: the gradient of what was before a ReLU, from that of what is behind it."""
        return self._elementwise(abi.Gate, value, value, value.gradient_at, value.gradient_at, gate=value.at)

    def _drop(
        self, node: Dropout, inside: Value, outside: Value, read: int, write: int, add: bool = False
    ) -> abi.Operation:
        stream = self._graph.nodes.index(node)
        return self._elementwise(
            abi.Drop, inside, outside, read, write, add, rate=node.rate, stream=stream, lanes=inside.layout.lanes
        )

    def _add(self, left: Value, right: Value, out: Value) -> abi.Operation:
        return self._elementwise(abi.Add, left, out, left.at, out.at, other=right.at)

    def _input_gradient(self, layer: _Layer, source: Value, out: Value, add: bool, gated: bool) -> list[abi.Operation]:
        operations = []
        if layer.flat:
            operations += self._phase(layer, source, out, add, gated, None)
        else:
            image = (source.layout.shape[1], source.layout.shape[2])
            for phase in packing.phases(layer.kernel, layer.stride, layer.padding, image):
                operations += self._phase(layer, source, out, add, gated, phase)
        return operations

    def _phase(
        self, layer: _Layer, source: Value, out: Value, add: bool, gated: bool, phase: packing.Phase | None
    ) -> list[abi.Operation]:
        weight, area = layer.weight, layer.kernel[0] * layer.kernel[1]
        first = 0
        if phase is None:
            places, shifts = np.zeros(1, np.int32), np.zeros(1, np.int64)
            inputs = source.layout.features()
            vectors = packing.vectors(layer.outside, layer.inside)
        else:
            places = phase.places
            shifts = phase.offsets @ np.array([out.layout.row, out.layout.lanes])
            inputs = source.layout.channels()
            first = phase.start[0] * source.layout.row + phase.start[1] * source.layout.lanes
            vectors = packing.vectors(
                layer.outside, layer.inside, counts=(source.layout.blocks, *phase.counts), out_stride=layer.stride
            )
        shared = {
            "vectors": vectors, "in_": out.gradient_at, "relu": 0, "add": add, "bias": None,
            "out": source.gradient_at + 4 * first, "gate": source.at + 4 * first if gated else None,
        }  # fmt: skip
        outputs, channels = out.layout.channels(), len(inputs)
        pixels = vectors.blocks * vectors.rows * vectors.cols
        span = (
            (int(np.ptp(phase.offsets[:, 0])) + 1, int(np.ptp(phase.offsets[:, 1])) + 1)
            if phase and places.size
            else (1, 1)
        )
        a_part = self._channels_a_part(span, (1, 1), isinstance(weight, SparseWeight), vectors)
        if isinstance(weight, SparseWeight) or not places.size:
            starts, taps = self._backward_table(layer, weight, outputs, places, shifts, channels, a_part)
            weights = weight.address()
            return [
                self._op(abi.SparseTaps, len(taps) * pixels * 16, weights=weights, outs=inputs, outputs=channels, starts=starts,
                         taps=taps, parts=len(starts) // channels, **shared)
            ]  # fmt: skip
        operations = []
        for group in range(layer.groups):
            each_out, each_in = len(outputs) // layer.groups, channels // layer.groups
            own = np.arange(group * each_out, (group + 1) * each_out)
            offsets = np.add.outer(outputs[own], shifts).reshape(-1).astype(np.int32)
            at = np.add.outer(own * weight.distance, places).reshape(-1).astype(np.int32)
            operations.append(
                self._op(abi.DenseTaps, each_in * len(at) * pixels * 16, weights=weight.address(),
                         outs=inputs[group * each_in :][:each_in],
                         outputs=each_in, offsets=offsets, places=at, taps=len(at), part=a_part * len(places),
                         distance=area, **shared)
            )  # fmt: skip
        return operations

    def _backward_table(
        self,
        layer: _Layer,
        weight: SparseWeight | DenseWeight,
        outputs: Ints,
        places: Ints,
        shifts: NDArray[Any],
        channels: int,
        a_part: int,
    ) -> tuple[Ints, Ints]:
        nothing = np.zeros(0, np.int64)
        if not isinstance(weight, SparseWeight):
            return packing.table(nothing, nothing, nothing, nothing, channels)
        area = layer.kernel[0] * layer.kernel[1]
        rows, columns = np.divmod(weight.survivors.places, weight.survivors.shape[1])
        inputs, spots = np.divmod(columns, area)
        inputs = inputs + rows // (len(outputs) // layer.groups) * (channels // layer.groups)
        shift = np.full(area, np.iinfo(np.int64).min)
        shift[places] = shifts
        mine = np.isin(spots, places)
        rows, inputs, spots = rows[mine], inputs[mine], spots[mine]
        return packing.table(
            inputs, rows // a_part, outputs[rows] + shift[spots], weight.survivors.slots[mine], channels
        )

    def _weight_gradient(self, layer: _Layer, source: Value, out: Value) -> list[abi.Operation]:
        node, weight = layer.node, layer.weight
        operations = []
        outputs = out.layout.shape[0]
        if node.bias:
            vector = self._parameters.vectors[node.bias]
            operations.append(
                self._op(abi.PlaneSums, out.layout.size // 16, vectors=packing.vectors(out.layout, out.layout),
                         outs=out.layout.channels(),
                         sums=self._parameters.gradient[vector.first :], outputs=outputs, in_=out.gradient_at)
            )  # fmt: skip
        vectors = packing.vectors(layer.inside, layer.outside, layer.stride)
        pixels = vectors.blocks * vectors.rows * vectors.cols
        shared = {"vectors": vectors, "in_": source.at, "out": out.gradient_at}
        if isinstance(weight, SparseWeight):
            survivors, each = weight.survivors, outputs // layer.groups
            taps = np.stack([self._taps(layer, source.layout, group) for group in range(layer.groups)])
            rows = out.layout.channels()[survivors.rows]
            offsets = taps[np.repeat(survivors.rows, 4) // each, survivors.columns]
            operations.append(
                self._op(abi.SparseGradient, survivors.size * pixels * 16, parameter=weight.parameter(),
                         outputs=outputs, offsets=offsets,
                         rows=rows, groups=survivors.size // 16, **shared)
            )  # fmt: skip
        elif layer.flat:
            name, features = node.inputs[0], len(source.layout.features())
            rows_at = self._row_buffer(name, weight.distance)
            if name != INPUT:
                operations.append(
                    self._op(abi.Rows, source.layout.size // 16, offsets=source.layout.features(), rows=rows_at,
                             features=features,
                             row=weight.distance, lanes=source.layout.lanes, blocks=source.layout.blocks,
                             block=source.layout.block,
                             in_=source.at)
                )  # fmt: skip
            flat = Layout((outputs, 1, 1), out.layout.lanes, out.layout.blocks)
            shared["vectors"] = abi.Vectors(out_block=flat.block)
            shared["in_"] = rows_at
            operations.append(
                self._op(abi.LinearGradient, outputs * features * pixels * 16, parameter=weight.parameter(), outputs=outputs,
                         outs=out.layout.channels(), mask=weight.mask, features=features, distance=weight.distance,
                         lanes=out.layout.lanes, **shared)
            )  # fmt: skip
        else:
            size = outputs * weight.distance
            if self._scratch.size < size:
                self._scratch = packing.zeros(size)
            for group in range(layer.groups):
                each, taps = outputs // layer.groups, self._taps(layer, source.layout, group)
                first = group * each * weight.distance
                operations.append(
                    self._op(abi.ConvGradient, each * len(taps) * pixels * 16,
                             parameter=abi.Parameter(**{part: weight.address(part, first) for part in weight.arrays}),
                             outputs=each, outs=out.layout.channels()[group * each :][:each], offsets=taps,
                             mask=None if weight.mask is None else weight.mask[first // 16 :], scratch=self._scratch,
                             taps=len(taps),
                             distance=weight.distance, **shared)
                )  # fmt: skip
        return operations
