"""Where the numbers of a value lie.

A value is a set of planes. Images have zero rows around them, as far as the convolutions at their resolution reach, so that
a shifted plane is the same plane read from another offset, and a whole plane can be computed as one long row. Where rows are
not much shorter than vectors ("whole" rows), they begin with a vector: what a convolution reads is then of whole cache
lines, and it moves its sums by columns instead of its inputs. Elsewhere zero columns lie between the rows, and shifts by
columns are offsets too.

The zeros are written once, when memory is made: whatever writes an image leaves them alone, and memory is shared only
between values of one layout.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ticketsmith.runtime.graph import GraphError
from ticketsmith.sparse.values import aligned

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


class Layout(NamedTuple):
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

    @property
    def columns_mask(self) -> NDArray[np.uint16]:
        """[plane / 16]: a bit for each float of a plane's memory that is a column of the value."""
        mask: NDArray[np.uint16] = aligned(self.plane // LANES, np.uint16)
        mask[self.origin // LANES :][: self.sweep[1]] = bits(self._inside(0, self.cols))
        return mask

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
