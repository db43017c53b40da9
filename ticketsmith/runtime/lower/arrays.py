"""Operators on arrays of any shape. They need no layout of their own: an array is a base and a stride for each axis, wherever
its value lies.

In: a node. Out: instructions that walk over arrays in loops; none at all where another view of the same memory will do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ticketsmith.native import abi
from ticketsmith.native.abi import Space
from ticketsmith.runtime import layout
from ticketsmith.runtime.graph import Node
from ticketsmith.runtime.lower.lowering import Lowering, activation
from ticketsmith.runtime.operands import Tensor, View, common_axes, compact, loops


def map_(function: str, inputs: Sequence[View], out: View, lowering: Lowering, activation: int = 0) -> None:
    """A function of up to three arrays, element by element; ``inputs`` can be broadcast to the shape of ``out``."""
    arrays = [*(one.expanded(out.shape) for one in inputs), out]
    sizes, strides = loops(out.shape, [one.strides for one in arrays], 6)
    walks = [one.along(stride) for one, stride in zip(arrays, strides, strict=True)]
    lowering.emit(
        abi.Map, in_=tuple(walks[:-1]), out=walks[-1], uses=tuple(walks), size=tuple(sizes), inputs=len(inputs),
        function=abi.MapFunction[function.upper()], activation=activation, work=math.prod(sizes),
    )  # fmt: skip


def copy(source: View, out: View, lowering: Lowering) -> None:
    """``source``, broadcast to the shape of ``out``."""
    map_("copy", [source], out, lowering)


def elementwise(node: Node, lowering: Lowering) -> None:
    """A function of two or three values, broadcast."""
    inputs = [lowering.read_view(name, node) for name in node.inputs]
    map_(node.op, inputs, lowering.new_view(node), lowering, activation(node))


# ---- the same elements elsewhere


def constant(node: Node, lowering: Lowering) -> None:
    """Memory of the program; no instruction."""
    value = lowering.constants[node.output] = lowering.graph.parameter(node, "value")
    lowering.tensors[node.output] = lowering.constant(value).tensor


def cast(node: Node, lowering: Lowering) -> None:
    """From whole numbers."""
    copy(replace(lowering.read_view(node.inputs[0], node), integer=True), lowering.new_view(node), lowering)


def expand(node: Node, lowering: Lowering) -> None:
    """A copy that reads elements again."""
    copy(lowering.read_view(node.inputs[0], node), lowering.new_view(node), lowering)


def reshape(node: Node, lowering: Lowering) -> None:
    """Another view where elements lie one behind the other; else a copy over axes that both shapes have."""
    source, shape = lowering.read_view(node.inputs[0], node), lowering.shapes[node.output]
    if lowering.layout(shape).is_vector and source.tensor.space == Space.SAMPLE and source.is_compact():
        lowering.tensors[node.output] = source.tensor.as_layout(layout.vector(math.prod(shape)))
        return
    out = lowering.new_view(node)
    axes = common_axes(source.shape, out.shape)
    left, right = (None, None) if axes is None else (source.split(axes), out.split(axes))
    if left is not None and right is not None:
        copy(left, right, lowering)
        return
    between = Tensor.new(layout.vector(math.prod(source.shape)), Space.SAMPLE)
    copy(source, View(between, source.shape, compact(source.shape)), lowering)
    copy(View(between, out.shape, compact(out.shape)), out, lowering)


def permute(node: Node, lowering: Lowering) -> None:
    """A copy with strides in another order."""
    source = lowering.read_view(node.inputs[0], node)
    copy(source.permuted(node.attributes["axes"]), lowering.new_view(node), lowering)


def slice_(node: Node, lowering: Lowering) -> None:
    """Some planes of the same memory, or a copy."""
    view = lowering.read_view(node.inputs[0], node)
    source, shape = view.tensor, view.shape
    axis = node.attributes.get("axis", len(shape) - 1)
    begin, end, step = node.number("begin"), node.number("end"), node.attributes.get("step", 1)
    last = len(shape) <= 2 and axis == len(shape) - 1
    planes = last or (len(shape) == 3 and axis == 0 and source.layout.plane > 1)
    if planes and step == 1 and source.space in (Space.SAMPLE, Space.BATCH):
        lowering.tensors[node.output] = source.part(begin, end)
        return
    strides = tuple(s * step if index == axis else s for index, s in enumerate(view.strides))
    part = replace(view, shape=lowering.shapes[node.output], strides=strides, offset=begin * view.strides[axis])
    copy(part, lowering.new_view(node), lowering)


def concat(node: Node, lowering: Lowering) -> None:
    """A copy for each part."""
    out, begin = lowering.new_view(node), 0
    axis = node.attributes.get("axis", len(out.shape) - 1)
    for name in node.inputs:
        part = lowering.read_view(name, node)
        copy(part, replace(out, shape=part.shape, offset=begin * out.strides[axis]), lowering)
        begin += part.shape[axis]


def upsample(node: Node, lowering: Lowering) -> None:
    """A copy that reads each row and column several times."""
    source, out = lowering.read_view(node.inputs[0], node), lowering.new_view(node)
    high, wide = node.numbers("factors", 2, 1)
    planes, rows, cols = source.shape
    shape, (a, b, c), (d, e, f) = (planes, rows, high, cols, wide), source.strides, out.strides
    repeated = replace(source, shape=shape, strides=(a, b, 0, c, 0))
    copy(repeated, replace(out, shape=shape, strides=(d, e * high, e, f * wide, f)), lowering)


def pad(node: Node, lowering: Lowering) -> None:
    """The number everywhere, then the values among it."""
    source, out = lowering.read_view(node.inputs[0], node), lowering.new_view(node)
    rank = len(source.shape)
    before, between = node.numbers("before", rank), node.numbers("between", rank)
    copy(lowering.constant(np.array(node.real("value"), np.float32)), out, lowering)
    strides = tuple(stride * (1 + gap) for stride, gap in zip(out.strides, between, strict=True))
    offset = sum(stride * skipped for stride, skipped in zip(out.strides, before, strict=True))
    copy(source, replace(out, shape=source.shape, strides=strides, offset=offset), lowering)


# ---- sums and products


def reduce(node: Node, lowering: Lowering) -> None:
    """A sum or the largest over up to three loops, for up to three others."""
    source, out = lowering.read_view(node.inputs[0], node), lowering.new_view(node)
    axes, function = node.attributes["axes"], node.attributes["function"]
    others = [axis for axis in range(len(source.shape)) if axis not in axes]
    sizes, (left, right) = loops(
        [source.shape[a] for a in others], [[view.strides[a] for a in others] for view in (source, out)], 3
    )
    over, (steps,) = loops([source.shape[a] for a in axes], [[source.strides[a] for a in axes]], 3)
    lowering.emit(
        abi.Reduce, in_=source.along(left), out=out.along(right), size=tuple(sizes), over=tuple(over),
        over_stride=tuple(steps), function=abi.ReduceFunction.MAX if function == "max" else abi.ReduceFunction.SUM,
        scale=1 / math.prod(over) if function == "mean" else 1.0, work=math.prod(source.shape),
    )  # fmt: skip


def matmul(node: Node, lowering: Lowering) -> None:
    """A product of two values, or its transpose."""
    left, right = (lowering.read_view(name, node) for name in node.inputs)
    out = lowering.new_view(node)
    batch, (rows, cols), inner = out.shape[:-2], out.shape[-2:], left.shape[-1]
    if right.strides[-1] != 1 and left.strides[-2] == 1:  # the product's transpose reads and writes whole vectors
        left, right, out, rows, cols = _transposed(right), _transposed(left), _transposed(out), cols, rows
    a, b = (one.expanded((*batch, *one.shape[-2:])).strides for one in (left, right))
    before = [0] * (3 - len(batch))
    size = (*[1] * (3 - len(batch)), *batch, rows, cols, inner)
    lowering.emit(
        abi.Matmul, left=left.along((*before, *a[:-2], a[-2], 0, a[-1])),
        right=right.along((*before, *b[:-2], 0, b[-1], b[-2])), out=out.along((*before, *out.strides, 0)), size=size,
        work=math.prod(size),
    )  # fmt: skip


def _transposed(view: View) -> View:
    """With its last two axes exchanged."""
    axes = range(len(view.shape))
    return view.permuted((*axes[:-2], axes[-1], axes[-2]))
