"""The first pass: what is true of a graph, whatever lies in memory.

In: a graph, how many samples its end may take at once, measured choices of formats. Out: the shape and the readers of every
value; which values are computed for a whole batch, a lane for each sample; what each convolution reads; the format of each
product. Each is worked out once, so that the passes after this one take time in proportion to the nodes.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass

from ticketsmith.runtime import formats
from ticketsmith.runtime.graph import BINARY, PRODUCTS, Graph, Node, Shape
from ticketsmith.runtime.ops import OPERATORS
from ticketsmith.runtime.reach import Reach
from ticketsmith.runtime.winograd import Tiling

_LANE_IMAGE = 2048
"""Floats of an image, of which a lane each still fits the second cache with all that a layer reads and writes."""


@dataclass(frozen=True, eq=False)
class Analysis:
    """A graph with what was worked out about it. ``dtype`` is that of the weights of sparse products with one vector."""

    graph: Graph
    lanes: int
    choices: Mapping[str, str]
    dtype: str
    shapes: Mapping[str, Shape]
    batched: Set[str]
    """Values of a whole batch."""
    cold: bool
    """Whether weights come from memory in each call, since there are too many for caches."""
    reaches: Mapping[str, Reach]
    """Of convolutions, by their outputs."""
    tilings: Mapping[str, Tiling | None]
    """Of convolutions, by their outputs; None where Winograd's filtering cannot compute them."""

    def users(self, name: str) -> tuple[Node, ...]:
        """The nodes that read a value."""
        return self.graph.users.get(name, ())

    def flattens(self, node: Node) -> bool:
        """Whether a node makes a vector of whatever it reads."""
        return node.op in ("flatten", "reshape") and len(self.shapes[node.output]) == 1

    def format(self, node: Node, mode: str) -> str:
        """In which format a product is computed: as measured, or by rule of thumb. ``mode`` is vector, planes or lanes."""
        reach, tiling = self.reaches.get(node.output), self.tilings.get(node.output)
        shared = reach is None or reach.groups == 1
        choice = self.choices.get(f"{mode}:{node.output}")
        if choice in formats.candidates(mode, shared, tiling is not None):
            return choice
        return formats.default(mode, shared, self.graph.parameter(node, "weight"), self.cold, tiling)


def analyse(graph: Graph, lanes: int = 0, choices: Mapping[str, str] | None = None, dtype: str = "float32") -> Analysis:
    """With ``lanes``, the end of the network takes up to that many samples at once. Raises GraphError as ``shapes`` does."""
    shapes = graph.shapes()
    images = {node.output: (node, shapes[node.inputs[0]]) for node in graph.nodes if node.op == "conv2d"}
    return Analysis(
        graph, lanes, choices or {}, dtype, shapes,
        batched=lane_nodes(graph) if lanes else frozenset(),
        cold=formats.cold(graph),
        reaches={name: Reach.of(graph, node, shape) for name, (node, shape) in images.items()},
        tilings={name: Tiling.of(graph, node, shape) for name, (node, shape) in images.items()},
    )  # fmt: skip


def lane_nodes(graph: Graph) -> set[str]:
    """Outputs of the nodes at the end of ``graph`` that can be computed for many samples at once: those of vectors, and
    before them those of small images."""
    shapes = graph.shapes()
    names: set[str] = set()
    for node in reversed(graph.nodes):
        values = [shapes[name] for name in (*node.inputs, node.output)]
        if any(user.output not in names for user in graph.users.get(node.output, ())):
            continue
        lanes = OPERATORS[node.op].lanes
        vectors = "vector" in lanes and all(len(shape) == 1 for shape in values)
        if not vectors and not ("image" in lanes and all(_small(shape) for shape in values)):
            continue
        if node.op in ("flatten", "reshape") and len(values[-1]) != 1:
            continue
        if node.op not in BINARY or values[0] == values[1]:
            names.add(node.output)
    return names if any(node.op in PRODUCTS and node.output in names for node in graph.nodes) else set()


def _small(shape: Shape) -> bool:
    if len(shape) == 3:  # with zeros around
        return shape[0] * (shape[1] + 2) * (shape[2] + 2) <= _LANE_IMAGE
    return len(shape) == 1
