"""Norms and softmax.

In: a node that divides by what it sums up over axes. Out: one instruction: over the planes where features are planes, else
over axes of an array.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ticketsmith.native import abi
from ticketsmith.runtime import pack
from ticketsmith.runtime.graph import GraphError, Node
from ticketsmith.runtime.layout import up
from ticketsmith.runtime.lower.lowering import Lowering
from ticketsmith.runtime.operands import View, loops

_KINDS = ("softmax", "layer_norm", "rms_norm")
"""In the order of the ABI."""


def layer_norm(node: Node, lowering: Lowering) -> None:
    """A ``layer_norm`` or an ``rms_norm``, over the last axis."""
    if len(lowering.shapes[node.output]) > 2:
        _last_axis_norm(node, lowering)
        return
    source, out = lowering.read(node.inputs[0], node), lowering.new(node)
    scale, shift = (
        pack.padded(lowering.graph.tensor(node, name), up(out.layout.planes)) for name in ("scale", "shift")
    )
    lowering.emit(
        abi.Norm, in_=source, out=out, scale=scale, shift=shift, epsilon=node.real("epsilon"),
        rms=node.op == "rms_norm", batch=out.batched, work=out.layout.size,
    )  # fmt: skip


def _last_axis_norm(node: Node, lowering: Lowering) -> None:
    source, out = lowering.read_view(node.inputs[0], node), lowering.new_view(node)
    scale = lowering.graph.parameter(node, "scale")
    shift = np.zeros_like(scale) if node.op == "rms_norm" else lowering.graph.parameter(node, "shift")
    tables = [lowering.constant(one).expanded(source.shape) for one in (scale, shift)]
    _normalise(node.op, source, out, range(len(source.shape) - 1), lowering, tables, node.real("epsilon"))


def group_norm(node: Node, lowering: Lowering) -> None:
    """A layer norm of groups, as arrays of one axis more."""
    source, out = lowering.read_view(node.inputs[0], node), lowering.new_view(node)
    groups, channels = node.number("groups", 1), source.shape[0]
    shape = (groups, channels // groups, *source.shape[1:])
    tables = [lowering.constant(lowering.graph.parameter(node, name)) for name in ("scale", "shift")]
    wide = [replace(one, shape=shape, strides=(shape[1], 1, *[0] * (len(shape) - 2))) for one in tables]
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


def _normalise(
    kind: str,
    source: View,
    out: View,
    outer: Sequence[int],
    lowering: Lowering,
    tables: Sequence[View] = (),
    epsilon: float = 0.0,
) -> None:
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
        kind=_KINDS.index(kind), epsilon=epsilon, work=4 * math.prod(source.shape),
    )  # fmt: skip
