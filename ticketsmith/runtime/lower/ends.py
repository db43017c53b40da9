"""The ends of a network: callers' arrays in, callers' arrays out; and flattening, which may read them where they lie.

In: a port, or the name of an output. Out: the copy between the caller's array and ours, where one is needed.
"""

from __future__ import annotations

import math

from ticketsmith.native.abi import Space
from ticketsmith.runtime import layout
from ticketsmith.runtime.graph import Node, Port, Shape
from ticketsmith.runtime.layout import Layout
from ticketsmith.runtime.lower import arrays
from ticketsmith.runtime.lower.lowering import Lowering
from ticketsmith.runtime.operands import Strided, Tensor, View


def input_(index: int, port: Port, lowering: Lowering) -> None:
    """A caller's array where it is, or copied to a layout that kernels can read."""
    shape, analysis = lowering.shapes[port.name], lowering.analysis
    users = analysis.users(port.name)
    outside = lowering.tensors[port.name] = Tensor.at(
        _outside(shape), Space.INPUT if index == 0 else Space.MORE_INPUTS + index - 1
    )
    if port.dtype != "float32" or not users:
        return
    batched = all(user.output in analysis.batched for user in users)
    flattened = all(map(analysis.flattens, users))
    if index == 0 and (flattened or batched or (len(shape) == 1 and _only_multiplied(port.name, lowering))):
        return  # read where it is
    inside = lowering.tensors[port.name] = Tensor.new(lowering.layout(shape), Space.SAMPLE)
    _move(outside, inside, lowering)


def output(index: int, name: str, lowering: Lowering) -> None:
    """A value to the caller's array, unless it was written there."""
    shape, result = lowering.shapes[name], lowering.tensors[name]
    if result.space == Space.OUTPUT and index == 0:
        return
    outside = Tensor.at(_outside(shape), Space.OUTPUT if index == 0 else Space.MORE_OUTPUTS + index - 1)
    if result.batched:
        planes, rows, cols = lowering.lane_extent(result, shape)
        to = Strided(outside, rows * cols, cols, sample=math.prod(shape))
        lowering.copy(lowering.lane_side(result), to, (planes, rows, cols), lanes=True)
    elif result.space != Space.SAMPLE or result.layout.is_vector != lowering.layout(shape).is_vector:
        arrays.copy(View.of(result, shape), View.of(outside, shape), lowering)
    else:
        _move(result, outside, lowering)


def reshape(node: Node, lowering: Lowering) -> None:
    """A ``reshape`` or a ``flatten``."""
    spaces = (Space.SAMPLE, Space.BATCH, Space.INPUT)
    if node.op == "flatten" or (lowering.analysis.flattens(node) and lowering.tensors[node.inputs[0]].space in spaces):
        _flatten(node, lowering)
    else:
        arrays.reshape(node, lowering)


def _flatten(node: Node, lowering: Lowering) -> None:
    shape, source = lowering.shapes[node.inputs[0]], lowering.tensors[node.inputs[0]]
    users = lowering.analysis.users(node.output)
    one_by_one = (
        source.space in (Space.SAMPLE, Space.INPUT) and users and all(map(lowering.analysis.rounds_lanes, users))
    )
    if not one_by_one:
        source = lowering.read_view(node.inputs[0], node).tensor
    if node.output in lowering.analysis.batched and not one_by_one:
        lanes, (planes, rows, cols) = lowering.lanes, lowering.lane_extent(source, shape)
        if planes == 1:
            lowering.tensors[node.output] = source.as_layout(layout.columns(math.prod(shape), lanes))
        else:
            to = Strided(lowering.new(node), rows * cols * lanes, cols * lanes, lanes, 1)
            lowering.copy(lowering.lane_side(source), to, (planes, rows, cols), lanes=True)
        return
    own, flat = source.layout, layout.vector(lowering.shapes[node.output][0])
    outside = source.space == Space.INPUT
    dense = outside or own.is_vector or (len(shape) == 3 and own == layout.compact(*shape))
    if dense and not (outside and not _only_multiplied(node.output, lowering)):
        lowering.tensors[node.output] = source.as_layout(flat)
        return
    out = lowering.tensors[node.output] = Tensor.new(flat, Space.SAMPLE)
    if dense:
        _move(source.as_layout(flat), out, lowering)
    elif len(shape) == 3:
        rows, cols = shape[1:]
        lowering.copy(Strided(source, own.plane, own.row), Strided(out, rows * cols, cols), shape)
    else:
        tokens, features = shape
        lowering.copy(Strided(source, own.plane, own.row), Strided(out, 1, 0, features), (features, 1, tokens))


def _outside(shape: Shape) -> Layout:
    """How callers have their arrays: tokens are rows of features there."""
    if len(shape) == 3:
        return layout.compact(*shape)
    if len(shape) > 3:
        return layout.vector(math.prod(shape))
    return layout.vector(shape[-1]) if len(shape) == 1 or shape[0] == 1 else Layout(shape[1], 1, shape[0], 1, 0)


def _only_multiplied(name: str, lowering: Lowering) -> bool:
    """Whether a vector can stay in the caller's array: other kernels would read a little beyond its end."""
    return all(
        user.output in lowering.analysis.batched or (user.op == "linear" and len(user.inputs) == 1)
        for user in lowering.analysis.users(name)
    )


def _move(source: Tensor, target: Tensor, lowering: Lowering) -> None:
    """One sample between the caller's arrays and ours."""

    def side(tensor: Tensor) -> Strided:
        own = tensor.layout
        token_rows = own.plane == 1 and own.cols > 1
        return Strided(tensor, own.plane, own.row, own.planes if token_rows else 1)

    own = target.layout
    lowering.copy(side(source), side(target), (own.planes, own.rows, own.cols))
