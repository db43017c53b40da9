"""Samples of a batch side by side: tokens of several sequences share the columns of a value, so that fewer columns of its last
vector are computed in vain. What mixes tokens keeps the samples apart.

In: a graph of one sample. Out: a graph whose sample is a group of them: the same arrays, one behind the other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ticketsmith.runtime.graph import Graph, Node, Port, Shape, attention_heads
from ticketsmith.runtime.layout import up

_MOST_COLUMNS, _MOST_SAMPLES = 400, 8
"""Of a group: with more, queries, keys and values of a layer would leave the second cache; and what is computed for each sample
would be packed too often."""

_WORTH = 0.93
"""Of the columns without groups, so many or fewer must be left."""

_MOST_NUMBERS = 2**20
"""Of an input of a group: as far as attributes of nodes can count."""

_TOGETHER = (
    "linear",
    "layer_norm",
    "rms_norm",
    "affine",
    "activation",
    "add",
    "sub",
    "mul",
    "add_constant",
    "embedding",
)
"""What computes token by token, and in the same way for each, or from a table that can be repeated."""


def group_of(graph: Graph) -> int:
    """How many samples to take together; 1 where that would not be worth it, or cannot be."""
    tokens = _tokens(graph)
    if not tokens or graph.step is not None:
        return 1
    sizes = range(1, max(1, min(_MOST_SAMPLES, _MOST_COLUMNS // tokens)) + 1)
    best = min(sizes, key=lambda count: up(count * tokens) / count)
    if up(best * tokens) > _WORTH * best * up(tokens):
        return 1
    return best if _Rewriter(graph, tokens, best).fits() else 1


def group_graph(graph: Graph, count: int) -> Graph:
    """``graph`` for ``count`` samples at once: each input and output has them one behind the other."""
    rewriter = _Rewriter(graph, _tokens(graph), count)
    rewriter.fits()
    return rewriter.graph()


def group_choices(choices: Mapping[str, str], count: int) -> dict[str, str]:
    """``choices``, also for what the graph of a group computes for each sample."""
    return {**choices, **{_of(key, index): name for key, name in choices.items() for index in range(count)}}


def _of(name: str, index: int) -> str:
    return f"{name}@{index}"


def _tokens(graph: Graph) -> int:
    """Of the sequences that attend to themselves; 0 where there are none, or of several lengths, or other attention."""
    shapes, lengths = graph.shapes(), set()
    for node in graph.nodes:
        if node.op == "attention":
            heads, shared = attention_heads(node)
            same = len(node.inputs) == 3 and len({shapes[name] for name in node.inputs}) == 1 and heads == shared
            lengths.add(shapes[node.output][0] if same else 0)
    return lengths.pop() if len(lengths) == 1 else 0


class _Rewriter:
    """Values are constant, of each sample alone (``@0``, ``@1``, ...), or of all together: [count * tokens, features]."""

    def __init__(self, graph: Graph, tokens: int, count: int) -> None:
        self.source, self.tokens, self.count = graph, tokens, count
        self.shapes = graph.shapes()
        self.tensors = dict(graph.tensors)
        self.nodes: list[Node] = []
        self.ports: list[Port] = []
        self.constants: set[str] = set()
        self.together: set[str] = set()
        self.known: set[str] = set()
        """Of the new graph."""

    def fits(self) -> bool:
        """Rewrites all; whether it can be, and nothing that is computed for each sample stands between what is not."""
        behind: set[str] = set()
        for port in self.source.inputs:
            if not self._input(port):
                return False
        for node in self.source.nodes:
            if node.op == "constant":
                self.constants.add(node.output)
                self.nodes.append(node)
            elif self._joins(node) and not behind.intersection(node.inputs):
                self._join(node)
            elif node.op in ("attention", "embedding"):
                return False
            else:
                if not behind.isdisjoint(node.inputs) or not self.together.isdisjoint(node.inputs):
                    behind.add(node.output)
                self._repeat(node)
        return not self.constants.intersection(self.source.outputs)

    def graph(self) -> Graph:
        outputs = [self._output(name) for name in self.source.outputs]
        (first, *more), used = self.ports, {key for node in self.nodes for key in node.weights.values()}
        return Graph(
            first.name, first.shape, first.dtype, tuple(self.nodes), outputs[0],
            {key: value for key, value in self.tensors.items() if key in used}, tuple(more), tuple(outputs[1:]),
            ranges=self.source.ranges,
        )  # fmt: skip

    def _input(self, port: Port) -> bool:
        shape: Shape = port.shape or (1,)
        joined = shape[0] == self.tokens and len(shape) == (1 if port.dtype == "int64" else 2)
        if joined:
            self.together.add(port.name)
            shape = (self.count * shape[0], *shape[1:])
        elif port.dtype != "float32" or self.count * math.prod(shape) > _MOST_NUMBERS:
            return False
        else:
            shape = (self.count * math.prod(shape),)
        self.ports.append(Port(port.name, shape, port.dtype))
        return True

    def _joins(self, node: Node) -> bool:
        """Whether a node computes token by token, or is attention."""
        sequences = [name for name in node.inputs if name not in self.constants]
        rows = {self.shapes[name][0] for name in (*sequences, node.output)}
        ranks = {len(self.shapes[name]) for name in (*(() if node.op == "embedding" else sequences), node.output)}
        same = all(
            len(self.shapes[name]) < 2 or self.shapes[name][0] == 1 for name in node.inputs if name in self.constants
        )
        features = node.op == "slice" and node.attributes.get("axis", 1) == 1
        return (features or node.op in (*_TOGETHER, "attention")) and rows == {self.tokens} and ranks == {2} and same

    def _join(self, node: Node) -> None:
        attributes, weights = dict(node.attributes), dict(node.weights)
        if node.op == "attention":
            attributes["sequences"] = self.count
        if node.op == "add_constant":
            key = f"{weights['value']} of {self.count}"
            value = self.source.parameter(node, "value")
            weights["value"], self.tensors[key] = key, np.tile(value, (self.count, 1)) if value.ndim == 2 else value
        inputs = [name if name in self.constants else self._all(name) for name in node.inputs]
        self.together.add(node.output)
        self.nodes.append(Node(node.op, tuple(inputs), node.output, weights, attributes))

    def _repeat(self, node: Node) -> None:
        for index in range(self.count):
            (name, *_), attributes = node.inputs, node.attributes
            if node.op == "slice" and name in self.together and attributes.get("axis", 1) == 0:  # from where it lies
                first = index * self.tokens
                moved = {one: attributes[one] + first for one in ("begin", "end")}
                self._add(Node("slice", (name,), _of(node.output, index), {}, {**attributes, **moved}))
            else:
                inputs = tuple([self._one(one, index) for one in node.inputs])
                self._add(replace(node, inputs=inputs, output=_of(node.output, index)))

    def _add(self, node: Node) -> str:
        if node.output not in self.known:
            self.known.add(node.output)
            self.nodes.append(node)
        return node.output

    def _one(self, name: str, index: int) -> str:
        """The value ``name`` of one sample."""
        if name in self.constants:
            return name
        shape, one = self.shapes[name], _of(name, index)
        if name in self.together:
            begin = index * self.tokens
            return self._add(
                Node("slice", (name,), one, {}, {"axis": 0, "begin": begin, "end": begin + self.tokens, "step": 1})
            )
        if all(port.name != name for port in self.ports):
            return one
        size = math.prod(shape)
        part = self._add(
            Node(
                "slice",
                (name,),
                f"{one} flat",
                {},
                {"axis": 0, "begin": index * size, "end": (index + 1) * size, "step": 1},
            )
        )
        return self._add(Node("reshape", (part,), one, {}, {"shape": list(shape)}))

    def _all(self, name: str) -> str:
        """The value ``name`` of all samples."""
        if name in self.together:
            return name
        parts = tuple([self._one(name, index) for index in range(self.count)])
        return self._add(Node("concat", parts, f"{name} together", {}, {"axis": 0}))

    def _output(self, name: str) -> str:
        if name in self.together:
            return name
        size = math.prod(self.shapes[name])
        parts = [self._one(name, index) for index in range(self.count)]
        if len(self.shapes[name]) > 1:
            parts = [self._add(Node("reshape", (part,), f"{part} flat", {}, {"shape": [size]})) for part in parts]
        return self._add(Node("concat", tuple(parts), f"{name} together", {}, {"axis": 0}))
