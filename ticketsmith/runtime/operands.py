"""What operations read and write: values in memory, as planes, as one side of a copy, or as strided arrays.

Lowering makes operands while nothing has an address yet. Once memory is assigned to their slots, ``structure`` gives each
as the kernels take it.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from ticketsmith.native import abi
from ticketsmith.runtime.graph import MOST_AXES, GraphError, Shape
from ticketsmith.runtime.layout import Layout


@dataclass(eq=False)
class Slot:
    """Memory of a space, for several values one after the other. Slots of one ``key`` may share memory."""

    space: int
    key: Hashable
    size: int
    offset: int = 0


@dataclass(eq=False)
class Tensor:
    """A value in memory, as planes."""

    layout: Layout
    slot: Slot
    first_plane: int = 0

    @classmethod
    def new(cls, layout: Layout, space: abi.Space) -> Tensor:
        """A value with a slot of its own."""
        return cls(layout, Slot(space, layout.key, layout.size))

    @classmethod
    def at(cls, layout: Layout, space: int, offset: int = 0) -> Tensor:
        """A value in memory that is not assigned: a caller's, a constant, or a session's."""
        return cls(layout, Slot(space, None, 0, offset))

    @property
    def tensor(self) -> Tensor:
        return self

    @property
    def space(self) -> int:
        return self.slot.space

    @property
    def batched(self) -> bool:
        """Whether it holds a whole batch, a lane for each sample."""
        return self.slot.space == abi.Space.BATCH

    @property
    def base(self) -> int:
        return self.slot.offset + self.layout.origin + self.first_plane * self.layout.plane

    def structure(self) -> abi.Value:
        own = self.layout
        return abi.Value(self.base, own.plane, own.row, self.slot.space, own.planes, own.rows, own.cols)

    def part(self, begin: int, end: int) -> Tensor:
        """Some of the planes, in the same memory."""
        return Tensor(self.layout._replace(planes=end - begin), self.slot, self.first_plane + begin)

    def columns(self, begin: int, end: int) -> Tensor:
        """Some of the columns of planes of one row, in the same memory."""
        own = self.layout
        return Tensor(own._replace(cols=end - begin, origin=own.origin + begin), self.slot, self.first_plane)

    def as_layout(self, layout: Layout) -> Tensor:
        """The same memory in another layout, from where this value begins."""
        begin = self.layout.origin + self.first_plane * self.layout.plane
        return Tensor(layout._replace(origin=begin), self.slot)


class Strided(NamedTuple):
    """One side of a copy: distances in floats between planes, rows, columns and samples, and where it begins."""

    tensor: Tensor
    plane: int
    row: int
    col: int = 1
    sample: int = 0
    offset: int = 0

    def structure(self) -> abi.Strided:
        base = self.tensor.base + self.offset
        return abi.Strided(base, self.plane, self.row, self.col, self.sample, int(self.tensor.space))


class View(NamedTuple):
    """A value as an array: floats between the elements along each axis, and where it begins in its tensor. ``step``: how
    much later it begins for each token that a session holds already."""

    tensor: Tensor
    shape: Shape
    strides: Shape
    offset: int = 0
    step: int = 0
    integer: bool = False

    @classmethod
    def of(cls, tensor: Tensor, shape: Shape) -> View:
        """A value of ``shape`` where it lies."""
        own = tensor.layout
        if own.plane == 1:
            return cls(tensor, shape, compact(shape))
        return cls(tensor, shape, {1: (own.plane,), 2: (1, own.plane), 3: (own.plane, own.row, 1)}[len(shape)])

    def expanded(self, shape: Shape) -> View:
        """As an array of a shape that it can be broadcast to."""
        missing = len(shape) - len(self.shape)
        strides = [0 if a == 1 else s for a, s in zip(self.shape, self.strides, strict=True)]
        return self._replace(shape=shape, strides=(*[0] * missing, *strides))

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
        return None if any(n != 1 for n in rest) else self._replace(shape=shape, strides=(*strides, *[0] * len(rest)))

    def split_tokens(self, shape: Shape) -> View:
        """``split``, for tokens into sequences and features into heads. Raises GraphError where that cannot be."""
        view = self.split(shape)
        if view is None:
            raise GraphError("an array cannot be split into heads as it lies.")
        return view

    def permuted(self, axes: Sequence[int]) -> View:
        return self._replace(shape=tuple(self.shape[a] for a in axes), strides=tuple(self.strides[a] for a in axes))

    def is_compact(self) -> bool:
        """Whether it lies in row-major order, without gaps."""
        return all(n == 1 or a == b for n, a, b in zip(self.shape, self.strides, compact(self.shape), strict=True))

    def along(self, strides: Sequence[int]) -> View:
        """The same memory, as an operation with loops of its own walks over it."""
        return self._replace(strides=tuple(strides))

    def structure(self) -> abi.Array:
        strides = (*self.strides, *[0] * (MOST_AXES - len(self.strides)))
        return abi.Array(self.tensor.base + self.offset, self.step, strides, int(self.tensor.space), self.integer)


Operand = Tensor | Strided | View
"""Something in memory that an operation reads or writes: ``structure`` is how kernels take it."""


def compact(shape: Shape) -> Shape:
    """Strides of an array in row-major order."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def common_axes(one: Shape, other: Shape) -> Shape | None:
    """The coarsest shape whose axes make up those of both; None where there is none."""
    cuts = sorted({math.prod(shape[:axis]) for shape in (one, other) for axis in range(len(shape) + 1)})
    if any(b % a for a, b in pairwise(cuts)):
        return None
    return tuple(b // a for a, b in pairwise(cuts)) or (1,)


def loops(sizes: Sequence[int], strides: Sequence[Sequence[int]], count: int) -> tuple[list[int], list[list[int]]]:
    """``count`` loops over several arrays at once: their sizes, and the strides of each array.

    Axes of ``sizes`` that lie one behind the other in all arrays become one loop; the last array's elements that lie side by
    side come last; loops of size 1 come first. Raises GraphError when more are needed.
    """
    order = [axis for axis in range(len(sizes)) if sizes[axis] > 1]
    order.sort(key=lambda axis: -abs(strides[-1][axis]))
    merged: list[list[int]] = []  # of each loop its size, then a stride for each array
    for axis in order:
        size, own = sizes[axis], [one[axis] for one in strides]
        if merged and merged[-1][1:] == [size * stride for stride in own]:
            merged[-1] = [size * merged[-1][0], *own]
        else:
            merged.append([size, *own])
    if len(merged) > count:
        raise GraphError("an operation goes over more axes than the runtime knows.")
    table = [[1] + [0] * len(strides)] * (count - len(merged)) + merged
    return [size for size, *_ in table], [[loop[1 + index] for loop in table] for index in range(len(strides))]
