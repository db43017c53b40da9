"""Arrays in other shapes: reshaped, cut, joined, padded, repeated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ticketsmith.runtime.builder.core import Array, Builder, Value, check_axes, common_batch, strip
from ticketsmith.runtime.graph import Shape


def reshape(x: Value, shape: Sequence[int]) -> Value:
    """The same elements in the same order. No node is made before it is needed."""
    sizes = [int(n) for n in shape]
    if sizes.count(-1) == 1:
        sizes[sizes.index(-1)] = math.prod(x.shape) // -math.prod(sizes)
    if math.prod(sizes) != math.prod(x.shape) or min(sizes, default=1) < 1:
        raise ValueError(f"{x.shape} as {tuple(shape)}")
    outermost = x.batch is not None and math.prod(x.shape[: x.batch]) == 1
    return replace(x, shape=tuple(sizes), batch=0 if outermost and sizes else None)


def unsqueeze(x: Value, axes: Sequence[int]) -> Value:
    """New axes of size 1, at these places of the result."""
    rank = len(x.shape) + len(axes)
    new = {axis % rank for axis in axes}
    old = iter(enumerate(x.shape))
    sizes, batch = [], None
    for place in range(rank):
        if place in new:
            sizes.append(1)
            continue
        index, size = next(old)
        batch = place if index == x.batch else batch
        sizes.append(size)
    return replace(x, shape=tuple(sizes), batch=batch)


def squeeze(x: Value, axes: Sequence[int]) -> Value:
    """Without these axes, where they are of size 1."""
    gone = {axis % len(x.shape) for axis in axes if x.shape[axis] == 1}
    check_axes(x, gone)
    left = [axis for axis in range(len(x.shape)) if axis not in gone]
    batch = left.index(x.batch) if x.batch in left else None
    return replace(x, shape=tuple(x.shape[axis] for axis in left), batch=batch)


def permute(b: Builder, x: Value, axes: Sequence[int]) -> Value:
    """Axes in another order."""
    order = tuple(axis % len(x.shape) for axis in axes)
    shape = tuple(x.shape[axis] for axis in order)
    batch = order.index(x.batch) if x.batch is not None else None
    moved = [axis for axis in order if x.shape[axis] > 1]
    if moved == sorted(moved):
        return replace(x, shape=shape, batch=batch)
    here = b.at(x, tuple(n for n in x.shape if n > 1))
    big = sorted(moved)
    inner = tuple(x.shape[axis] for axis in moved)
    return Value(b.emit("permute", [here], inner, axes=[big.index(axis) for axis in moved]), shape, inner, batch)


def surround(b: Builder, name: str, inner: Shape, before: Sequence[int], behind: Sequence[int], between: Sequence[int],
            value: float = 0.0) -> tuple[str, Shape]:  # fmt: skip
    """A node that pads: its name and its shape."""
    shape = tuple(b + n + (n - 1) * i + a for n, b, a, i in zip(inner, before, behind, between, strict=True))
    output = b.emit("pad", [name], shape, before=[int(n) for n in before], behind=[int(n) for n in behind],
                     between=[int(n) for n in between], value=float(value))  # fmt: skip
    return output, shape


def pad(b: Builder, x: Value, before: Sequence[int], behind: Sequence[int], value: float = 0.0) -> Value:
    """Of each axis, with the batch; negative padding cuts."""
    for axis, (low, high) in enumerate(zip(before, behind, strict=True)):
        if low < 0 or high < 0:
            x = part(b, x, axis, max(0, -low), x.shape[axis] - max(0, -high))
    before, behind = [max(0, n) for n in before], [max(0, n) for n in behind]
    if not any(before) and not any(behind):
        return x
    check_axes(x, {axis for axis, (a, b) in enumerate(zip(before, behind, strict=True)) if a or b})
    inner = strip(x.shape)
    skip = len(x.shape) - len(inner)
    name, shape = surround(b, b.at(x, inner), inner, before[skip:], behind[skip:], [0] * len(inner), value)
    return Value(name, (*x.shape[:skip], *shape), shape, x.batch)


_MOST_PLACES = 4096


def part(b: Builder, x: Value, axis: int, begin: int, end: int, step: int = 1) -> Value:
    """From ``begin`` to before ``end``; negative ones count from the end."""
    axis %= len(x.shape)
    size = x.shape[axis]
    begin, end, step = slice(begin, end, step).indices(size)
    if step < 1:
        raise ValueError("backward steps")
    if (begin, end, step) == (0, size, 1):
        return x
    check_axes(x, {axis})
    if end <= begin:
        raise ValueError("an empty slice")
    inner = strip(x.shape)
    skip = len(x.shape) - len(inner)
    out = -(-(end - begin) // step)
    shape = tuple(out if index == axis else n for index, n in enumerate(x.shape))
    result = shape[skip:]
    name = b.emit("slice", [b.at(x, inner)], result, axis=axis - skip, begin=begin, end=end, step=step)
    return Value(name, shape, result, x.batch)


def select(b: Builder, x: Value, axis: int, index: int) -> Value:
    """One place of an axis, which goes."""
    axis %= len(x.shape)
    index %= x.shape[axis]
    return squeeze(part(b, x, axis, index, index + 1), (axis,))


def split(b: Builder, x: Value, sizes: int | Sequence[int], axis: int = 0) -> list[Value]:
    """Parts of these sizes, or of one size but for the last."""
    if isinstance(sizes, int):
        whole = x.shape[axis]
        sizes = [min(sizes, whole - begin) for begin in range(0, whole, sizes)]
    parts, begin = [], 0
    for size in sizes:
        parts.append(part(b, x, axis, begin, begin + size))
        begin += size
    return parts


def take(b: Builder, x: Value, axis: int, places: Array) -> Value:
    """These places of an axis, in this order; or, of an axis as long as truths ``places``, where they are true."""
    size = x.shape[axis]
    places = np.flatnonzero(places) if places.dtype == np.bool_ else places
    listed = [int(n) % size for n in places]
    if not listed:
        raise ValueError("no places")
    if listed == list(range(size)):
        return x
    parts: list[tuple[int, int]] = []  # neighbours together
    for place in listed:
        if parts and parts[-1][1] == place:
            parts[-1] = parts[-1][0], place + 1
        else:
            parts.append((place, place + 1))
    if len(parts) > _MOST_PLACES:
        raise ValueError("too many places")
    return concat(b, [part(b, x, axis, begin, end) for begin, end in parts], axis)


def pad_by(b: Builder, x: Value, before: Sequence[int], behind: Sequence[int], mode: str, value: float) -> Value:
    """By a value (constant), or by each axis' own elements: ``mode`` is that of ``np.pad`` (reflect, edge, wrap)."""
    if mode == "constant":
        return pad(b, x, before, behind, value)
    if mode not in ("reflect", "edge", "wrap"):
        raise ValueError(f"padding by {mode}")
    for axis, (low, high) in enumerate(zip(before, behind, strict=True)):
        if low or high:
            x = take(b, x, axis, np.pad(np.arange(x.shape[axis]), (low, high), mode))  # type: ignore[call-overload]
    return x


def depth_to_space(b: Builder, x: Value, factor: int, depth_first: bool = False) -> Value:
    """Channels become rows and columns; ``depth_first``: which channel it is varies slowest."""
    _, channels, rows, cols = x.shape
    inner = channels // factor**2
    shape, axes = (1, inner, factor, factor, rows, cols), (0, 1, 4, 2, 5, 3)
    if depth_first:
        shape, axes = (1, factor, factor, inner, rows, cols), (0, 3, 4, 1, 5, 2)
    return reshape(permute(b, reshape(x, shape), axes), (1, inner, rows * factor, cols * factor))


def concat(b: Builder, parts: Sequence[Value | Array], axis: int) -> Value:
    """One behind the other."""
    parts = [one for one in parts if math.prod(one.shape)]
    if len(parts) == 1 and isinstance(parts[0], Value):
        return parts[0]
    rank = len(parts[0].shape)
    axis %= rank
    values = [one for one in parts if isinstance(one, Value)]
    for one in values:
        check_axes(one, {axis})
    full = tuple(sum(g.shape[axis] for g in parts) if a == axis else n for a, n in enumerate(parts[0].shape))
    batch = common_batch(values, full)
    skip = rank - len(strip(full))
    names = [b.at(one, tuple(one.shape[skip:])) for one in parts]
    inner = full[skip:]
    return Value(b.emit("concat", names, inner, axis=axis - skip), full, inner, batch)


def tile(b: Builder, x: Value, counts: Sequence[int]) -> Value:
    """So many times along each axis; more counts than axes are of new axes before them."""
    missing = len(counts) - len(x.shape)
    x = reshape(x, (1,) * missing + x.shape) if missing else x
    for axis, count in enumerate(counts):
        x = concat(b, [x] * int(count), axis) if count > 1 else x
    return x


def expand(b: Builder, x: Value, shape: Sequence[int]) -> Value:
    """As if axes of size 1 were repeated; -1 keeps a size."""
    rank = len(shape)
    padded = (1,) * (rank - len(x.shape)) + x.shape
    full = tuple(a if b == -1 else int(b) for a, b in zip(padded, shape, strict=True))
    batch = None if x.batch is None else x.batch + rank - len(x.shape)
    if full == padded:
        return replace(x, shape=full, batch=batch)
    if batch is not None and full[batch] != 1:
        raise ValueError("a batch that is repeated")
    inner = strip(full)
    skip = len(full) - len(inner)
    name = b.emit("expand", [b.at(x, padded[skip:])], inner, shape=list(inner))
    return Value(name, full, inner, batch)
