"""A pass over a graph, node by node, that keeps its function."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ticketsmith.runtime.graph import Graph, Node, Shape


class Rewriter:
    """Goes through the nodes once, in order; ``rewrite`` returns what takes a node's place."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.shapes = graph.shapes()
        self.uses = Counter(name for node in graph.nodes for name in node.inputs)
        self.uses.update(graph.outputs)
        self.done: list[Node] = []
        self.makers: dict[str, Node] = {}
        self.renamed: dict[str, str] = {}
        self.tensors = dict(graph.tensors)
        self.ports = {port.name for port in graph.inputs}

    def run(self) -> Graph:
        for node in self.graph.nodes:
            node = replace(node, inputs=tuple(self.renamed.get(name, name) for name in node.inputs))
            replacement = self.rewrite(node)
            if isinstance(replacement, str):  # the same as a value that is there already
                if replacement in self.ports and node.output in self.graph.outputs:
                    self.keep(node)
                else:
                    self.renamed[node.output] = replacement
            else:
                self.keep(node if replacement is None else replacement)
        outputs = [self.renamed.get(name, name) for name in self.graph.outputs]
        nodes = _alive(self.done, outputs)
        used = {key for node in nodes for key in node.weights.values()}
        tensors = {key: value for key, value in self.tensors.items() if key in used}
        first, *more = outputs
        return replace(self.graph, nodes=tuple(nodes), output=first, more_outputs=tuple(more), tensors=tensors)

    def rewrite(self, node: Node) -> Node | str | None:
        """Another node for the same output, the name of a value that is the same, or None to keep it."""
        raise NotImplementedError

    def keep(self, node: Node) -> None:
        self.done.append(node)
        self.makers[node.output] = node

    def before(self, name: str, op: str, value: str, inner: Shape, /, **attributes: Any) -> str:
        """A node more, ahead of the one that is rewritten; its output."""
        self.shapes[name] = inner
        self.keep(Node(op, (value,), name, {}, attributes))
        return name

    def maker(self, name: str, *ops: str) -> Node | None:
        """What computes a value, if it is one of these operators."""
        node = self.makers.get(name)
        return node if node is not None and node.op in ops else None

    def constant(self, name: str) -> np.ndarray | None:
        node = self.maker(name, "constant")
        return None if node is None else self.tensors[node.weights["value"]]

    def uniform(self, node: Node) -> tuple[float, float] | None:
        """The scale and shift of an affine map that is the same everywhere."""
        if node.op != "affine" or node.activation != "linear":
            return None
        scale, shift = (self.tensors[node.weights[name]] for name in ("scale", "shift"))
        if (scale != scale[0]).any() or (shift != shift[0]).any():
            return None
        return float(scale[0]), float(shift[0])

    def store(self, name: str, value: np.ndarray) -> str:
        self.tensors[name] = np.ascontiguousarray(value, np.float32)
        return name

    def order(self, name: str, output: str, axes: Sequence[int], shape: Shape) -> str:
        """``name`` with its axes in another order, and then as ``shape``."""
        turned = tuple(self.shapes[name][axis] for axis in axes)
        permuted = self.before(f"{output}.turned", "permute", name, turned, axes=list(axes))
        return self.before(f"{output}.flat", "reshape", permuted, shape, shape=list(shape))


def _alive(nodes: Sequence[Node], outputs: Sequence[str]) -> list[Node]:
    needed, alive = set(outputs), []
    for node in reversed(nodes):
        if node.output in needed:
            needed.update(node.inputs)
            alive.append(node)
    return alive[::-1]
