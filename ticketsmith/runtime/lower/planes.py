"""Operators that go over values plane by plane, by the layouts that these have.

In: a node whose inputs are vectors, tokens of features, or images. Out: one instruction, or a few; zeros around images stay.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ticketsmith.native import abi
from ticketsmith.native.abi import Space
from ticketsmith.runtime import pack
from ticketsmith.runtime.graph import ACTIVATIONS, BINARY, GraphError, Node, pool_geometry
from ticketsmith.runtime.layout import LANES, Layout, up
from ticketsmith.runtime.lower import arrays
from ticketsmith.runtime.lower.lowering import Lowering
from ticketsmith.runtime.operands import Planes, Tensor

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
    left, right = (lowering.read(name, node) for name in node.inputs)
    if one == other and Space.CONSTANT not in (left.space, right.space):
        _binary(node, node.op, left, right, lowering)
    else:
        arrays.elementwise(node, lowering)


def add_constant(node: Node, lowering: Lowering) -> None:
    """With a constant that is laid out like the value."""
    left = lowering.read(node.inputs[0], node)
    _binary(node, "add", left, lowering.graph.parameter(node, "value"), lowering)


def affine(node: Node, lowering: Lowering) -> None:
    """A scale and a shift for each plane; of an ``activation``, neither."""
    source = lowering.read(node.inputs[0], node)
    scale = shift = None
    if node.op == "affine":
        scale, shift = (lowering.graph.parameter(node, name) for name in ("scale", "shift"))
        if source.layout.is_vector:  # planes of one float each would be slow: elementwise instead
            _affine_vector(node, source, scale, shift, lowering)
            return
    out = lowering.new(node)
    planes, vectors = out.layout.sweep
    scales, shifts = (None if v is None else pack.padded(v, up(len(v))) for v in (scale, shift))
    lowering.emit(
        abi.Affine, in_=Planes(source, planes), out=Planes(out, planes), scale=scales, shift=shifts,
        mask=out.layout.mask, vectors=vectors, activation=ACTIVATIONS.index(node.activation), batch=out.batched,
        work=planes * vectors * LANES,
    )  # fmt: skip


def _affine_vector(node: Node, source: Tensor, scale: pack.Floats, shift: pack.Floats, lowering: Lowering) -> None:
    if not shift.any():
        _binary(node, "mul", source, scale, lowering)
        return
    if not (scale == 1).all():
        source = _binary(replace(node, attributes={}), "mul", source, scale, lowering)
    _binary(node, "add", source, shift, lowering)


def _binary(node: Node, function: str, left: Tensor, right: Tensor | NDArray[Any], lowering: Lowering) -> Tensor:
    """``left`` with another value, or with a constant of one sample's shape."""
    out = lowering.new(node)
    planes, vectors = out.layout.sweep
    other = Planes(right, planes) if isinstance(right, Tensor) else _constant(right, out.layout, lowering)
    lowering.emit(
        abi.Binary, left=Planes(left, planes), out=Planes(out, planes), right=other, mask=out.layout.mask,
        binary=BINARY.index(function), vectors=vectors, activation=ACTIVATIONS.index(node.activation),
        batch=out.batched, work=planes * vectors * LANES,
    )  # fmt: skip
    return out


def _constant(value: NDArray[Any], own: Layout, lowering: Lowering) -> Tensor:
    """``value`` [features], [tokens, features] or [channels, rows, columns], laid out like a value."""
    if value.ndim == 3:
        planes = value
    elif value.ndim == 1:  # the same for each column
        planes = np.repeat(value[:, None, None], own.cols, axis=2)
    else:
        planes = value.T[:, None, :]
    memory = pack.aligned(own.origin + own.size, np.float32)
    strides = (4 * own.plane, 4 * own.row, 4)
    np.lib.stride_tricks.as_strided(memory[own.origin :], (own.planes, own.rows, own.cols), strides)[:] = planes
    return lowering.constant_tensor(memory, own)
