"""Long sequences by parts: between two attentions every token is computed by itself, so that a few columns go all the way before
the next ones begin, and what lies between stays in the second cache.

In: the nodes of a graph in their order. Out: runs of them, and the lowering of a run for one part of the columns after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from ticketsmith.runtime.analysis import PART
from ticketsmith.runtime.formats import WHOLE_FORMATS
from ticketsmith.runtime.graph import Node
from ticketsmith.runtime.layout import LANES
from ticketsmith.runtime.lower.lowering import Lowering
from ticketsmith.runtime.operands import Tensor

_MOST_VECTORS, _WIDE = 5, 8
"""Of the columns of a part, and of those that are computed at once."""

_OPERATORS = ("linear", "layer_norm", "rms_norm", "affine", "activation", "add", "sub", "mul")


def runs(lowering: Lowering) -> Iterator[tuple[Node, ...]]:
    """The nodes in their order: those that are lowered by parts together, others one by one."""
    run: list[Node] = []
    for node in lowering.graph.nodes:
        shapes = [lowering.shapes[name] for name in (*node.inputs, node.output)]
        tokens = shapes[-1][0]
        wide = len(shapes[-1]) == 2 and tokens > _WIDE * LANES and node.output not in lowering.analysis.batched
        alike = {(len(shape), shape[0]) for shape in shapes} == {(2, tokens)}
        if not (wide and alike and node.op in _OPERATORS) or not lowering.constants.keys().isdisjoint(node.inputs):
            yield from _cut(run, lowering)
            yield (node,)
            run = []
        elif any(lowering.shapes[one.output][0] != tokens for one in run[:1]):
            yield from _cut(run, lowering)
            run = [node]
        else:
            run.append(node)
    yield from _cut(run, lowering)


def _cut(run: list[Node], lowering: Lowering) -> Iterator[tuple[Node, ...]]:
    """What is rounded is rounded as it lies, whole: products of whole numbers that begin a run stand before it."""
    inside = {node.output for node in run}
    while run and _rounds(run[0], lowering) and run[0].inputs[0] not in inside:
        inside.discard(run[0].output)
        yield (run.pop(0),)
    if len(run) > 1:
        yield tuple(run)
    else:
        yield from ((node,) for node in run)


def _rounds(node: Node, lowering: Lowering) -> bool:
    return node.op == "linear" and lowering.analysis.format(node, "planes") in WHOLE_FORMATS


def by_parts(run: tuple[Node, ...], lowering: Lowering, lower: Callable[[Node], None]) -> None:
    """Lowers ``run`` for a few columns after the other. What others read of it lies whole, the rest only as wide as a part."""
    inside = {node.output for node in run}
    tokens = lowering.shapes[run[0].output][0]
    whole: dict[str, Tensor] = {}
    for node in run:
        for name in node.inputs:
            if name not in inside:
                whole[name] = lowering.read(name, node)
        users = lowering.analysis.users(node.output)
        if node.output in lowering.graph.outputs or any(user.output not in inside for user in users):
            whole[node.output] = lowering.new(node)
    vectors = -(-tokens // LANES)
    count = -(-vectors // _MOST_VECTORS)
    for index in range(count):
        begin, end = (min(tokens, vectors * one // count * LANES) for one in (index, index + 1))
        names = {name: f"{name}{PART}{begin}" for name in (*inside, *whole)}
        for name, part in names.items():
            lowering.shapes[part] = (end - begin, lowering.shapes[name][1])
            if name in whole:
                lowering.tensors[part] = whole[name].columns(begin, end)
        for node in run:
            inputs = tuple([names[name] for name in node.inputs])
            lower(replace(node, inputs=inputs, output=names[node.output]))
