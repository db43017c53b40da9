"""Which function lowers which operator."""

from __future__ import annotations

from collections.abc import Callable

from ticketsmith.runtime.analysis import Analysis
from ticketsmith.runtime.graph import BINARY, ELEMENTWISE, Node
from ticketsmith.runtime.lower import arrays, attention, convolutions, ends, norms, planes, products
from ticketsmith.runtime.lower.lowering import Lowering
from ticketsmith.runtime.resolutions import Resolutions

LOWERINGS: dict[str, Callable[[Node, Lowering], None]] = {
    "linear": products.linear,
    "conv2d": convolutions.conv2d,
    "max_pool": planes.pool,
    "avg_pool": planes.pool,
    "affine": planes.affine,
    "activation": planes.affine,
    "add_constant": planes.add_constant,
    "embedding": planes.embedding,
    **dict.fromkeys(ELEMENTWISE, arrays.elementwise),
    **dict.fromkeys(BINARY, planes.binary),
    "layer_norm": norms.layer_norm,
    "rms_norm": norms.layer_norm,
    "group_norm": norms.group_norm,
    "softmax": norms.softmax,
    "attention": attention.attention,
    "rotary": attention.rotary,
    "rows": attention.rows,
    "flatten": ends.reshape,
    "reshape": ends.reshape,
    "constant": arrays.constant,
    "cast": arrays.cast,
    "expand": arrays.expand,
    "permute": arrays.permute,
    "slice": arrays.slice_,
    "concat": arrays.concat,
    "upsample": arrays.upsample,
    "pad": arrays.pad,
    "reduce": arrays.reduce,
    "matmul": arrays.matmul,
}


def lower(analysis: Analysis, resolutions: Resolutions) -> Lowering:
    """All instructions of a graph: its inputs, its nodes in their order, its outputs."""
    lowering = Lowering(analysis, resolutions)
    for index, port in enumerate(analysis.graph.inputs):
        ends.input_(index, port, lowering)
    for node in analysis.graph.nodes:
        LOWERINGS[node.op](node, lowering)
    for index, name in enumerate(analysis.graph.outputs):
        ends.output(index, name, lowering)
    return lowering
