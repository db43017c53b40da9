"""Operators that go over values plane by plane, by the layouts that these have.

In: a node whose inputs are vectors, tokens of features, or images. Out: one instruction, or a few; zeros around images stay.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ticketsmith.native import abi
from ticketsmith.runtime.graph import GraphError, Node, pool_geometry
from ticketsmith.runtime.layout import LANES, up
from ticketsmith.runtime.lower import arrays
from ticketsmith.runtime.lower.lowering import Lowering, activation
from ticketsmith.runtime.operands import Tensor, View, loops
from ticketsmith.sparse.values import padded

_WIDEST_POOL = 4000
"""Columns of a row over which windows move; the kernel keeps one."""


def pool(node: Node, lowering: Lowering) -> None:
    """Windows over each channel."""
    kernel, stride, padding = pool_geometry(node)
    source, out = lowering.read(node.inputs[0], node), lowering.new_compact(node)
    shape, own = lowering.shapes[node.output], source.layout
    if (shape[2] - 1) * stride[1] + kernel[1] > _WIDEST_POOL and kernel != lowering.shapes[node.inputs[0]][1:]:
        raise GraphError(f"{node.output}: pooling over rows of more than {_WIDEST_POOL:,} columns is not known.")
    lowering.emit(
        abi.Pool, in_=source, out=out, average=node.op == "avg_pool", height=kernel[0], width=kernel[1],
        step_r=stride[0], step_c=stride[1], pad_r=padding[0], pad_c=padding[1],
        count_padding=bool(node.attributes.get("count_padding", True)), lanes=lowering.lanes if out.batched else 0,
        batch=out.batched, work=own.planes * own.plane,
    )  # fmt: skip


def embedding(node: Node, lowering: Lowering) -> None:
    """Rows of a table, as columns of planes."""
    table, space = np.ascontiguousarray(lowering.graph.parameter(node, "table")), lowering.tensors[node.inputs[0]].space
    lowering.emit(abi.Embed, out=lowering.new(node), table=table, tokens=len(table), space=space)


def binary(node: Node, lowering: Lowering) -> None:
    """A sum, difference or product of two values of one shape; others are elementwise operations on arrays."""
    one, other = (lowering.shapes[name] for name in node.inputs)
    left, right = (lowering.read_tensor(name, node) for name in node.inputs)
    if one == other and abi.Space.CONSTANT not in (left.space, right.space):
        _binary(node, node.op, left, right, lowering)
    else:
        arrays.elementwise(node, lowering)


def add_constant(node: Node, lowering: Lowering) -> None:
    """With a constant that is laid out like the value."""
    left = lowering.read(node.inputs[0], node)
    _binary(node, "add", left, lowering.graph.parameter(node, "value"), lowering)


def affine(node: Node, lowering: Lowering) -> None:
    """A scale and a shift for each plane; of an ``activation``, neither."""
    source, graph = lowering.read(node.inputs[0], node), lowering.graph
    pair = [graph.parameter(node, name) for name in ("scale", "shift")] if node.op == "affine" else []
    if pair and source.layout.is_vector:  # planes of one float each would be slow: elementwise instead
        scale, shift = pair
        if not shift.any():
            _binary(node, "mul", source, scale, lowering)
            return
        if not (scale == 1).all():
            source = _binary(replace(node, attributes={}), "mul", source, scale, lowering)
        _binary(node, "add", source, shift, lowering)
        return
    out = lowering.new(node)
    planes, vectors = out.layout.sweep
    scales, shifts = [padded(values, up(len(values))) for values in pair] or (None, None)
    lowering.emit(
        abi.Affine, in_=source.part(0, planes), out=out.part(0, planes), scale=scales, shift=shifts, mask=out.layout.mask,
        vectors=vectors, activation=activation(node), batch=out.batched, work=planes * vectors * LANES,
    )  # fmt: skip


def _binary(node: Node, function: str, left: Tensor, right: Tensor | NDArray[Any], lowering: Lowering) -> Tensor:
    """``left`` with another value, or with a constant of one sample's shape."""
    out = lowering.new(node)
    planes, vectors = out.layout.sweep
    other = right.part(0, planes) if isinstance(right, Tensor) else lowering.constant_planes(right, out.layout)
    lowering.emit(
        abi.Binary, left=left.part(0, planes), out=out.part(0, planes), right=other, mask=out.layout.mask,
        binary=abi.BinaryFunction[function.upper()], vectors=vectors, activation=activation(node),
        batch=out.batched, work=planes * vectors * LANES,
    )  # fmt: skip
    return out


# ---- norms


def layer_norm(node: Node, lowering: Lowering) -> None:
    """A ``layer_norm`` or an ``rms_norm``, over the last axis."""
    rms, epsilon, rank = node.op == "rms_norm", node.real("epsilon"), len(lowering.shapes[node.output])
    scale, shift = lowering.graph.parameter(node, "scale"), lowering.graph.tensor(node, "shift")
    if rank > 2:
        view, result = lowering.read_view(node.inputs[0], node), lowering.new_view(node)
        pair = scale, np.zeros_like(scale) if rms or shift is None else shift
        tables = [lowering.constant(one).expanded(view.shape) for one in pair]
        _normalise(node.op, view, result, range(rank - 1), lowering, tables, epsilon)
        return
    source, out = lowering.read(node.inputs[0], node), lowering.new(node)
    scales, shifts = (padded(one, up(out.layout.planes)) for one in (scale, shift))
    lowering.emit(
        abi.Norm, in_=source, out=out, scale=scales, shift=shifts, epsilon=epsilon, rms=rms, batch=out.batched,
        work=out.layout.size,
    )  # fmt: skip


def group_norm(node: Node, lowering: Lowering) -> None:
    """A layer norm of groups, as arrays of one axis more."""
    source, out = lowering.read_view(node.inputs[0], node), lowering.new_view(node)
    groups, channels = node.number("groups", 1), source.shape[0]
    shape = (groups, channels // groups, *source.shape[1:])
    tables = [lowering.constant(lowering.graph.parameter(node, name)) for name in ("scale", "shift")]
    wide = [one._replace(shape=shape, strides=(shape[1], 1, *[0] * (len(shape) - 2))) for one in tables]
    left, right = source.split(shape), out.split(shape)
    if left is None or right is None:
        raise GraphError(f"{node}: groups of {source.shape}.")
    _normalise("layer_norm", left, right, [0], lowering, wide, node.real("epsilon"))


def softmax(node: Node, lowering: Lowering) -> None:
    """Over the features of a vector or of tokens, or over any axis of an array."""
    last = len(lowering.shapes[node.output]) - 1
    axis = node.attributes.get("axis", last)
    if axis != last or last > 1:
        view, result = lowering.read_view(node.inputs[0], node), lowering.new_view(node)
        _normalise("softmax", view, result, [a for a in range(last + 1) if a != axis], lowering)
        return
    source, out = lowering.read(node.inputs[0], node), lowering.new(node)
    lowering.emit(abi.Softmax, in_=source, out=out, batch=out.batched, work=out.layout.size)


def _normalise(kind: str, source: View, out: View, outer: Sequence[int], lowering: Lowering, tables: Sequence[View] = (),
               epsilon: float = 0.0) -> None:  # fmt: skip
    """Over all axes but ``outer``; ``tables``, a scale and a shift, have the shape of ``source``."""
    views = [source, *tables, out]
    inner = [axis for axis in range(len(source.shape)) if axis not in outer]
    (first, before), (last, behind) = (
        loops([source.shape[a] for a in axes], [[view.strides[a] for a in axes] for view in views], 3)
        for axes in (outer, inner)
    )
    walks = [view.along((*one, *other)) for view, one, other in zip(views, before, behind, strict=True)]
    scale, shift = walks[1:-1] or (abi.Array(), abi.Array())
    lowering.emit(
        abi.Normalise, in_=walks[0], scale=scale, shift=shift, out=walks[-1], size=(*first, *last),
        kind=abi.NormFunction[kind.upper()], epsilon=epsilon, work=4 * math.prod(source.shape),
    )  # fmt: skip
