"""Sequences: tables that tokens read, attention, and recurrent layers, unrolled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ticketsmith.runtime.builder import arrays, pointwise, products, reductions
from ticketsmith.runtime.builder.core import HIDDEN, Array, Builder, Value

_MOST_ENTRIES = 2**14
"""Of a table that is read at computed places, by a product with all of it."""


def embedding(b: Builder, table: Array, tokens: Value) -> Value:
    """Rows of ``table`` [entries, features]."""
    if not isinstance(table, np.ndarray) or table.ndim != 2:
        raise ValueError("a table that is computed")
    if not tokens.integer or len(tokens.inner) != 1:
        return _lookup(b, table, tokens)
    inner = (tokens.inner[0], table.shape[1])
    name = b.emit("embedding", [tokens.name], inner, {"table": table})
    return Value(name, (*tokens.shape, table.shape[1]), inner, tokens.batch)


def one_hot(b: Builder, places: Value, count: int) -> Value:
    """Of each place, zeros and a one, ``[..., count]``."""
    return pointwise.apply(b, "equal", arrays.unsqueeze(places, (-1,)), np.arange(count, dtype=np.float32))


def _lookup(b: Builder, table: Array, places: Value) -> Value:
    """At places that are computed, or that are a part of an input. Not a number where there is no such row."""
    if len(table) > _MOST_ENTRIES:
        raise ValueError(
            f"a table of {len(table):,} rows is read at places that are computed, or a part of an input; more than "
            f"{_MOST_ENTRIES:,} need an input of their own"
        )
    hot = one_hot(b, places, len(table))
    rows = products.linear(b, hot, np.ascontiguousarray(table.T))
    return pointwise.apply(b, "div", rows, reductions.reduce(b, "sum", hot, [len(hot.shape) - 1], True))


def attention(b: Builder, query: Value, key: Value | Array, value: Value | Array, mask: Value | Array | None, causal: bool,
              scale: float) -> Value:  # fmt: skip
    """Of [batch, heads, tokens, width]; ``mask`` is added to the scores and has up to four axes."""
    if any(len(one.shape) != 4 or one.shape[0] != 1 for one in (query, key, value)):
        return _attention_by_products(b, query, key, value, mask, causal, scale)
    names = []
    for one in (query, key, value):
        _, heads, tokens, width = one.shape
        turned = arrays.permute(b, one, (0, 2, 1, 3)) if isinstance(one, Value) else one.transpose(0, 2, 1, 3)
        names.append(b.at(turned, (tokens, heads * width)))
    if mask is not None:
        full = (1,) * (4 - len(mask.shape)) + mask.shape
        if full[0] != 1:
            raise ValueError("a mask for another batch")
        names.append(b.at(mask, full[1:]))
    heads, tokens, width = query.shape[1], query.shape[2], value.shape[3]
    inner = (tokens, heads * width)
    attributes: dict[str, Any] = {"heads": heads, "causal": bool(causal), "scale": float(scale)}
    if key.shape[1] != heads:
        attributes["shared_heads"] = key.shape[1]
    mixed = Value(b.emit("attention", names, inner, **attributes), (1, tokens, heads, width), inner, 0)
    return arrays.permute(b, mixed, (0, 2, 1, 3))


def _attention_by_products(b: Builder, query: Value, key: Any, value: Any, mask: Any, causal: bool, scale: float
                           ) -> Value:  # fmt: skip
    """For any axes before tokens and width."""
    if not isinstance(key, Value) or not isinstance(value, Value):
        raise ValueError("keys or values that are constants")
    axes = [*range(len(key.shape) - 2), len(key.shape) - 1, len(key.shape) - 2]
    scores = pointwise.apply(b, "mul", products.matmul(b, query, arrays.permute(b, key, axes)), scale)
    if causal:
        mask = np.where(np.tri(query.shape[-2], key.shape[-2], dtype=bool), 0, HIDDEN).astype(np.float32)
    if mask is not None:
        scores = pointwise.apply(b, "add", scores, mask)
    return products.matmul(b, reductions.softmax(b, scores, -1), value)


_MOST_STEPS = 1024

State = tuple[Value | Array, ...]
"""What goes from step to step: the hidden values ``[batch, hidden]``, and an LSTM's cell values."""


@dataclass(frozen=True)
class Direction:
    """The weights of one direction: ``inputs`` [gates * hidden, features], ``hidden`` [gates * hidden, hidden], the biases
    of both, and the first state."""

    inputs: Array
    hidden: Array
    input_bias: Array
    hidden_bias: Array
    start: State
    backwards: bool = False


@dataclass(frozen=True)
class Cell:
    """``kind`` is LSTM, GRU or RNN. ``reset_after``: a GRU's reset gate acts on the product, as in cuDNN and PyTorch."""

    kind: str
    reset_after: bool = True
    activation: str = "tanh"


def unroll(b: Builder, cell: Cell, x: Value, directions: Sequence[Direction]) -> list[Value]:
    """Outputs ``[steps, directions, batch, hidden]`` of ``x`` ``[steps, batch, features]``, then the last states
    ``[directions, batch, hidden]``."""
    if x.shape[0] > _MOST_STEPS:
        raise ValueError(f"{x.shape[0]} steps; {_MOST_STEPS} are unrolled at most")
    outputs, last = [], []
    for direction in directions:
        hidden, end = _one_way(b, cell, x, direction)
        outputs.append(arrays.concat(b, [arrays.unsqueeze(one, (0, 1)) for one in hidden], 0))
        last.append([arrays.unsqueeze(one, (0,)) for one in end])
    return [_join(b, outputs, 1), *(_join(b, states, 0) for states in zip(*last, strict=True))]


def _join(b: Builder, parts: Sequence[Value], axis: int) -> Value:
    return arrays.concat(b, parts, axis) if len(parts) > 1 else parts[0]


def _one_way(b: Builder, cell: Cell, x: Value, weights: Direction) -> tuple[list[Value], list[Value]]:
    """The hidden values after each step, in the order of the sequence, and the last states."""
    from_inputs = products.linear(b, x, weights.inputs, weights.input_bias)
    hidden: dict[int, Value] = {}
    state = weights.start
    steps = range(x.shape[0])
    for step in reversed(steps) if weights.backwards else steps:
        state = _STEPS[cell.kind](b, cell, arrays.select(b, from_inputs, 0, step), weights, state)
        hidden[step] = _computed(state[0])
    return [hidden[step] for step in steps], [_computed(one) for one in state]


def _computed(value: Value | Array) -> Value:
    assert isinstance(value, Value)
    return value


def _product(b: Builder, hidden: Value | Array, weight: Array, bias: Array) -> Value | Array:
    if isinstance(hidden, Value):
        return products.linear(b, hidden, weight, bias)
    product: Array = hidden @ weight.T + bias
    return product


def _gates(b: Builder, value: Value | Array, count: int) -> list[Any]:
    if isinstance(value, Value):
        return list(arrays.split(b, value, [value.shape[-1] // count] * count, -1))
    return np.split(value, count, -1)


def _lstm(b: Builder, cell: Cell, from_input: Value, weights: Direction, state: State) -> State:
    """Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000; gates in ONNX's order."""
    total = pointwise.apply(b, "add", from_input, _product(b, state[0], weights.hidden, weights.hidden_bias))
    enter, leave, keep, new = _gates(b, total, 4)
    old = pointwise.apply(b, "mul", pointwise.unary(b, "sigmoid", keep), state[1])
    entered = pointwise.apply(b, "mul", pointwise.unary(b, "sigmoid", enter), pointwise.unary(b, "tanh", new))
    memory = pointwise.apply(b, "add", old, entered)
    return pointwise.apply(b, "mul", pointwise.unary(b, "sigmoid", leave), pointwise.unary(b, "tanh", memory)), memory


def _gru(b: Builder, cell: Cell, from_input: Value, weights: Direction, state: State) -> State:
    """Cho et al. 2014; gates in ONNX's order."""
    size = weights.hidden.shape[1]
    update_x, reset_x, new_x = _gates(b, from_input, 3)
    both = _product(b, state[0], weights.hidden[: 2 * size], weights.hidden_bias[: 2 * size])
    update_h, reset_h = _gates(b, both, 2)
    update = pointwise.unary(b, "sigmoid", pointwise.apply(b, "add", update_x, update_h))
    reset = pointwise.unary(b, "sigmoid", pointwise.apply(b, "add", reset_x, reset_h))
    weight, bias = weights.hidden[2 * size :], weights.hidden_bias[2 * size :]
    if cell.reset_after:
        candidate: Value | Array = pointwise.apply(b, "mul", reset, _product(b, state[0], weight, bias))
    else:
        candidate = _product(b, pointwise.apply(b, "mul", reset, state[0]), weight, bias)
    new = pointwise.unary(b, "tanh", pointwise.apply(b, "add", new_x, candidate))
    change = pointwise.apply(b, "mul", update, pointwise.apply(b, "sub", state[0], new))
    return (pointwise.apply(b, "add", new, change),)


def _rnn(b: Builder, cell: Cell, from_input: Value, weights: Direction, state: State) -> State:
    """Elman 1990."""
    total = pointwise.apply(b, "add", from_input, _product(b, state[0], weights.hidden, weights.hidden_bias))
    return (pointwise.unary(b, cell.activation, total),)


_STEPS = {"LSTM": _lstm, "GRU": _gru, "RNN": _rnn}
