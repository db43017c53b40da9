"""Where values lie in lanes, and from where and to where a layer's taps lead.

A value is [block of examples][channel][row][column][lane], with a border of zeros around an image. A tap is a weight and
the distance, in floats, from where an output's window begins to the input that it multiplies.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ticketsmith.native import abi
from ticketsmith.training.native.graph import Shape
from ticketsmith.training.native.pattern import Ints

Pair = tuple[int, int]

VECTOR = 16
_MOST_VECTORS = 8
CACHE = 24 * 1024 // 4
"""Floats of a first cache that may be one operand's."""


def lanes(batch_size: int, image: bool) -> tuple[int, int]:
    """How many examples lie side by side, and how many blocks of them there are. Images take a vector of examples, so that a
    row of pixels is a row of vectors; features take up to eight."""
    vectors = -(-batch_size // VECTOR)
    if image:
        return VECTOR, vectors
    blocks = -(-vectors // _MOST_VECTORS)
    return VECTOR * -(-vectors // blocks), blocks


@dataclass(frozen=True)
class Layout:
    """Where the values of a batch lie; distances in floats."""

    shape: Shape
    lanes: int
    blocks: int
    border: tuple[int, int] = (0, 0)

    @property
    def row(self) -> int:
        return (self.shape[2] + 2 * self.border[1]) * self.lanes

    @property
    def plane(self) -> int:
        return (self.shape[1] + 2 * self.border[0]) * self.row

    @property
    def block(self) -> int:
        return self.shape[0] * self.plane

    @property
    def size(self) -> int:
        return self.blocks * self.block

    @property
    def origin(self) -> int:
        """Where the first number within the border lies."""
        return self.border[0] * self.row + self.border[1] * self.lanes

    @property
    def pixels(self) -> int:
        return self.shape[1] * self.shape[2]

    def channels(self) -> Ints:
        """[channels]: where each begins, from the origin."""
        return (np.arange(self.shape[0]) * self.plane).astype(np.int32)

    def features(self) -> Ints:
        """[channels * rows * columns]: where each number lies, from the origin, in the order of ``flatten``."""
        _, height, width = self.shape
        inside = np.add.outer(np.arange(height) * self.row, np.arange(width) * self.lanes).reshape(-1)
        return np.add.outer(self.channels(), inside).reshape(-1).astype(np.int32)

    @property
    def image(self) -> Pair:
        return self.shape[1], self.shape[2]

    @property
    def count(self) -> int:
        """Numbers of an example."""
        return self.shape[0] * self.pixels


def vectors(inside: Layout, outside: Layout, stride: Pair = (1, 1), out_stride: Pair = (1, 1)) -> abi.Vectors:
    """The vectors of a channel of ``outside``, and what they read of ``inside``: those of an image, or those of a feature."""
    if inside.lanes > VECTOR:
        return flat_vectors(inside, outside)
    return abi.Vectors(
        outside.blocks, *outside.image,
        inside.block, inside.row * stride[0], inside.lanes * stride[1],
        outside.block, outside.row * out_stride[0], outside.lanes * out_stride[1],
    )  # fmt: skip


def flat_vectors(inside: Layout, outside: Layout) -> abi.Vectors:
    """The same where every number is a feature. Blocks of one vector are columns, so that a weight is read for several."""
    if inside.lanes > VECTOR:
        return abi.Vectors(
            outside.blocks, 1, outside.lanes // VECTOR, inside.block, 0, VECTOR, outside.block, 0, VECTOR
        )  # fmt: skip
    return abi.Vectors(1, 1, outside.blocks, 0, 0, inside.block, 0, 0, outside.block)


@dataclass(frozen=True, eq=False)
class Phase:
    """Pixels of an image that a stride apart have the same taps: from ``start`` on, ``counts`` rows and columns of them. For
    each tap its place in the kernel, and how many rows and columns from the pixel's place the output lies."""

    start: tuple[int, int]
    counts: tuple[int, int]
    places: Ints
    offsets: NDArray[np.int64]
    """[taps, 2]."""


def phases(kernel: Pair, stride: Pair, padding: Pair, image: Pair) -> Iterator[Phase]:
    """For the gradient of the input, an ``image`` of rows and columns, of a convolution."""
    for start in product(*(range(min(step, size)) for step, size in zip(stride, image, strict=True))):
        taps = [
            (row * kernel[1] + column, *(lead // step for lead, step in zip(leads, stride, strict=True)))
            for row, column in product(range(kernel[0]), range(kernel[1]))
            if not any(
                (leads := (start[0] + padding[0] - row, start[1] + padding[1] - column))[axis] % stride[axis]
                for axis in (0, 1)
            )
        ]
        table = np.array(taps, np.int64).reshape(-1, 3)
        rows, columns = (-(-(size - first) // step) for size, first, step in zip(image, start, stride, strict=True))
        yield Phase((start[0], start[1]), (rows, columns), table[:, 0].astype(np.int32), table[:, 1:])


def reach(kernel: Pair, stride: Pair, padding: Pair, image: Pair, outputs: Pair) -> Pair:
    """How far beyond the outputs' rows and columns their gradient is read."""
    most = [0, 0]
    for phase in phases(kernel, stride, padding, image):
        for axis in (0, 1):
            if phase.places.size:
                low, high = (
                    phase.offsets[:, axis].min(),
                    phase.offsets[:, axis].max() + phase.counts[axis] - outputs[axis],
                )
                most[axis] = max(most[axis], -int(low), int(high))
    return most[0], most[1]


def taps_of(layout: Layout, channels: NDArray[Any], kernel: Pair, padding: Pair) -> Ints:
    """[channels * rows * columns of the kernel]: where each tap of a window leads, from the origin of its first pixel."""
    rows = (np.arange(kernel[0]) - padding[0]) * layout.row
    columns = (np.arange(kernel[1]) - padding[1]) * layout.lanes
    window = np.add.outer(rows, columns).reshape(-1)
    taps: Ints = np.add.outer(layout.channels()[channels], window).reshape(-1).astype(np.int32)
    return taps


def table(
    outputs: NDArray[Any], parts: NDArray[Any], offsets: NDArray[Any], places: NDArray[Any], count: int
) -> tuple[Ints, Ints]:
    """Taps of sparse sums, by ``parts`` of what they read and then by ``outputs``, of which there are ``count``: where each
    begins, and pairs of offset and place."""
    order = np.lexsort((outputs, parts))  # stable: within an output taps stay in order
    sizes = np.bincount(parts * count + outputs, minlength=(int(parts.max(initial=0)) + 1) * count)
    pairs = np.stack([offsets[order], places[order]], 1).astype(np.int32)
    return np.append(0, np.cumsum(sizes)).astype(np.int32), pairs


def no_taps(count: int) -> tuple[Ints, Ints]:
    """The same for ``count`` outputs of which no tap is there."""
    nothing = np.zeros(0, np.int64)
    return table(nothing, nothing, nothing, nothing, count)


def zeros(count: int, dtype: Any = np.float32) -> NDArray[Any]:
    """Zeros that begin with a cache line."""
    size = np.dtype(dtype).itemsize
    raw = np.zeros(count * size + 64, np.uint8)
    skip = -raw.ctypes.data % 64
    return raw[skip : skip + count * size].view(dtype)


def distance(taps: int) -> int:
    """How far the weights of neighbouring outputs lie: whole vectors, an odd number of them, so that outputs do not meet in
    the same places of a cache."""
    return VECTOR * (-(-taps // VECTOR) | 1)
