"""The first pass: what is true of a graph, whatever lies in memory.

In: a graph, how many samples its end may take at once, measured choices of formats. Out: the shape and the readers of every
value; which values are computed for a whole batch, a lane for each sample; what each convolution reads; the format of each
product. Each is worked out once, so that the passes after this one take time in proportion to the nodes.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ticketsmith.runtime import formats
from ticketsmith.runtime.graph import BINARY, PRODUCTS, Graph, Node, Shape, conv_geometry
from ticketsmith.runtime.layout import LANES, Halo
from ticketsmith.runtime.ops import OPERATORS
from ticketsmith.runtime.winograd import Tiling

_LANE_IMAGE = 2048
"""Floats of an image with zeros around it, of which a lane each still fits the second cache with all that a layer reads and
writes."""


PART = "#columns from "
"""Between the name of a value and where a part of its columns begins."""


@dataclass(frozen=True, eq=False)
class Reach:
    """What a convolution reads.

    With stride s and padding p, kernel row k of output row r reads input row ``s r + d``, ``d = k - p`` ("far"): row
    ``r + d // s`` ("shift") of those whose index is ``d % s`` modulo s ("phase"). A convolution is ``direct`` when it can
    read its input where it is; otherwise the input is split first. ``beyond`` is how far it reads beyond its input itself.
    """

    direct: bool
    stride: tuple[int, int]
    groups: int
    far_r: NDArray[np.int64]
    far_c: NDArray[np.int64]
    shift_r: NDArray[np.int64]
    shift_c: NDArray[np.int64]
    phase_r: NDArray[np.int64]
    phase_c: NDArray[np.int64]
    halo: Halo
    beyond: Halo

    @classmethod
    def of(cls, graph: Graph, node: Node, shape: Shape) -> Reach:
        """Of a ``conv2d`` whose input has ``shape``."""
        stride, padding, dilation, groups = conv_geometry(node)
        kernel = graph.parameter(node, "weight").shape[2:]
        far = [np.arange(k) * d - p for k, d, p in zip(kernel, dilation, padding, strict=True)]
        shift = [d // s for d, s in zip(far, stride, strict=True)]
        same = all(
            n + 2 * p - d * (k - 1) == n for n, k, d, p in zip(shape[1:], kernel, dilation, padding, strict=True)
        )
        direct = stride == (1, 1) and same
        top, bottom = max(0, -int(shift[0].min())), max(0, int(shift[0].max()))
        halo = Halo(padding[1] if direct else 0, top, bottom)
        before = [max(0, -int(d.min())) for d in far]
        last = [(n + p - 1 - int(d.max())) // s * s for n, p, d, s in zip(shape[1:], padding, far, stride, strict=True)]
        behind = [max(0, begin + int(d.max()) - (n - 1)) for begin, d, n in zip(last, far, shape[1:], strict=True)]
        return cls(
            direct, stride, groups, far[0], far[1], shift[0], shift[1], far[0] % stride[0], far[1] % stride[1],
            halo, Halo(max(before[1], behind[1]), before[0], behind[0]),
        )  # fmt: skip

    @property
    def phases(self) -> list[tuple[int, int]]:
        """(row, column) of the phases that are read, in order."""
        return sorted({(int(r), int(c)) for r in self.phase_r for c in self.phase_c})

    def places(self, phases: list[tuple[int, int]]) -> NDArray[np.int64]:
        """[rows, columns of the kernel]: the place of each tap's phase in ``phases``."""
        return np.array([[phases.index((r, c)) for c in self.phase_c] for r in self.phase_r])

    def planes(self, outputs: int, inner: int) -> NDArray[np.int64]:
        """[outputs, or 1 if all read the same; inner, 1, 1]: the input planes of each output."""
        group = np.arange(outputs if self.groups > 1 else 1) // (outputs // self.groups)
        return (group[:, None] * inner + np.arange(inner))[:, :, None, None]

    def moves_rows(self, row: int) -> bool:
        """Whether to move sums by rows, too: where several rows are in a vector, one that begins with another row would be
        read from two cache lines. Moves are of less than a vector, and each has one meaning."""
        rows, cols = int(np.abs(self.shift_r).max()), int(np.abs(self.shift_c).max())
        return row < LANES and 2 * cols < row and rows * row + cols < LANES


@dataclass(frozen=True, eq=False)
class Analysis:
    """A graph with what was worked out about it. ``dtype`` is that of the weights of sparse products with one vector, of all or
    by tensor."""

    graph: Graph
    lanes: int
    choices: Mapping[str, str]
    dtype: str | Mapping[str, str]
    shapes: Mapping[str, Shape]
    batched: Set[str]
    """Values of a whole batch."""
    cold: bool
    """Whether weights come from memory in each call, since there are too many for caches."""
    reaches: Mapping[str, Reach]
    """Of convolutions, by their outputs."""
    tilings: Mapping[str, Tiling | None]
    """Of convolutions, by their outputs; None where Winograd's filtering cannot compute them."""

    def dtype_of(self, node: Node) -> str:
        """That of a product, as ``Model`` names precisions."""
        return self.dtype if isinstance(self.dtype, str) else self.dtype.get(node.weights["weight"], "float32")

    def attends_by_bytes(self, node: Node, heads: int) -> bool:
        """Whether attention of a sequence to itself multiplies whole numbers: where that was measured to be faster, in a network
        all of whose products do."""
        if not isinstance(self.dtype, str) or not formats.attention_fits(self.dtype, heads, self.shapes[node.output]):
            return False
        return self.choices.get(f"attention:{node.output}") == formats.ATTENTION_DOT

    def users(self, name: str) -> tuple[Node, ...]:
        """The nodes that read a value."""
        return self.graph.users.get(name, ())

    def flattens(self, node: Node) -> bool:
        """Whether a node makes a vector of whatever it reads."""
        return node.op in ("flatten", "reshape") and len(self.shapes[node.output]) == 1

    def rounds_lanes(self, node: Node) -> bool:
        """Whether a node multiplies whole numbers in lanes: vectors are then rounded before they are put there."""
        multiplies = node.op == "linear" and node.output in self.batched
        return multiplies and self.format(node, "lanes") in formats.WHOLE_FORMATS

    def format(self, node: Node, mode: str) -> str:
        """In which format a product is computed: as measured, or by rule of thumb. ``mode`` is vector, planes or lanes."""
        reach, tiling = self.reaches.get(node.output), self.tilings.get(node.output)
        shared = reach is None or reach.groups == 1
        choice, weight = (
            self.choices.get(f"{mode}:{node.output.partition(PART)[0]}"),
            self.graph.parameter(node, "weight"),
        )
        dot = formats.dot_fits(self.dtype_of(node), weight)
        if choice in formats.candidates(mode, shared, tiling is not None, dot):
            return choice
        return formats.default(mode, shared, weight, self.cold, tiling, dot)


def analyse(graph: Graph, lanes: int = 0, choices: Mapping[str, str] | None = None,
            dtype: str | Mapping[str, str] = "float32") -> Analysis:  # fmt: skip
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
        images = [shape for shape in values if len(shape) != 1]
        small = all(len(shape) == 3 and shape[0] * (shape[1] + 2) * (shape[2] + 2) <= _LANE_IMAGE for shape in images)
        if ("image" not in lanes or not small) and ("vector" not in lanes or images):
            continue
        if node.op in ("flatten", "reshape") and len(values[-1]) != 1:
            continue
        if node.attributes.get("step", 1) != 1:  # a copy, which knows nothing of lanes
            continue
        if node.op not in BINARY or values[0] == values[1]:
            names.add(node.output)
    return names if any(node.op in PRODUCTS and node.output in names for node in graph.nodes) else set()
