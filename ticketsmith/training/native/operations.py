"""Operations of a step, made of values and parameters."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ticketsmith.native import abi
from ticketsmith.training.native import packing
from ticketsmith.training.native.graph import BatchNorm, Conv, Dropout, Linear, Pool
from ticketsmith.training.native.packing import Layout, Pair
from ticketsmith.training.native.parameters import DenseWeight, Parameters, SparseWeight
from ticketsmith.training.native.pattern import Ints

Operations = list[abi.Operation]

_DENSE_COLUMNS, _SPARSE_COLUMNS = 5, 8
"""Columns that a tile of the kernels has at most."""


@dataclass(frozen=True, eq=False)
class Value:
    """What a node gives for a batch, and the gradient of the loss with respect to it."""

    layout: Layout
    numbers: NDArray[np.float32]
    slopes: NDArray[np.float32] | None

    @property
    def at(self) -> int:
        return int(self.numbers.ctypes.data) + 4 * self.layout.origin

    def of_block(self, block: int) -> Value:
        """That of one block of examples."""
        size = self.layout.block
        parts = [None if one is None else one[block * size : (block + 1) * size] for one in (self.numbers, self.slopes)]
        assert parts[0] is not None
        return Value(replace(self.layout, blocks=1), parts[0], parts[1])

    @property
    def gradient(self) -> int:
        assert self.slopes is not None
        return int(self.slopes.ctypes.data) + 4 * self.layout.origin


@dataclass(frozen=True, eq=False)
class Sink:
    """Where the gradient of a node's input goes: ``add`` onto what is there; ``gated`` by its ReLU, when it is complete."""

    value: Value
    add: bool
    gated: bool


def make(kind: type[abi.Operation], work: int, **fields: Any) -> abi.Operation:
    """An operation, which keeps its arrays alive. ``work`` counts multiply-adds."""
    assert set(fields) <= {name for base in kind.__mro__ for name, *_ in vars(base).get("_fields_", ())}, fields
    arrays = [value for value in fields.values() if isinstance(value, np.ndarray)]
    addresses = {name: value.ctypes.data if isinstance(value, np.ndarray) else value for name, value in fields.items()}
    operation = kind(op=abi.Op(abi.STEPS.index(kind), 0, int(work)), **addresses)
    operation.arrays = arrays
    return operation


def gather(
    value: Value, scale: NDArray[np.float32], shift: NDArray[np.float32], rows: NDArray[np.float32] | None
) -> abi.Operation:
    """The examples of the step into lanes; ``rows``: and by examples."""
    layout = value.layout
    return make(
        abi.Gather, layout.size, offsets=layout.features(), scale=scale, shift=shift, rows=rows, out=value.at,
        features=layout.count, row=0 if rows is None else rows.shape[1], keep=rows is not None, lanes=layout.lanes,
        blocks=layout.blocks, block=layout.block,
    )  # fmt: skip


def outputs(value: Value) -> abi.Operation:
    """The last value, to the caller."""
    layout = value.layout
    return make(
        abi.Outputs, layout.size, in_=value.at, offsets=layout.features(), features=layout.count, lanes=layout.lanes,
        block=layout.block,
    )  # fmt: skip


def loss(kind: str, value: Value) -> abi.Operation:
    """And its gradient with respect to ``value``."""
    layout = value.layout
    operation, count = (abi.CrossEntropy, "classes") if kind == "cross_entropy" else (abi.SquaredError, "features")
    return make(
        operation, 0, in_=value.at, gradient=value.gradient, offsets=layout.features(), lanes=layout.lanes,
        blocks=layout.blocks, block=layout.block, **{count: layout.count},
    )  # fmt: skip


def update(parameters: Parameters) -> Operations:
    """Of the parameters whose gradients lie in memory."""
    if not parameters.vectors:
        return []
    small = parameters.small
    return [make(abi.Update, 0, parameter=small.parameter(), gradient=parameters.gradient, count=small.size)]


def _pass(
    kind: type[abi.Operation], inside: Value, outside: Value, read: int, write: int, **more: Any
) -> abi.Operation:
    """One pass over a value, from one layout to another."""
    return make(
        kind, inside.layout.size, vectors=packing.vectors(inside.layout, outside.layout), ins=inside.layout.channels(),
        outs=outside.layout.channels(), in_=read, out=write, outputs=outside.layout.shape[0], **more,
    )  # fmt: skip


def relu(source: Value, out: Value) -> abi.Operation:
    """Of a value that others read, too."""
    return _pass(abi.Relu, source, out, source.at, out.at)


def relu_gradient(out: Value, sink: Sink) -> abi.Operation:
    """Of the input of such a ReLU."""
    source = sink.value
    return _pass(abi.Gate, out, source, out.gradient, source.gradient, add=sink.add, gate=source.at)


def round_numbers(value: Value) -> abi.Operation:
    """In place, to bfloat16."""
    return _pass(abi.Bfloat16, value, value, value.at, value.at)


def round_gradient(value: Value) -> abi.Operation:
    """The same of its gradient."""
    return _pass(abi.Bfloat16, value, value, value.gradient, value.gradient)


def round_weights(parameters: Parameters) -> Operations:
    """To what products read."""
    here, step = np.zeros(1, np.int32), packing.VECTOR
    each = {one: abi.Vectors(1, 1, one.size // step, 0, 0, step, 0, 0, step) for one in parameters.weights.values()}
    return [
        make(abi.Bfloat16, one.size, vectors=vectors, ins=here, outs=here, in_=one.address(), out=one.operand(), outputs=1)
        for one, vectors in each.items()
    ]  # fmt: skip


def gate(value: Value) -> abi.Operation:
    """In place: the gradient of what is before a ReLU, from that of what is behind it."""
    return _pass(abi.Gate, value, value, value.gradient, value.gradient, gate=value.at)


def drop(node: Dropout, stream: int, source: Value, out: Value) -> abi.Operation:
    """``stream`` tells dropouts of a network apart."""
    return _pass(abi.Drop, source, out, source.at, out.at, rate=node.rate, stream=stream, lanes=source.layout.lanes)


def drop_gradient(node: Dropout, stream: int, out: Value, sink: Sink) -> abi.Operation:
    """By the same draws."""
    lanes, to = out.layout.lanes, sink.value
    return _pass(abi.Drop, out, to, out.gradient, to.gradient, rate=node.rate, stream=stream, lanes=lanes, add=sink.add)


def add(left: Value, right: Value, out: Value, with_relu: bool) -> abi.Operation:
    """The sum of two values; ``right`` lies as ``out`` does."""
    return _pass(abi.Add, left, out, left.at, out.at, other=right.at, relu=with_relu)


def add_gradient(out: Value, sink: Sink) -> abi.Operation:
    """Of one of the two."""
    return _pass(abi.Add, out, sink.value, out.gradient, sink.value.gradient, add=sink.add)


def _windows(node: Pool, source: Value, out: Value) -> dict[str, Any]:
    _, height, width = source.layout.shape
    return {
        "vectors": packing.vectors(source.layout, out.layout), "ins": source.layout.channels(), "outs": out.layout.channels(),
        "in_": source.at, "out": out.at, "outputs": out.layout.shape[0], "height": height, "width": width,
        "kernel": node.kernel, "stride": node.stride, "padding": node.padding, "mean": node.kind == "mean",
    }  # fmt: skip


def pool(node: Pool, source: Value, out: Value) -> abi.Operation:
    """Maxima or means over windows."""
    return make(abi.Pooling, source.layout.size, **_windows(node, source, out))


def pool_gradient(node: Pool, source: Value, out: Value, sink: Sink) -> Operations:
    """``gated`` only where every pixel is in one window; else a gate follows."""
    tiled = node.padding == (0, 0) and node.kernel == node.stride
    apart = tiled and all(
        size == count * step
        for size, count, step in zip(source.layout.shape[1:], out.layout.shape[1:], node.stride, strict=True)
    )
    alone = apart and sink.gated and not sink.add
    first = make(
        abi.PoolingGradient, source.layout.size, out_gradient=out.gradient, gradient=source.gradient, apart=apart,
        relu=alone, add=sink.add, **_windows(node, source, out),
    )  # fmt: skip
    return [first, gate(source)] if sink.gated and not alone else [first]


def _moments(node: BatchNorm, source: Value, out: Value, parameters: Parameters, part: str) -> dict[str, Any]:
    means, scales = parameters.moments[node.name]
    return {
        "vectors": packing.vectors(source.layout, out.layout), "ins": source.layout.channels(), "outs": out.layout.channels(),
        "in_": source.at, "weight": parameters.vectors[node.weight].address(part), "means": means, "scales": scales,
        "outputs": out.layout.shape[0], "pixels": source.layout.pixels, "lanes": source.layout.lanes,
    }  # fmt: skip


def batch_norm(
    node: BatchNorm,
    source: Value,
    out: Value,
    parameters: Parameters,
    part: str,
    training: bool,
    with_relu: bool,
    other: Value | None = None,
) -> abi.Operation:
    """In training of the batch; in evaluation by the running moments. With ``other``, which lies as ``out`` does, their sum."""
    return make(
        abi.BatchNorm, source.layout.size, bias=parameters.vectors[node.bias].address(part), out=out.at,
        other=other.at if other else None,
        running_mean=parameters.buffers[node.running_mean], running_variance=parameters.buffers[node.running_var],
        momentum=node.momentum, epsilon=node.eps, training=training, relu=with_relu,
        **_moments(node, source, out, parameters, part),
    )  # fmt: skip


def batch_norm_gradient(
    node: BatchNorm, source: Value, out: Value, parameters: Parameters, sink: Sink | None
) -> Operations:
    """Without a sink the input's gradient goes where its numbers are, which nobody reads any more."""
    alone = sink is not None and sink.gated and not sink.add
    first = make(
        abi.BatchNormGradient, source.layout.size, out_gradient=out.gradient, relu=alone,
        add=sink is not None and sink.add,
        gradient=source.gradient if sink else source.at,
        weight_gradient=parameters.gradient[parameters.vectors[node.weight].first :],
        bias_gradient=parameters.gradient[parameters.vectors[node.bias].first :],
        **_moments(node, source, out, parameters, "values"),
    )  # fmt: skip
    return [first, gate(source)] if sink is not None and sink.gated and not alone else [first]


class Layer:
    """A linear layer or convolution between two values. A linear layer is a convolution of one pixel whose channels are all
    numbers of its input."""

    def __init__(self, node: Linear | Conv, source: Value, out: Value, parameters: Parameters) -> None:
        self.node, self.source, self.out, self._parameters = node, source, out, parameters
        self.weight = parameters.weights[node.weight]
        self.flat = isinstance(node, Linear)
        self.outputs = out.layout.shape[0]
        if isinstance(node, Conv):
            self.kernel, self.stride, self.padding, self.groups = (
                kernel_of(node, parameters),
                node.stride,
                node.padding,
                node.groups,
            )
            self.vectors = packing.vectors(source.layout, out.layout, node.stride)
        else:
            self.kernel, self.stride, self.padding, self.groups = (1, 1), (1, 1), (0, 0), 1
            self.vectors = packing.flat_vectors(source.layout, out.layout)
        self.area = self.kernel[0] * self.kernel[1]

    def _taps(self, group: int) -> Ints:
        """Where the taps of a group's outputs lead."""
        layout = self.source.layout
        if self.flat:
            return layout.features()
        channels = layout.shape[0] // self.groups
        return packing.taps_of(layout, np.arange(group * channels, (group + 1) * channels), self.kernel, self.padding)

    def _part(self, kernel: Pair, stride: Pair, vectors: abi.Vectors, places: int) -> int:
        """How many channels are summed at a time, whose windows have ``places`` of the kernel's."""
        sparse = isinstance(self.weight, SparseWeight)
        if self.flat:
            return packing.channels_a_part(packing.FEATURE, self.weight.density)
        columns = min(_SPARSE_COLUMNS if sparse else _DENSE_COLUMNS, int(vectors.cols))
        floats = kernel[0] * (columns * stride[1] + kernel[1] - 1) * packing.VECTOR
        return packing.channels_a_part(floats, self.weight.density * places)

    def _work(self, taps: int, vectors: abi.Vectors) -> int:
        return int(taps * vectors.blocks * vectors.rows * vectors.cols * packing.VECTOR)

    def _groups(self, channels: int) -> Iterable[tuple[int, int, int]]:
        """Number, first channel and end of each group."""
        each = channels // self.groups
        return ((group, group * each, (group + 1) * each) for group in range(self.groups))

    def forward(self, part: str, with_relu: bool, training: bool) -> Operations:
        node, weight, layout = self.node, self.weight, self.out.layout
        weights = weight.operand() if training else weight.address(part)
        bias = self._parameters.vectors[node.bias].address(part) if node.bias else None
        channels = self._part(self.kernel, self.stride, self.vectors, self.area)
        shared = {"vectors": self.vectors, "in_": self.source.at, "out": self.out.at, "relu": with_relu}
        outs = layout.channels()
        if isinstance(weight, SparseWeight):
            starts, taps = weight.table("forward", lambda: self._forward_table(weight, channels))
            return [
                make(abi.SparseTaps, self._work(len(taps), self.vectors), weights=weights, outs=outs,
                     bias=bias,
                     outputs=self.outputs, starts=starts, taps=taps, parts=len(starts) // self.outputs, **shared)
            ]  # fmt: skip
        operations = []
        for group, first, end in self._groups(self.outputs):
            taps = self._taps(group)
            operations.append(
                make(abi.DenseTaps, self._work(len(taps) * (end - first), self.vectors), outs=outs[first:end],
                     weights=weights + 4 * first * weight.distance, bias=bias and bias + 4 * first,
                     outputs=end - first, offsets=taps, places=np.arange(len(taps), dtype=np.int32), taps=len(taps),
                     part=channels * self.area, distance=weight.distance, **shared)
            )  # fmt: skip
        return operations

    def _forward_table(self, weight: SparseWeight, channels: int) -> tuple[Ints, Ints]:
        rows, columns = np.divmod(weight.survivors.places, weight.survivors.shape[1])
        offsets = np.stack([self._taps(group) for group in range(self.groups)])[
            rows // (self.outputs // self.groups), columns
        ]
        return packing.table(rows, columns // self.area // channels, offsets, weight.survivors.slots, self.outputs)

    def input_gradient(self, sink: Sink) -> Operations:
        """The same sums over the transposed weights: for each input the outputs that it is part of."""
        inside, outside = self.source.layout, self.out.layout
        if self.flat:
            one = packing.Phase((0, 0), (1, 1), np.zeros(1, np.int32), np.zeros((1, 2), np.int64))
            return self._phase(sink, one, inside.features(), packing.flat_vectors(outside, inside))
        operations = []
        for phase in packing.phases(self.kernel, self.stride, self.padding, inside.image):
            vectors = packing.vectors(outside, inside, out_stride=self.stride)
            vectors.rows, vectors.cols = phase.counts
            operations += self._phase(sink, phase, inside.channels(), vectors)
        return operations

    def _phase(self, sink: Sink, phase: packing.Phase, inputs: Ints, vectors: abi.Vectors) -> Operations:
        weight, source, out = self.weight, self.source, self.out
        first = phase.start[0] * source.layout.row + phase.start[1] * source.layout.lanes
        shifts = phase.offsets @ np.array([out.layout.row, out.layout.lanes])
        span = tuple(np.ptp(phase.offsets, axis=0) + 1) if phase.places.size else (1, 1)
        channels = self._part((int(span[0]), int(span[1])), (1, 1), vectors, len(phase.places))
        shared = {
            "vectors": vectors, "in_": out.gradient, "out": source.gradient + 4 * first, "add": sink.add,
            "gate": source.at + 4 * first if sink.gated else None, "weights": weight.operand(),
        }  # fmt: skip
        outs = out.layout.channels()
        if isinstance(weight, SparseWeight) or not phase.places.size:
            starts, taps = (
                weight.table(phase.start, lambda: self._backward_table(weight, phase, shifts, len(inputs), channels))
                if isinstance(weight, SparseWeight)
                else packing.no_taps(len(inputs))
            )
            return [
                make(abi.SparseTaps, self._work(len(taps), vectors), outs=inputs, outputs=len(inputs), starts=starts,
                     taps=taps,
                     parts=len(starts) // len(inputs), **shared)
            ]  # fmt: skip
        operations = []
        for (_, begin, end), (_, low, high) in zip(self._groups(len(inputs)), self._groups(self.outputs), strict=True):
            offsets = np.add.outer(outs[low:high], shifts).reshape(-1).astype(np.int32)
            places = np.add.outer(np.arange(low, high) * weight.distance, phase.places).reshape(-1).astype(np.int32)
            operations.append(
                make(abi.DenseTaps, self._work(len(offsets) * (end - begin), vectors), outs=inputs[begin:end],
                     outputs=end - begin,
                     offsets=offsets, places=places, taps=len(offsets), part=channels * len(phase.places),
                     distance=self.area,
                     **shared)
            )  # fmt: skip
        return operations

    def _backward_table(
        self, weight: SparseWeight, phase: packing.Phase, shifts: NDArray[np.int64], inputs: int, channels: int
    ) -> tuple[Ints, Ints]:
        survivors = weight.survivors
        rows, columns = np.divmod(survivors.places, survivors.shape[1])
        own, spots = np.divmod(columns, self.area)
        own = own + rows // (self.outputs // self.groups) * (inputs // self.groups)
        shift = np.zeros(self.area, np.int64)
        shift[phase.places] = shifts
        mine = np.isin(spots, phase.places)
        offsets = self.out.layout.channels()[rows[mine]] + shift[spots[mine]]
        return packing.table(own[mine], rows[mine] // channels, offsets, survivors.slots[mine], inputs)

    def weight_gradient(self, rows: NDArray[np.float32] | None) -> Operations:
        """And the optimizer's step. ``rows``: the input by examples, for a dense linear layer."""
        weight, source, out = self.weight, self.source, self.out
        operations = self._bias_gradient()
        shared = {"vectors": self.vectors, "in_": source.at, "out": out.gradient}
        outs = out.layout.channels()
        if isinstance(weight, SparseWeight):
            survivors, each = weight.survivors, self.outputs // self.groups
            taps = np.stack([self._taps(group) for group in range(self.groups)])
            owners, band = np.repeat(survivors.rows, 4), self._band()
            groups = survivors.size // packing.VECTOR
            scratch = self._parameters.room(groups * packing.VECTOR**2) if band < self._all_rows() else None
            return [
                *operations,
                make(abi.SparseGradient, self._work(survivors.size, self.vectors), parameter=weight.parameter(),
                     outputs=self.outputs,
                     offsets=taps[owners // each, survivors.columns], rows=outs[survivors.rows],
                     groups=groups, band=band, scratch=scratch,
                     **shared),
            ]  # fmt: skip
        if rows is not None:
            shared |= {"vectors": abi.Vectors(out_block=out.layout.block), "in_": rows.ctypes.data}
            one = make(
                abi.LinearGradient, self._work(self.outputs * source.layout.count, self.vectors),
                parameter=weight.parameter(),
                outputs=self.outputs, outs=outs, mask=weight.mask, features=source.layout.count,
                distance=weight.distance,
                lanes=out.layout.lanes, **shared,
            )  # fmt: skip
            one.arrays.append(rows)
            return [*operations, one]
        for group, first, end in self._groups(self.outputs):
            taps, place = self._taps(group), first * weight.distance
            operations.append(
                make(abi.ConvGradient, self._work(len(taps) * (end - first), self.vectors), outputs=end - first,
                     outs=outs[first:end],
                     parameter=weight.parameter(place),
                     mask=None if weight.mask is None else weight.mask[place // 16 :],
                     offsets=taps, scratch=self._parameters.room(weight.size), taps=len(taps), distance=weight.distance, **shared)
            )  # fmt: skip
        return operations

    def _all_rows(self) -> int:
        return int(self.vectors.blocks * self.vectors.rows)

    def _band(self) -> int:
        """How many rows of all channels, of the input and of the output's gradient, fit the second cache."""
        inside, outside = self.source.layout, self.out.layout
        row = inside.shape[0] * inside.row * self.stride[0] + outside.shape[0] * outside.row
        margin = inside.shape[0] * inside.row * (self.kernel[0] - 1)
        return max(1, (packing.SECOND_CACHE - margin) // row)

    def _bias_gradient(self) -> Operations:
        if not self.node.bias:
            return []
        return [self.bias_gradient(self._parameters.gradient[self._parameters.vectors[self.node.bias].first :])]

    def bias_gradient(self, sums: NDArray[np.float32] | None) -> abi.Operation:
        """To where ``sums`` are."""
        layout = self.out.layout
        return make(
            abi.PlaneSums, layout.size, vectors=packing.vectors(layout, layout), in_=self.out.gradient,
            outs=layout.channels(), sums=sums, outputs=self.outputs,
        )  # fmt: skip


def rows(value: Value, to: NDArray[np.float32]) -> abi.Operation:
    """``value`` by examples."""
    layout = value.layout
    return make(
        abi.Rows, layout.size, in_=value.at, offsets=layout.features(), rows=to, features=layout.count, row=to.shape[1],
        lanes=layout.lanes, blocks=layout.blocks, block=layout.block,
    )  # fmt: skip


def kernel_of(node: Conv, parameters: Parameters) -> Pair:
    """Rows and columns of a convolution's kernel."""
    _, _, height, width = parameters.weights[node.weight].shape
    return height, width


def by_examples(node: object, parameters: Parameters) -> int | None:
    """How far examples lie apart in what a dense linear layer reads by examples; None for another node."""
    weight = parameters.weights[node.weight] if isinstance(node, Linear) else None
    return weight.distance if isinstance(weight, DenseWeight) else None
