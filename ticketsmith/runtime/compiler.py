"""From a graph to an assembly, in four passes.

    graph --analyse--> shapes, readers, formats --resolve--> layouts --lower--> instructions --assemble--> operations

A program runs in two parts. The first is done for each sample of a batch: images, sequences, and vectors when there are
few samples. The second is done once: vectors of a whole batch, with a lane for each sample, so that a weight is read once
for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ticketsmith.runtime.analysis import Analysis, analyse
from ticketsmith.runtime.assembly import Assembly, assemble
from ticketsmith.runtime.graph import BINARY, ELEMENTWISE, Graph, Node
from ticketsmith.runtime.lower import arrays, columns, convolutions, ends, linear, planes
from ticketsmith.runtime.lower.lowering import Lowering
from ticketsmith.runtime.resolutions import Resolutions, resolve

LOWERINGS: dict[str, Callable[[Node, Lowering], None]] = {
    "linear": linear.linear,
    "conv2d": convolutions.conv2d,
    "max_pool": planes.pool,
    "avg_pool": planes.pool,
    "affine": planes.affine,
    "activation": planes.affine,
    "add_constant": planes.add_constant,
    "embedding": planes.embedding,
    **dict.fromkeys(ELEMENTWISE, arrays.elementwise),
    **dict.fromkeys(BINARY, planes.binary),
    "layer_norm": planes.layer_norm,
    "rms_norm": planes.layer_norm,
    "group_norm": planes.group_norm,
    "softmax": planes.softmax,
    "attention": arrays.attention,
    "rotary": arrays.rotary,
    "rows": arrays.rows,
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
"""The function that lowers each operator."""


def lower(analysis: Analysis, resolutions: Resolutions) -> Lowering:
    """All instructions of a graph: its inputs, its nodes in their order, its outputs."""
    lowering = Lowering(analysis, resolutions)
    for index, port in enumerate(analysis.graph.inputs):
        ends.input_(index, port, lowering)

    def lower_one(node: Node) -> None:
        LOWERINGS[node.op](node, lowering)

    for run in columns.runs(lowering):
        if len(run) == 1:
            lower_one(run[0])
        else:
            columns.by_parts(run, lowering, lower_one)
    for index, name in enumerate(analysis.graph.outputs):
        ends.output(index, name, lowering)
    return lowering


def compile_graph(
    graph: Graph, lanes: int = 0, choices: Mapping[str, str] | None = None, dtype: str | Mapping[str, str] = "float32"
) -> Assembly:
    """A program for ``graph``. With ``lanes``, the end of the network takes up to that many samples at once.

    ``choices`` maps products by their outputs to the formats that were measured to be fastest; others go by rules of
    thumb. ``dtype`` is that of the weights of sparse products with one vector, of all or by tensor. Raises GraphError for
    what no kernel can compute, or would need too much memory.
    """
    analysis = analyse(graph, lanes, choices, dtype)
    return assemble(lower(analysis, resolve(analysis)))
