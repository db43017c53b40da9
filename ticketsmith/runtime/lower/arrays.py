"""Operators on arrays of any shape. They need no layout of their own: an array is a base and a stride for each axis, wherever
its value lies.

In: a node. Out: instructions that walk over arrays in loops; none at all where another view of the same memory will do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ticketsmith.native import abi
from ticketsmith.runtime import layout
from ticketsmith.runtime.graph import Node, Shape, attention_heads, attention_sequences
from ticketsmith.runtime.lower.lowering import Lowering, activation
from ticketsmith.runtime.operands import Tensor, View, common_axes, compact, loops
from ticketsmith.runtime.steps import CHUNK


def map_(function: str, inputs: Sequence[View], out: View, lowering: Lowering, activation: int = 0) -> None:
    """A function of up to three arrays, element by element; ``inputs`` can be broadcast to the shape of ``out``."""
    arrays = [*(one.expanded(out.shape) for one in inputs), out]
    sizes, strides = loops(out.shape, [one.strides for one in arrays], 6)
    walks = [one.along(stride) for one, stride in zip(arrays, strides, strict=True)]
    lowering.emit(
        abi.Map, in_=tuple(walks[:-1]), out=walks[-1], uses=tuple(walks), size=tuple(sizes), inputs=len(inputs),
        function=abi.MapFunction[function.upper()], activation=activation, work=math.prod(sizes),
    )  # fmt: skip


def copy(source: View, out: View, lowering: Lowering) -> None:
    """``source``, broadcast to the shape of ``out``."""
    map_("copy", [source], out, lowering)


def elementwise(node: Node, lowering: Lowering) -> None:
    """A function of two or three values, broadcast."""
    inputs = [lowering.read_view(name, node) for name in node.inputs]
    map_(node.op, inputs, lowering.new_view(node), lowering, activation(node))


# ---- the same elements elsewhere


def constant(node: Node, lowering: Lowering) -> None:
    """Memory of the program; no instruction."""
    value = lowering.constants[node.output] = lowering.graph.parameter(node, "value")
    lowering.tensors[node.output] = lowering.constant(value).tensor


def cast(node: Node, lowering: Lowering) -> None:
    """From whole numbers."""
    copy(lowering.read_view(node.inputs[0], node)._replace(integer=True), lowering.new_view(node), lowering)


def expand(node: Node, lowering: Lowering) -> None:
    """A copy that reads elements again."""
    copy(lowering.read_view(node.inputs[0], node), lowering.new_view(node), lowering)


def reshape(node: Node, lowering: Lowering) -> None:
    """Another view where elements lie one behind the other; else a copy over axes that both shapes have."""
    source, shape = lowering.read_view(node.inputs[0], node), lowering.shapes[node.output]
    if lowering.layout(shape).is_vector and source.tensor.space == abi.Space.SAMPLE and source.is_compact():
        lowering.tensors[node.output] = source.tensor.as_layout(layout.vector(math.prod(shape)))
        return
    out = lowering.new_view(node)
    axes = common_axes(source.shape, out.shape)
    left, right = (None, None) if axes is None else (source.split(axes), out.split(axes))
    if left is not None and right is not None:
        copy(left, right, lowering)
        return
    between = Tensor.new(layout.vector(math.prod(source.shape)), abi.Space.SAMPLE)
    copy(source, View(between, source.shape, compact(source.shape)), lowering)
    copy(View(between, out.shape, compact(out.shape)), out, lowering)


def permute(node: Node, lowering: Lowering) -> None:
    """A copy with strides in another order."""
    source = lowering.read_view(node.inputs[0], node)
    copy(source.permuted(node.attributes["axes"]), lowering.new_view(node), lowering)


def slice_(node: Node, lowering: Lowering) -> None:
    """Some planes of the same memory, or a copy."""
    view = lowering.read_view(node.inputs[0], node)
    source, shape = view.tensor, view.shape
    axis = node.attributes.get("axis", len(shape) - 1)
    begin, end, step = node.number("begin"), node.number("end"), node.attributes.get("step", 1)
    last = len(shape) <= 2 and axis == len(shape) - 1
    planes = last or (len(shape) == 3 and axis == 0 and source.layout.plane > 1)
    if planes and step == 1 and source.space in (abi.Space.SAMPLE, abi.Space.BATCH):
        lowering.tensors[node.output] = source.part(begin, end)
        return
    strides = tuple(s * step if index == axis else s for index, s in enumerate(view.strides))
    part = view._replace(shape=lowering.shapes[node.output], strides=strides, offset=begin * view.strides[axis])
    copy(part, lowering.new_view(node), lowering)


def concat(node: Node, lowering: Lowering) -> None:
    """A copy for each part."""
    out, begin = lowering.new_view(node), 0
    axis = node.attributes.get("axis", len(out.shape) - 1)
    for name in node.inputs:
        part = lowering.read_view(name, node)
        copy(part, out._replace(shape=part.shape, offset=begin * out.strides[axis]), lowering)
        begin += part.shape[axis]


def upsample(node: Node, lowering: Lowering) -> None:
    """A copy that reads each row and column several times."""
    source, out = lowering.read_view(node.inputs[0], node), lowering.new_view(node)
    high, wide = node.numbers("factors", 2, 1)
    planes, rows, cols = source.shape
    shape, (a, b, c), (d, e, f) = (planes, rows, high, cols, wide), source.strides, out.strides
    repeated = source._replace(shape=shape, strides=(a, b, 0, c, 0))
    copy(repeated, out._replace(shape=shape, strides=(d, e * high, e, f * wide, f)), lowering)


def pad(node: Node, lowering: Lowering) -> None:
    """The number everywhere, then the values among it."""
    source, out = lowering.read_view(node.inputs[0], node), lowering.new_view(node)
    rank = len(source.shape)
    before, between = node.numbers("before", rank), node.numbers("between", rank)
    copy(lowering.constant(np.array(node.real("value"), np.float32)), out, lowering)
    strides = tuple(stride * (1 + gap) for stride, gap in zip(out.strides, between, strict=True))
    offset = sum(stride * skipped for stride, skipped in zip(out.strides, before, strict=True))
    copy(source, out._replace(shape=source.shape, strides=strides, offset=offset), lowering)


# ---- sums and products


def reduce(node: Node, lowering: Lowering) -> None:
    """A sum or the largest over up to three loops, for up to three others."""
    source, out = lowering.read_view(node.inputs[0], node), lowering.new_view(node)
    axes, function = node.attributes["axes"], node.attributes["function"]
    others = [axis for axis in range(len(source.shape)) if axis not in axes]
    sizes, (left, right) = loops(
        [source.shape[a] for a in others], [[view.strides[a] for a in others] for view in (source, out)], 3
    )
    over, (steps,) = loops([source.shape[a] for a in axes], [[source.strides[a] for a in axes]], 3)
    lowering.emit(
        abi.Reduce, in_=source.along(left), out=out.along(right), size=tuple(sizes), over=tuple(over),
        over_stride=tuple(steps), function=abi.ReduceFunction.MAX if function == "max" else abi.ReduceFunction.SUM,
        scale=1 / math.prod(over) if function == "mean" else 1.0, work=math.prod(source.shape),
    )  # fmt: skip


def matmul(node: Node, lowering: Lowering) -> None:
    """A product of two values, or its transpose."""
    left, right = (lowering.read_view(name, node) for name in node.inputs)
    out = lowering.new_view(node)
    batch, (rows, cols), inner = out.shape[:-2], out.shape[-2:], left.shape[-1]
    if right.strides[-1] != 1 and left.strides[-2] == 1:  # the product's transpose reads and writes whole vectors
        left, right, out, rows, cols = _transposed(right), _transposed(left), _transposed(out), cols, rows
    a, b = (one.expanded((*batch, *one.shape[-2:])).strides for one in (left, right))
    before = [0] * (3 - len(batch))
    size = (*[1] * (3 - len(batch)), *batch, rows, cols, inner)
    lowering.emit(
        abi.Matmul, left=left.along((*before, *a[:-2], a[-2], 0, a[-1])),
        right=right.along((*before, *b[:-2], 0, b[-1], b[-2])), out=out.along((*before, *out.strides, 0)), size=size,
        work=math.prod(size),
    )  # fmt: skip


def _transposed(view: View) -> View:
    axes = range(len(view.shape))
    return view.permuted((*axes[:-2], axes[-1], axes[-2]))


# ---- attention, and what tells it of positions: of tokens [tokens, heads * width] of one sample, or of the sequences of a step,
# whose keys and values go to the session's memory first


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
    other = x._replace(strides=swapped, offset=x.offset + x.strides[half])
    tables = []
    for table in (cos, sin):
        a, b, c = table.strides
        tables.append(table._replace(shape=(sequences, tokens, 1, *pairs), strides=(a, b, 0, c * pairs[1], c)))
    map_("mul", [x, tables[0]], y, lowering)
    map_("fma", [other, tables[1], y], y, lowering)


def attention(node: Node, lowering: Lowering) -> None:
    """Of a sequence to itself by planes; other attention by arrays."""
    same = len({lowering.shapes[name] for name in node.inputs[:3]}) == 1
    heads, shared = attention_heads(node)
    if not same or heads != shared or lowering.graph.step is not None:
        _attention_of_views(node, heads, shared, lowering)
        return
    query, key, value = (lowering.read(name, node) for name in node.inputs[:3])
    (columns, features), kind = lowering.shapes[node.output], abi.Attention
    sequences = attention_sequences(node)
    tokens = columns // sequences
    out, room = lowering.new(node), layout.columns(sequences * heads, attention_room(tokens, features // heads))
    mask = _mask(node, (heads, tokens, tokens), lowering)
    if lowering.analysis.attends_by_bytes(node, heads):
        kind, room = abi.AttentionDot, layout.columns(sequences * heads, dot_attention_room(tokens, features // heads))
    lowering.emit(
        kind, query=query, key=key, value=value, out=out, scratch=Tensor.new(room, abi.Space.SAMPLE),
        mask=mask or abi.Array(), has_mask=mask is not None, sequences=sequences, heads=heads,
        causal=bool(node.attributes["causal"]), scale=node.real("scale"), work=2 * out.layout.planes * columns * tokens,
    )  # fmt: skip


def _mask(node: Node, shape: Shape, lowering: Lowering) -> View | None:
    """What attention adds to its scores [heads, queries, keys], by axes of which the first are samples."""
    if len(node.inputs) < 4:
        return None
    mask = lowering.read_view(node.inputs[3], node).expanded(shape)
    return mask.along((0, *mask.strides))


_QUERIES = 3 * layout.LANES
"""For which attention computes scores at once."""


def attention_room(tokens: int, width: int) -> int:
    """Floats for what ``Attention`` keeps of a head."""
    return _QUERIES * (tokens + width)


def dot_attention_room(tokens: int, width: int) -> int:
    """Floats for what ``AttentionDot`` keeps of a head."""
    plane, row = layout.up(tokens), layout.up(tokens, 4 * layout.LANES) // 4
    return width // 4 * 2 * plane + width * row + 3 * plane + layout.up(width) + _QUERIES * layout.up(tokens, 4)


def _attention_of_views(node: Node, heads: int, shared: int, lowering: Lowering) -> None:
    """Of queries to keys and values that lie anywhere."""
    query, key, value = (lowering.read_view(name, node) for name in node.inputs[:3])
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
        copy(k, k_all._replace(shape=k.shape), lowering)
        copy(v, v_all._replace(shape=v.shape), lowering)
        k, v = k_all._replace(step=0), v_all._replace(step=0)
    length = layout.up(room)
    scratch = Tensor.new(layout.vector(sequences * heads * length), abi.Space.SAMPLE)
    mask = _mask(node, (heads, queries, keys), lowering)
    lowering.emit(
        abi.Attend, query=q, key=k, value=v, out=result, scratch=View(scratch, (sequences * heads, length), (0, length)),
        mask=mask or abi.Array(), samples=sequences, heads=heads,
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
        return table._replace(shape=(1, length, width), strides=(0, width, 1))
    return table._replace(shape=(sequences, tokens, width), strides=(0, width, 1), step=width)
