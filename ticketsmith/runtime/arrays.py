"""Operations on arrays of any shape: how the planner writes them down. They need no layout of their own: an array is a base
and a stride for each axis, wherever its value lies."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ticketsmith.native import abi
from ticketsmith.native.abi import Space
from ticketsmith.runtime import layout, pack
from ticketsmith.runtime.graph import ACTIVATIONS, Graph, GraphError, Node, Shape, attention_heads
from ticketsmith.runtime.layout import Slot, Tensor

_FUNCTIONS = (
    "copy", "add", "sub", "mul", "div", "maximum", "minimum", "power", "equal", "less", "less_equal", "where", "fma",
)  # fmt: skip
_REDUCTIONS = ("sum", "max")
_NORMS = ("softmax", "layer_norm", "rms_norm")

CHUNK = 32
"""Tokens that a session takes at once when there are many."""


@dataclass(frozen=True)
class View:
    """A value seen as an array: floats between the elements along each axis, and where it begins in its tensor. ``step``:
    how much later it begins for each token that a session has seen before."""

    tensor: Tensor
    shape: Shape
    strides: Shape
    offset: int = 0
    step: int = 0
    integer: bool = False

    @classmethod
    def of(cls, tensor: Tensor, shape: Shape) -> View:
        """A value of ``shape`` where the planner has put it."""
        own = tensor.layout
        if own.plane == 1:
            return cls(tensor, shape, compact(shape))
        return cls(tensor, shape, {1: (own.plane,), 2: (1, own.plane), 3: (own.plane, own.row, 1)}[len(shape)])

    def expanded(self, shape: Shape) -> View:
        """As an array of a shape that it can be broadcast to."""
        missing = len(shape) - len(self.shape)
        strides = [0 if a == 1 else s for a, s in zip(self.shape, self.strides, strict=True)]
        return replace(self, shape=shape, strides=(*[0] * missing, *strides))

    def split(self, shape: Shape) -> View | None:
        """As an array of ``shape``, whose axes are parts of this one's; None when they are not."""
        strides: list[int] = []
        rest = list(shape)
        for size, stride in zip(self.shape, self.strides, strict=True):
            own: list[int] = []
            while math.prod(own) < size and rest:
                own.append(rest.pop(0))
            if math.prod(own) != size:
                return None
            strides += [stride * inner for inner in compact(tuple(own))]
        return None if any(n != 1 for n in rest) else replace(self, shape=shape, strides=(*strides, *[0] * len(rest)))

    def is_compact(self) -> bool:
        """Whether it lies in row-major order, without gaps."""
        return all(n == 1 or a == b for n, a, b in zip(self.shape, self.strides, compact(self.shape), strict=True))

    def array(self, strides: Sequence[int]) -> abi.Array:
        """As the kernels know it."""
        full = (*strides, *[0] * (6 - len(strides)))
        base = self.tensor.base + self.offset
        return abi.Array(base, self.step, full, int(self.tensor.space), self.integer)


def compact(shape: Shape) -> Shape:
    """Strides of an array in row-major order."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def common_axes(one: Shape, other: Shape) -> Shape | None:
    """The coarsest shape whose axes make up those of both; None where there is none."""
    cuts = sorted({math.prod(shape[:axis]) for shape in (one, other) for axis in range(len(shape) + 1)})
    if any(b % a for a, b in pairwise(cuts)):
        return None
    return tuple(b // a for a, b in pairwise(cuts)) or (1,)


def _merged(size: Sequence[int], strides: Sequence[Sequence[int]]) -> tuple[list[int], list[list[int]]]:
    """Fewer axes for a loop over several arrays; the last array's elements that lie side by side come last."""
    order = [axis for axis in range(len(size)) if size[axis] > 1]
    order.sort(key=lambda axis: -abs(strides[-1][axis]))
    sizes: list[int] = []
    kept: list[list[int]] = [[] for _ in strides]
    for axis in order:
        mine = [one[axis] for one in strides]
        if sizes and all(k[-1] == m * size[axis] for k, m in zip(kept, mine, strict=True)):
            sizes[-1] *= size[axis]
            for k, m in zip(kept, mine, strict=True):
                k[-1] = m
        else:
            sizes.append(size[axis])
            for k, m in zip(kept, mine, strict=True):
                k.append(m)
    return sizes, kept


def _filled(sizes: list[int], strides: list[list[int]], count: int) -> tuple[list[int], list[list[int]]]:
    """With axes of size 1 before, ``count`` in all."""
    missing = count - len(sizes)
    if missing < 0:
        raise GraphError("an operation goes over more axes than the runtime knows.")
    return [1] * missing + sizes, [[0] * missing + one for one in strides]


class ArrayOperators:
    """The part of the planner that writes operations on arrays."""

    graph: Graph
    shapes: dict[str, Shape]
    tensors: dict[str, Tensor]
    memory_floats: int = 0

    if TYPE_CHECKING:

        def _read(self, name: str, node: Node) -> Tensor: ...
        def _new(self, node: Node) -> Tensor: ...
        def _layout(self, shape: Shape) -> layout.Layout: ...
        def _address(self, array: NDArray[Any] | None) -> int | None: ...
        def _step(self, write: Callable[[], Any], *tensors: Tensor, batch: bool = False, work: int = 0) -> None: ...

    # ---- helpers

    def _seen(self, name: str, node: Node) -> View:
        return View.of(self._read(name, node), self.shapes[name])

    def _made(self, node: Node) -> View:
        return View.of(self._new(node), self.shapes[node.output])

    def _fixed(self, values: NDArray[Any]) -> View:
        """A constant."""
        memory = pack.aligned(values.size + layout.LANES, np.float32)
        memory[: values.size] = values.ravel()
        # the space of constants begins at address zero
        slot = Slot(Space.CONSTANT, None, 0, (self._address(memory) or 0) // 4)
        shape = values.shape or (1,)
        return View(Tensor(layout.vector(values.size), slot), shape, compact(shape))

    def _kept(self, floats: int) -> Tensor:
        """Memory of a session."""
        slot = Slot(Space.MEMORY, None, 0, self.memory_floats)
        self.memory_floats += layout.up(floats)
        if self.memory_floats > layout.MOST_FLOATS:
            raise GraphError(f"the session's memory would exceed {4 * layout.MOST_FLOATS:,} bytes: use less capacity.")
        return Tensor(layout.vector(floats), slot)

    def _map(self, function: str, inputs: Sequence[View], out: View, activation: str = "linear") -> None:
        """``inputs`` can be broadcast to the shape of ``out``."""
        arrays = [one.expanded(out.shape) for one in inputs]
        sizes, strides = _filled(*_merged(out.shape, [*(one.strides for one in arrays), out.strides]), 6)

        def write() -> abi.Map:
            given = [one.array(stride) for one, stride in zip(arrays, strides, strict=False)]
            given += [abi.Array()] * (3 - len(given))
            return abi.Map(
                in_=tuple(given), out=out.array(strides[-1]), size=tuple(sizes), inputs=len(inputs),
                function=_FUNCTIONS.index(function), activation=ACTIVATIONS.index(activation),
            )  # fmt: skip

        self._step(write, *(one.tensor for one in arrays), out.tensor, work=math.prod(sizes))

    def _rearrange(self, source: View, out: View) -> None:
        """The same elements in the same order, as another shape."""
        axes = common_axes(source.shape, out.shape)
        if axes is not None:
            left, right = source.split(axes), out.split(axes)
            if left is not None and right is not None:
                self._map("copy", [left], right)
                return
        between = Tensor.new(layout.vector(math.prod(source.shape)), Space.SAMPLE)
        self._map("copy", [source], View(between, source.shape, compact(source.shape)))
        self._map("copy", [View(between, out.shape, compact(out.shape))], out)

    # ---- arrays as they are

    def _constant_value(self, node: Node) -> None:
        self.tensors[node.output] = self._fixed(self.graph.parameter(node, "value")).tensor

    def _cast(self, node: Node) -> None:
        self._map("copy", [replace(self._seen(node.inputs[0], node), integer=True)], self._made(node))

    def _reshape(self, node: Node) -> None:
        source, shape = self._seen(node.inputs[0], node), self.shapes[node.output]
        flat = self._layout(shape).is_vector and source.tensor.space == Space.SAMPLE
        if flat and source.is_compact():
            self.tensors[node.output] = source.tensor.seen_as(layout.vector(math.prod(shape)))
            return
        self._rearrange(source, self._made(node))

    def _permute(self, node: Node) -> None:
        source, axes = self._seen(node.inputs[0], node), node.attributes["axes"]
        turned = replace(source, shape=self.shapes[node.output], strides=tuple(source.strides[axis] for axis in axes))
        self._map("copy", [turned], self._made(node))

    def _slice(self, node: Node) -> None:
        source = self._read(node.inputs[0], node)
        shape = self.shapes[node.inputs[0]]
        axis = node.attributes.get("axis", len(shape) - 1)
        begin, end, step = node.number("begin"), node.number("end"), node.attributes.get("step", 1)
        last = len(shape) <= 2 and axis == len(shape) - 1
        planes = last or (len(shape) == 3 and axis == 0 and source.layout.plane > 1)
        if planes and step == 1 and source.space in (Space.SAMPLE, Space.BATCH):
            self.tensors[node.output] = source.part(begin, end)
            return
        view = View.of(source, shape)
        strides = tuple(s * step if index == axis else s for index, s in enumerate(view.strides))
        part = replace(view, shape=self.shapes[node.output], strides=strides, offset=begin * view.strides[axis])
        self._map("copy", [part], self._made(node))

    def _concat(self, node: Node) -> None:
        out, begin = self._made(node), 0
        axis = node.attributes.get("axis", len(out.shape) - 1)
        for name in node.inputs:
            part = self._seen(name, node)
            self._map("copy", [part], replace(out, shape=part.shape, offset=begin * out.strides[axis]))
            begin += part.shape[axis]

    def _expand(self, node: Node) -> None:
        self._map("copy", [self._seen(node.inputs[0], node)], self._made(node))

    def _upsample(self, node: Node) -> None:
        source, out = self._seen(node.inputs[0], node), self._made(node)
        high, wide = node.numbers("factors", 2, 1)
        planes, rows, cols = source.shape
        shape = (planes, rows, high, cols, wide)
        (a, b, c), (d, e, f) = source.strides, out.strides
        self._map(
            "copy",
            [replace(source, shape=shape, strides=(a, b, 0, c, 0))],
            replace(out, shape=shape, strides=(d, e * high, e, f * wide, f)),
        )

    def _pad(self, node: Node) -> None:
        source, out = self._seen(node.inputs[0], node), self._made(node)
        rank = len(source.shape)
        before, between = node.numbers("before", rank), node.numbers("between", rank)
        self._map("copy", [self._fixed(np.array(node.real("value"), np.float32))], out)
        strides = tuple(stride * (1 + gap) for stride, gap in zip(out.strides, between, strict=True))
        offset = sum(stride * skipped for stride, skipped in zip(out.strides, before, strict=True))
        self._map("copy", [source], replace(out, shape=source.shape, strides=strides, offset=offset))

    def _elementwise(self, node: Node) -> None:
        inputs = [self._seen(name, node) for name in node.inputs]
        self._map(node.op, inputs, self._made(node), node.activation)

    # ---- sums and products

    def _reduce(self, node: Node) -> None:
        source, out = self._seen(node.inputs[0], node), self._made(node)
        axes, function = node.attributes["axes"], node.attributes["function"]
        kept = [axis for axis in range(len(source.shape)) if axis not in axes]
        sizes, (left, right) = _filled(
            *_merged([source.shape[a] for a in kept], [[v.strides[a] for a in kept] for v in (source, out)]), 3
        )
        over, (steps,) = _filled(*_merged([source.shape[a] for a in axes], [[source.strides[a] for a in axes]]), 3)
        scale = 1 / math.prod(over) if function == "mean" else 1.0
        self._step(
            lambda: abi.Reduce(
                in_=source.array(left), out=out.array(right), size=tuple(sizes), over=tuple(over),
                over_stride=tuple(steps), function=_REDUCTIONS.index("max" if function == "max" else "sum"), scale=scale,
            ),
            source.tensor, out.tensor, work=math.prod(source.shape),
        )  # fmt: skip

    def _matmul(self, node: Node) -> None:
        left, right = (self._seen(name, node) for name in node.inputs)
        out = self._made(node)
        batch, (rows, cols), inner = out.shape[:-2], out.shape[-2:], left.shape[-1]
        if right.strides[-1] != 1 and left.strides[-2] == 1:  # the product's transpose reads and writes whole vectors
            left, right, rows, cols = _turned(right), _turned(left), cols, rows
            out = _turned(out)
        wide = [one.expanded((*batch, *one.shape[-2:])).strides for one in (left, right)]
        before = [0] * (3 - len(batch))
        a = [*before, *wide[0][:-2], wide[0][-2], 0, wide[0][-1]]
        b = [*before, *wide[1][:-2], 0, wide[1][-1], wide[1][-2]]
        c = [*before, *out.strides, 0]
        size = (*[1] * (3 - len(batch)), *batch, rows, cols, inner)
        self._step(
            lambda: abi.Matmul(left=left.array(a), right=right.array(b), out=out.array(c), size=size),
            left.tensor, right.tensor, out.tensor, work=math.prod(size),
        )  # fmt: skip

    # ---- norms

    def _normalise(self, node: Node, kind: str, source: View, out: View, outer: Sequence[int], scale: View | None = None,
                   shift: View | None = None, epsilon: float = 0.0) -> None:  # fmt: skip
        """Over all axes but ``outer``; ``scale`` and ``shift`` have the shape of ``source``."""
        views = [one for one in (source, scale, shift, out) if one is not None]
        inner = [axis for axis in range(len(source.shape)) if axis not in outer]
        first, before = _filled(
            *_merged([source.shape[a] for a in outer], [[v.strides[a] for a in outer] for v in views]), 3
        )
        last, behind = _filled(
            *_merged([source.shape[a] for a in inner], [[v.strides[a] for a in inner] for v in views]), 3
        )
        strides = [[*one, *other] for one, other in zip(before, behind, strict=True)]

        def write() -> abi.Normalise:
            arrays = [view.array(stride) for view, stride in zip(views, strides, strict=True)]
            given = arrays[1:-1] or [abi.Array(), abi.Array()]
            return abi.Normalise(
                in_=arrays[0], out=arrays[-1], scale=given[0], shift=given[1], size=(*first, *last),
                kind=_NORMS.index(kind), epsilon=epsilon,
            )  # fmt: skip

        self._step(write, *(one.tensor for one in views), work=4 * math.prod(source.shape))

    def _softmax_over(self, node: Node, axis: int) -> None:
        source, out = self._seen(node.inputs[0], node), self._made(node)
        self._normalise(node, "softmax", source, out, [a for a in range(len(source.shape)) if a != axis])

    def _norm_over(self, node: Node) -> None:
        """Over the last axis."""
        source, out = self._seen(node.inputs[0], node), self._made(node)
        scale = self.graph.parameter(node, "scale")
        shift = np.zeros_like(scale) if node.op == "rms_norm" else self.graph.parameter(node, "shift")
        tables = [self._fixed(one).expanded(source.shape) for one in (scale, shift)]
        outer = range(len(source.shape) - 1)
        self._normalise(node, node.op, source, out, outer, tables[0], tables[1], node.real("epsilon"))

    def _group_norm(self, node: Node) -> None:
        source, out = self._seen(node.inputs[0], node), self._made(node)
        groups, channels = node.number("groups", 1), source.shape[0]
        shape = (groups, channels // groups, *source.shape[1:])
        tables = [self._fixed(self.graph.parameter(node, name)) for name in ("scale", "shift")]
        wide = [replace(one, shape=shape, strides=(shape[1], 1, *[0] * (len(shape) - 2))) for one in tables]
        left, right = source.split(shape), out.split(shape)
        if left is None or right is None:
            raise GraphError(f"{node}: groups of {source.shape}.")
        self._normalise(node, "layer_norm", left, right, [0], wide[0], wide[1], node.real("epsilon"))

    # ---- sequences

    @property
    def _sequences(self) -> tuple[int, int | None]:
        """How many there are, and the tokens of each in a session's step."""
        step = self.graph.step
        return (1, None) if step is None else (step.batch, step.tokens)

    def _table(self, node: Node, name: str) -> View:
        """The rows of a table that belong to the tokens: [sequences, tokens, width]."""
        table = self._fixed(self.graph.parameter(node, name))
        rows, width = table.shape
        sequences, tokens = self._sequences
        if tokens is None:
            return replace(table, shape=(1, rows, width), strides=(0, width, 1))
        return replace(table, shape=(sequences, tokens, width), strides=(0, width, 1), step=width)

    def _rows_of_table(self, node: Node) -> None:
        out = self._made(node)
        table = self._table(node, "value")
        self._map("copy", [table], _need(out.split(table.shape)))

    def _rotary(self, node: Node) -> None:
        source, out = self._seen(node.inputs[0], node), self._made(node)
        heads = node.number("heads", 1)
        cos, sin = self._table(node, "cos"), self._table(node, "sin")
        sequences, tokens, width = cos.shape
        pairs = (width // 2, 2) if node.attributes.get("interleaved") else (2, width // 2)
        shape = (sequences, tokens, heads, *pairs)
        x, y = _need(source.split(shape)), _need(out.split(shape))
        half = 4 if node.attributes.get("interleaved") else 3
        swapped = tuple(-s if axis == half else s for axis, s in enumerate(x.strides))
        other = replace(x, strides=swapped, offset=x.offset + x.strides[half])
        tables = []
        for table in (cos, sin):
            a, b, c = table.strides
            tables.append(replace(table, shape=(sequences, tokens, 1, *pairs), strides=(a, b, 0, c * pairs[1], c)))
        self._map("mul", [x, tables[0]], y)
        self._map("fma", [other, tables[1], y], y)

    def _attend(self, node: Node) -> None:
        query, key, value = (self._seen(name, node) for name in node.inputs[:3])
        mask = self._seen(node.inputs[3], node) if len(node.inputs) > 3 else None
        out, (heads, shared) = self._made(node), attention_heads(node)
        sequences, tokens = self._sequences
        queries = tokens or query.shape[0]
        keys = tokens or key.shape[0]
        width, value_width = query.shape[1] // heads, value.shape[1] // shared

        def parted(view: View, count: int, parts: int) -> View:  # [sample, head, token, feature]
            seen = _need(view.split((sequences, count, parts, view.shape[1] // parts)))
            return _order(seen, (0, 2, 1, 3))

        q, k, v = parted(query, queries, heads), parted(key, keys, shared), parted(value, keys, shared)
        result = parted(out, queries, heads)
        room = keys
        if self.graph.step is not None:
            room = layout.up(self.graph.step.capacity + CHUNK)
            k_shape, v_shape = (sequences, shared, width, room), (sequences, shared, room, value_width)
            k_kept, v_kept = (self._kept(math.prod(shape)) for shape in (k_shape, v_shape))
            k_all = _order(View(k_kept, k_shape, compact(k_shape), step=1), (0, 1, 3, 2))
            v_all = View(v_kept, v_shape, compact(v_shape), step=value_width)
            self._map("copy", [k], replace(k_all, shape=k.shape))
            self._map("copy", [v], replace(v_all, shape=v.shape))
            k, v = replace(k_all, step=0), replace(v_all, step=0)
        scratch = Tensor.new(layout.vector(sequences * heads * layout.up(room)), Space.SAMPLE)
        scores = View(scratch, (sequences * heads, layout.up(room)), (layout.up(room), 1))
        seen = None if mask is None else mask.expanded((heads, queries, keys))
        tensors = [one.tensor for one in (q, k, v, result, scores, *([mask] if mask else []))]
        causal, scale = bool(node.attributes["causal"]), node.real("scale")
        self._step(
            lambda: abi.Attend(
                query=q.array(q.strides), key=k.array(k.strides), value=v.array(v.strides), out=result.array(result.strides),
                mask=seen.array((0, *seen.strides)) if seen else abi.Array(),
                scratch=scores.array((0, scores.strides[0])), samples=sequences, heads=heads, group=heads // shared,
                queries=queries, keys=keys, width=width, value_width=value_width, causal=causal,
                has_mask=seen is not None, cached=self.graph.step is not None, scale=scale,
            ),
            *tensors, work=sequences * heads * queries * room * (width + value_width),
        )  # fmt: skip


def _turned(view: View) -> View:
    """With its last two axes exchanged."""
    axes = (*range(len(view.shape) - 2), len(view.shape) - 1, len(view.shape) - 2)
    return _order(view, axes)


def _order(view: View, axes: Sequence[int]) -> View:
    return replace(view, shape=tuple(view.shape[a] for a in axes), strides=tuple(view.strides[a] for a in axes))


def _need(view: View | None) -> View:
    if view is None:
        raise GraphError("an array cannot be split into heads as it lies.")
    return view
