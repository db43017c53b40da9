"""Where the numbers of a value lie, and which memory values may share.

A value is a set of planes. Images have zero rows around them, as far as the convolutions at their resolution reach, so that
a shifted plane is the same plane read from another offset, and a whole plane can be computed as one long row. Where rows are
not much shorter than vectors ("whole" rows), they begin with a vector: what a convolution reads is then of whole cache
lines, and it moves its sums by columns instead of its inputs. Elsewhere zero columns lie between the rows, and shifts by
columns are offsets too.

The zeros are written once, when memory is made: whatever writes an image leaves them alone, and memory is shared only
between values of one layout.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from itertools import count

import numpy as np
from numpy.typing import NDArray

from ticketsmith.native.abi import Space, Value
from ticketsmith.runtime.graph import GraphError
from ticketsmith.runtime.pack import aligned

LANES = 16
_SAME_SETS = 8 * LANES
"""Floats. Parts of planes that lie a multiple of this apart would share few sets of a cache."""

MOST_FLOATS = 2**28
"""Of scratch memory, 1 GiB: no model that is meant to be served comes near; a malicious file may."""


def up(number: int, multiple: int = LANES) -> int:
    """``number`` rounded up."""
    return -(-number // multiple) * multiple


@dataclass(frozen=True)
class Halo:
    """How far beyond a plane its readers reach: columns (shared by the end of a row and the begin of the next), rows."""

    cols: int = 0
    top: int = 0
    bottom: int = 0

    def union(self, other: Halo) -> Halo:
        return Halo(max(self.cols, other.cols), max(self.top, other.top), max(self.bottom, other.bottom))


@dataclass(frozen=True)
class Layout:
    """Plane p, row r, column c lie at ``origin + p * plane + r * row + c``."""

    planes: int
    rows: int
    cols: int
    plane: int
    row: int
    origin: int = 0
    key: Hashable = "flat"
    whole: bool = False
    """Rows begin with vectors, or divide them. What lies beside the columns is then of no matter."""

    @property
    def size(self) -> int:
        """Floats of memory."""
        return up(self.planes * self.plane) + LANES

    @property
    def is_vector(self) -> bool:
        return self.plane == 1

    @property
    def sweep(self) -> tuple[int, int]:
        """(planes, vectors of each) with which an elementwise kernel goes over everything."""
        if self.is_vector:
            return 1, up(self.planes) // LANES
        return self.planes, up((self.rows - 1) * self.row + self.cols) // LANES

    @property
    def mask(self) -> NDArray[np.uint16] | None:
        """A bit per float of a plane's vectors: whether it belongs to the value; None when nothing must be kept zero."""
        if self.key == "flat":  # what lies behind its rows is nobody's padding
            return None
        inside = self._inside(0, self.row if self.whole else self.cols)
        return None if inside.all() else bits(inside)

    def moved_masks(self, shifts: Sequence[int], cols: int, rows: bool = False) -> NDArray[np.uint16]:
        """[shifts, vectors of a plane]: what has one of the first ``cols`` columns of its row so many to the right; with
        ``rows``, a shift is by the nearest number of rows, and by columns for the rest."""
        masks: NDArray[np.uint16] = aligned((len(shifts), self.sweep[1]), np.uint16)
        for mask, shift in zip(masks, shifts, strict=True):
            down = (shift + self.row // 2) // self.row if rows else 0
            right = shift - down * self.row
            mask[:] = bits(self._inside(-right, cols - right, down))
        return masks

    def _inside(self, begin: int, end: int, down: int = 0) -> NDArray[np.bool_]:
        row, column = np.divmod(np.arange(self.sweep[1] * LANES), self.row)
        there = (row < self.rows) & (row + down >= 0) & (row + down < self.rows)
        inside: NDArray[np.bool_] = there & (begin <= column) & (column < end)
        return inside


def bits(inside: NDArray[np.bool_]) -> NDArray[np.uint16]:
    """A bit for each, in words of a vector each; ``inside`` has whole vectors."""
    out: NDArray[np.uint16] = aligned(len(inside) // LANES, np.uint16)
    out[:] = (inside.reshape(-1, LANES) << np.arange(LANES)).sum(axis=1)
    return out


def vector(features: int) -> Layout:
    """Features one behind the other."""
    return Layout(features, 1, 1, 1, 1)


def columns(features: int, count: int) -> Layout:
    """A plane per feature, a column per token or sample."""
    return Layout(features, 1, count, up(count), up(count))


def compact(planes: int, rows: int, cols: int) -> Layout:
    """No padding at all, as callers have it."""
    return Layout(planes, rows, cols, rows * cols, cols)


def whole_row(cols: int) -> int:
    """The shortest row with which all rows begin at the same places of cache lines, as far as that goes."""
    return up(cols) if cols > 8 else 8 if cols > 4 else 4


def image(
    planes: int, rows: int, cols: int, halo: Halo, row: int = 0, whole: bool = False, key: Hashable = "image"
) -> Layout:
    """Planes with a halo; the first element of each begins a cache line."""
    row = row or cols + halo.cols
    origin = up(halo.cols + halo.top * row)
    plane = up(origin + max(up((rows - 1) * row + cols), (rows + halo.bottom) * row))
    if plane % _SAME_SETS == 0:
        plane += _SAME_SETS // 2
    if planes * plane > MOST_FLOATS:
        raise GraphError(f"an image of {planes} x {rows} x {cols} with its padding is too large.")
    return Layout(planes, rows, cols, plane, row, origin, (key, rows, cols, row, halo, whole), whole)


def lanes(planes: int, rows: int, cols: int, count: int, halo: Halo, key: Hashable = "lanes") -> Layout:
    """Images of ``count`` samples at once: a column is a float of each."""
    return image(planes, rows, cols * count, replace(halo, cols=halo.cols * count), key=key)


@dataclass(eq=False)
class Slot:
    """Memory of a space, for several values one after the other."""

    space: int
    key: Hashable
    size: int
    offset: int = 0


@dataclass(eq=False)
class Tensor:
    """A value in memory."""

    layout: Layout
    slot: Slot
    first_plane: int = 0

    @classmethod
    def new(cls, layout: Layout, space: Space) -> Tensor:
        return cls(layout, Slot(space, layout.key, layout.size))

    @property
    def space(self) -> int:
        return self.slot.space

    @property
    def base(self) -> int:
        return self.slot.offset + self.layout.origin + self.first_plane * self.layout.plane

    def value(self, planes: int | None = None) -> Value:
        """As the kernels know it."""
        layout = self.layout
        count = layout.planes if planes is None else planes
        return Value(self.base, layout.plane, layout.row, int(self.space), count, layout.rows, layout.cols)

    def part(self, begin: int, end: int) -> Tensor:
        """Some of the planes, in the same memory."""
        return Tensor(replace(self.layout, planes=end - begin), self.slot, self.first_plane + begin)

    def seen_as(self, layout: Layout) -> Tensor:
        """The same memory in another layout, from where this value begins."""
        begin = self.layout.origin + self.first_plane * self.layout.plane
        return Tensor(replace(layout, origin=begin), self.slot)


def assign(space: Space, uses: Iterable[tuple[int, Tensor]]) -> int:
    """Gives every tensor of ``space`` its memory, shared where lifetimes allow; the floats that are needed in all.

    ``uses`` are (step, tensor) in the order of steps. A slot's memory is free after its last step.
    """
    life: dict[Slot, list[int]] = {}
    for step, tensor in uses:
        if tensor.space == space:
            life.setdefault(tensor.slot, [step, step])[1] = step
    free: dict[Hashable, list[tuple[int, int, Slot]]] = defaultdict(
        list
    )  # nobody's memory, by layout; the largest first
    grounds: list[Slot] = []
    ground_of: dict[Slot, Slot] = {}
    ending = deque(sorted(life, key=lambda slot: life[slot][1]))
    order = count()
    for slot in sorted(life, key=lambda slot: life[slot][0]):
        while ending and life[ending[0]][1] < life[slot][0]:
            gone = ending.popleft()
            heappush(free[gone.key], (-ground_of[gone].size, next(order), ground_of[gone]))
        if free[slot.key]:
            ground = heappop(free[slot.key])[2]
            ground.size = max(ground.size, slot.size)
        else:
            ground = Slot(space, slot.key, slot.size)
            grounds.append(ground)
        ground_of[slot] = ground
    total = 0
    for ground in grounds:
        ground.offset = total
        total += up(ground.size) + 64  # kernels read whole vectors
    if total > MOST_FLOATS:
        raise GraphError(f"the network needs {4 * total:,} bytes of scratch memory; {4 * MOST_FLOATS:,} are allowed.")
    for slot, ground in ground_of.items():
        slot.offset = ground.offset
    return total
