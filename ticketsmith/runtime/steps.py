"""A decoder for whole sequences as the step of a session: a few new tokens, after those that came before."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ticketsmith.errors import TicketSmithError
from ticketsmith.runtime.graph import Graph, Node, Step
from ticketsmith.runtime.ops import OPERATORS

CHUNK = 32
"""Tokens that a session takes at once when there are many."""


class SessionError(TicketSmithError):
    """A model cannot be decoded token by token, or a session is full; the message says why."""


def step_graph(graph: Graph, batch: int = 1, tokens: int = 1, capacity: int | None = None) -> Graph:
    """What a session computes for ``tokens`` new ones of each of ``batch`` sequences: values [tokens, ...] become
    [batch * tokens, ...].

    ``graph`` is a decoder for whole sequences: causal attention, and everything else by token. Raises SessionError for one
    that mixes tokens in another way, or that has no positions for ``capacity`` tokens (by default as many as it has).
    """
    length = graph.shape[0] if graph.shape else 0
    if graph.more_inputs or len(graph.shape) not in (1, 2) or length < 2:
        raise SessionError("a session needs a model of one input: two tokens or more.")
    capacity = length if capacity is None else capacity
    if not 1 <= capacity <= 2**20:
        raise SessionError(f"a session has room for 1 to {2**20} tokens, not {capacity}.")
    if not 1 <= batch <= 1024:
        raise SessionError(f"a session decodes 1 to 1024 sequences at once, not {batch}.")
    return _Rewriter(graph, length, Step(batch, tokens, capacity)).graph()


class _Rewriter:
    """Every value is by token: its first axis is the tokens, or the tokens times what was behind them."""

    def __init__(self, graph: Graph, length: int, step: Step) -> None:
        self.source, self.length, self.step = graph, length, step
        self.shapes = graph.shapes()
        self.tensors = dict(graph.tensors)
        self.constants: set[str] = set()
        self.nodes: list[Node] = []

    def graph(self) -> Graph:
        for node in self.source.nodes:
            self._add(node)
        for name in self.source.outputs:
            if name in self.constants or self.shapes[name][0] != self.length:
                raise SessionError(f"the output {name!r} is not one row for each token.")
        rows = self.step.batch * self.step.tokens
        used = {key for node in self.nodes for key in node.weights.values()}
        return replace(
            self.source, shape=(rows, *self.source.shape[1:]), nodes=tuple(self.nodes), step=self.step,
            tensors={key: value for key, value in self.tensors.items() if key in used},
        )  # fmt: skip

    def _add(self, node: Node) -> None:
        if node.op == "constant":
            self.constants.add(node.output)
            self.nodes.append(node)
            return
        self._check(node)
        if node.op == "add_constant":
            value = self.source.parameter(node, "value")
            if len(value) != self.length or value.ndim != 2:
                raise SessionError(f"{node}: positions of shape {value.shape} are not one row for each token.")
            rows = f"{node.output}.rows"
            self.nodes.append(Node("rows", (), rows, {"value": self._table(node.weights["value"])}))
            node = Node("add", (node.inputs[0], rows), node.output, {}, node.attributes)
        elif node.op == "rotary":
            node = replace(node, weights={name: self._table(key) for name, key in node.weights.items()})
        elif node.op == "reshape":
            first, *others = self.shapes[node.output]
            shape = [first // self.length * self.step.batch * self.step.tokens, *others]
            node = replace(node, attributes={"shape": shape})
        self.nodes.append(node)

    def _check(self, node: Node) -> None:
        """Raises SessionError for a node that mixes tokens."""
        shape = self.shapes[node.output]
        inputs = [self.shapes[name] for name in node.inputs if name not in self.constants]
        constants = [self.shapes[name] for name in node.inputs if name in self.constants]
        rows = [one[0] for one in (shape, *inputs)]
        by_token = all(n % self.length == 0 for n in rows) and (node.op == "reshape" or len(set(rows)) == 1)
        # a constant is the same for every token
        same = all(len(one) < len(shape) or one[0] == 1 for one in constants)
        if not (inputs and by_token and same and OPERATORS[node.op].by_token(node, len(shape))):
            raise SessionError(
                f"{node}: it does not work token by token, so this model has no sessions. A decoder has causal attention, "
                "and everything else by token; its whole sequence can still be computed in one call."
            )

    def _table(self, name: str) -> str:
        """Positions, with rows for what a chunk computes in vain."""
        table, capacity = self.source.tensors[name], self.step.capacity
        if len(table) < capacity:
            raise SessionError(
                f"the model has {len(table)} positions, fewer than the session's capacity of {capacity}: ask for "
                f"capacity={len(table)} or less, or make the graph from an example of {capacity} tokens."
            )
        rows = f"{name} of a step"
        self.tensors[rows] = np.concatenate([table[:capacity], np.zeros((CHUNK, table.shape[1]), np.float32)])
        return rows
