"""Decoding token by token: a model that remembers the keys and values of the tokens it has seen."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import numpy as np

from ticketsmith.errors import TicketSmithError
from ticketsmith.runtime.arrays import CHUNK
from ticketsmith.runtime.graph import Graph, GraphError, Node, Step
from ticketsmith.runtime.model import Model, as_array
from ticketsmith.runtime.ops import OPERATORS
from ticketsmith.runtime.plan import plan
from ticketsmith.runtime.program import InputError, Program

_FEWEST_FOR_CHUNK = 4
"""New tokens from which a chunk, though partly in vain, costs less than one token after another."""


class SessionError(TicketSmithError):
    """A model cannot be decoded token by token, or a session is full; the message says why."""


def step_graph(graph: Graph, batch: int = 1, tokens: int = 1, capacity: int | None = None) -> Graph:
    """What a session computes for ``tokens`` new ones of each of ``batch`` sequences.

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
    rewriter = _Stepper(graph, length, Step(batch, tokens, capacity))
    return rewriter.graph()


class _Stepper:
    """Every value is by token: its first axis is the tokens, or the tokens times what was behind them."""

    def __init__(self, graph: Graph, length: int, step: Step) -> None:
        self.source, self.length, self.step = graph, length, step
        self.shapes = graph.shapes()
        self.tensors = dict(graph.tensors)
        self.fixed: set[str] = set()
        self.nodes: list[Node] = []

    def graph(self) -> Graph:
        for node in self.source.nodes:
            self._add(node)
        for name in self.source.outputs:
            if name in self.fixed or self.shapes[name][0] != self.length:
                raise SessionError(f"the output {name!r} is not one row for each token.")
        rows = self.step.batch * self.step.tokens
        used = {key for node in self.nodes for key in node.weights.values()}
        return replace(
            self.source, shape=(rows, *self.source.shape[1:]), nodes=tuple(self.nodes), step=self.step,
            tensors={key: value for key, value in self.tensors.items() if key in used},
        )  # fmt: skip

    def _add(self, node: Node) -> None:
        shape = self.shapes[node.output]
        if node.op == "constant":
            self.fixed.add(node.output)
            self.nodes.append(node)
            return
        self._check(node)
        if node.op == "add_constant":
            value = self.source.parameter(node, "value")
            if len(value) != self.length or value.ndim != 2:
                raise SessionError(f"{node}: positions of shape {value.shape} are not one row for each token.")
            own = f"{node.output}.rows"
            self.nodes.append(Node("rows", (), own, {"value": self._table(node.weights["value"])}))
            self.nodes.append(Node("add", (node.inputs[0], own), node.output, {}, node.attributes))
        elif node.op == "rotary":
            tables = {name: self._table(key) for name, key in node.weights.items()}
            self.nodes.append(replace(node, weights=tables))
        elif node.op == "reshape":
            rows = shape[0] // self.length * self.step.batch * self.step.tokens
            self.nodes.append(replace(node, attributes={"shape": [rows, *shape[1:]]}))
        else:
            self.nodes.append(node)

    def _check(self, node: Node) -> None:
        shape = self.shapes[node.output]
        inputs = [self.shapes[name] for name in node.inputs if name not in self.fixed]
        constants = [self.shapes[name] for name in node.inputs if name in self.fixed]
        alike = all(one[0] % self.length == 0 for one in [shape, *inputs])
        if node.op not in ("reshape",):
            alike = alike and len({one[0] for one in [shape, *inputs]}) == 1
        # a constant is the same for every token
        fixed = all(len(one) < len(shape) or one[0] == 1 for one in constants)
        if not OPERATORS[node.op].by_token(node, len(shape)) or not alike or not fixed or not inputs:
            raise SessionError(
                f"{node}: it does not work token by token, so this model has no sessions. A decoder has causal attention, "
                "and everything else by token; its whole sequence can still be computed in one call."
            )

    def _table(self, name: str) -> str:
        """Positions, with rows for what a chunk computes in vain."""
        table = self.source.tensors[name]
        if len(table) < self.step.capacity:
            raise SessionError(
                f"the model has {len(table)} positions, fewer than the session's capacity of {self.step.capacity}: ask for "
                f"capacity={len(table)} or less, or make the graph from an example of {self.step.capacity} tokens."
            )
        padded = np.concatenate([table[: self.step.capacity], np.zeros((CHUNK, table.shape[1]), np.float32)])
        self.tensors[f"{name} of a step"] = padded
        return f"{name} of a step"


class Session:
    """``session(tokens)`` continues ``batch`` sequences by new tokens and gives what the model says after each of them.

    Keys and values are kept in memory that is planned once, with room for ``capacity`` tokens. A session is for one caller;
    any number of sessions may share a model.
    """

    def __init__(self, model: Model, batch: int = 1, capacity: int | None = None) -> None:
        self.model, self.batch = model, batch
        self.capacity = model.graph.shape[0] if capacity is None and model.graph.shape else capacity or 0
        self._step, self._chunk = (model.step_program(batch, tokens, self.capacity) for tokens in (1, CHUNK))
        self._memory = np.zeros(self._step.memory_floats, np.float32)
        self._features = model.shape[1:]
        self._guard = threading.Lock()
        self.length = 0

    def reset(self) -> None:
        """Forgets everything."""
        with self._guard:
            self.length = 0

    def __call__(self, tokens: Any) -> Any:
        """Outputs ``[batch, new, ...]`` for ``tokens`` ``[batch, new]``; a tuple for a model of several outputs.

        Raises InputError for arrays or tokens that do not fit, SessionError when there is no room: nothing is remembered
        then.
        """
        new = as_array(tokens, self.model.inputs[0], self._shape_of(tokens))
        count = new.shape[1]
        with self._guard:
            if self.length + count > self.capacity:
                raise SessionError(
                    f"the session has seen {self.length} tokens and has room for {self.capacity}: {count} more do not fit. "
                    "Forget them with reset(), or begin a session with more capacity."
                )
            outputs = tuple(np.empty((self.batch, count, *shape[1:]), np.float32) for shape in self.model.output_shapes)
            begin = 0
            while begin < count:
                rest = count - begin
                size, program = (CHUNK, self._chunk) if rest >= _FEWEST_FOR_CHUNK else (1, self._step)
                done = min(size, rest)
                rows = np.zeros((self.batch, size, *self._features), new.dtype)
                rows[:, :done] = new[:, begin : begin + done]
                made = [np.empty((self.batch, size, *shape[1:]), np.float32) for shape in self.model.output_shapes]
                program.call([rows], made, 1, self.model.threads, self._memory, self.length + begin)
                for out, part in zip(outputs, made, strict=True):
                    out[:, begin : begin + done] = part[:, :done]
                begin += done
            self.length += count
        return outputs[0] if len(outputs) == 1 else outputs

    def _shape_of(self, tokens: Any) -> tuple[int, ...]:
        given = tuple(getattr(tokens, "shape", ()))
        if len(given) != 2 + len(self._features) or given[0] != self.batch or given[2:] != self._features:
            wanted = (self.batch, "new", *self._features)
            raise InputError(f"tokens have the shape {given}; the session takes {wanted}.")
        return given


def step_program(model: Model, batch: int, tokens: int, capacity: int) -> Program:
    """The program of one step. Raises SessionError."""
    try:
        graph = step_graph(model.graph, batch, tokens, capacity)
        return Program(graph, plan(graph, 0, model.choices, model.precision), model.isa)
    except GraphError as error:
        raise SessionError(f"no session of {batch} x {capacity} tokens can be made: {error}") from error
