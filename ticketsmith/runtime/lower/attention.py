"""Attention, and what tells it of positions.

In: a node that works on tokens [tokens, heads * width] of one sample, or of the sequences of a session's step. Out: the
instructions; in a step, keys and values go to the session's memory first.
"""

from __future__ import annotations

import math
from dataclasses import replace

from ticketsmith.native import abi
from ticketsmith.native.abi import Space
from ticketsmith.runtime import layout
from ticketsmith.runtime.graph import Node, attention_heads
from ticketsmith.runtime.lower.arrays import copy, map_
from ticketsmith.runtime.lower.lowering import Lowering
from ticketsmith.runtime.operands import Tensor, View, compact
from ticketsmith.runtime.steps import CHUNK


def rows(node: Node, lowering: Lowering) -> None:
    """The rows of a table that belong to the tokens."""
    out, table = lowering.new_view(node), _table(node, "value", lowering)
    copy(table, out.split_tokens(table.shape), lowering)


def rotary(node: Node, lowering: Lowering) -> None:
    """Pairs turned by their tables: ``x * cos``, then ``swapped * sin`` on top."""
    source, out = lowering.read_view(node.inputs[0], node), lowering.new_view(node)
    heads, interleaved = node.number("heads", 1), bool(node.attributes.get("interleaved"))
    cos, sin = _table(node, "cos", lowering), _table(node, "sin", lowering)
    sequences, tokens, width = cos.shape
    pairs = (width // 2, 2) if interleaved else (2, width // 2)
    x, y = (view.split_tokens((sequences, tokens, heads, *pairs)) for view in (source, out))
    half = 4 if interleaved else 3
    swapped = tuple(-s if axis == half else s for axis, s in enumerate(x.strides))
    other = replace(x, strides=swapped, offset=x.offset + x.strides[half])
    tables = []
    for table in (cos, sin):
        a, b, c = table.strides
        tables.append(replace(table, shape=(sequences, tokens, 1, *pairs), strides=(a, b, 0, c * pairs[1], c)))
    map_("mul", [x, tables[0]], y, lowering)
    map_("fma", [other, tables[1], y], y, lowering)


def attention(node: Node, lowering: Lowering) -> None:
    """Of a sequence to itself by planes; other attention by arrays."""
    same = len({lowering.shapes[name] for name in node.inputs}) == 1 and len(node.inputs) == 3
    heads, shared = attention_heads(node)
    if not same or heads != shared or lowering.graph.step is not None:
        _attention_of_views(node, heads, shared, lowering)
        return
    query, key, value = (lowering.read(name, node) for name in node.inputs)
    out, tokens = lowering.new(node), lowering.shapes[node.output][0]
    lowering.emit(
        abi.Attention, query=query, key=key, value=value, out=out,
        scratch=Tensor.new(layout.columns(heads * tokens, tokens), Space.SAMPLE), heads=heads,
        causal=bool(node.attributes["causal"]), scale=node.real("scale"), work=2 * out.layout.planes * tokens * tokens,
    )  # fmt: skip


def _attention_of_views(node: Node, heads: int, shared: int, lowering: Lowering) -> None:
    """Of queries to keys and values that lie anywhere."""
    query, key, value = (lowering.read_view(name, node) for name in node.inputs[:3])
    mask = lowering.read_view(node.inputs[3], node) if len(node.inputs) > 3 else None
    out, step = lowering.new_view(node), lowering.graph.step
    sequences, tokens = _sequences(lowering)
    queries, keys = tokens or query.shape[0], tokens or key.shape[0]
    width, value_width = query.shape[1] // heads, value.shape[1] // shared

    def split(view: View, count: int, parts: int) -> View:  # [sample, head, token, feature]
        return view.split_tokens((sequences, count, parts, view.shape[1] // parts)).permuted((0, 2, 1, 3))

    q, k, v = split(query, queries, heads), split(key, keys, shared), split(value, keys, shared)
    result, room = split(out, queries, heads), keys
    if step is not None:
        room = layout.up(step.capacity + CHUNK)
        k_shape, v_shape = (sequences, shared, width, room), (sequences, shared, room, value_width)
        k_memory, v_memory = (lowering.remember(math.prod(shape)) for shape in (k_shape, v_shape))
        k_all = View(k_memory, k_shape, compact(k_shape), step=1).permuted((0, 1, 3, 2))
        v_all = View(v_memory, v_shape, compact(v_shape), step=value_width)
        copy(k, replace(k_all, shape=k.shape), lowering)
        copy(v, replace(v_all, shape=v.shape), lowering)
        k, v = replace(k_all, step=0), replace(v_all, step=0)
    length = layout.up(room)
    scratch = Tensor.new(layout.vector(sequences * heads * length), Space.SAMPLE)
    if mask is not None:
        mask = mask.expanded((heads, queries, keys))
    lowering.emit(
        abi.Attend, query=q, key=k, value=v, out=result, scratch=View(scratch, (sequences * heads, length), (0, length)),
        mask=abi.Array() if mask is None else mask.along((0, *mask.strides)), samples=sequences, heads=heads,
        group=heads // shared, queries=queries, keys=keys, width=width, value_width=value_width,
        causal=bool(node.attributes["causal"]), has_mask=mask is not None, cached=step is not None,
        scale=node.real("scale"), work=sequences * heads * queries * room * (width + value_width),
    )  # fmt: skip


def _sequences(lowering: Lowering) -> tuple[int, int | None]:
    """How many there are, and the tokens of each in a session's step."""
    step = lowering.graph.step
    return (1, None) if step is None else (step.batch, step.tokens)


def _table(node: Node, name: str, lowering: Lowering) -> View:
    """The rows of a table that belong to the tokens: [sequences, tokens, width]."""
    table = lowering.constant(lowering.graph.parameter(node, name))
    length, width = table.shape
    sequences, tokens = _sequences(lowering)
    if tokens is None:
        return replace(table, shape=(1, length, width), strides=(0, width, 1))
    return replace(table, shape=(sequences, tokens, width), strides=(0, width, 1), step=width)
