"""Tables that tokens read, and attention."""

from __future__ import annotations

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
    return pointwise.apply(b, "equal", arrays.unsqueeze(b, places, (-1,)), np.arange(count, dtype=np.float32))


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


def _attention_by_products(
    b: Builder, query: Value, key: Any, value: Any, mask: Any, causal: bool, scale: float
) -> Value:
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
