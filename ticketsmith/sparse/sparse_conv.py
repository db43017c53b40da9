"""Direct sparse convolution (cf. Park et al. 2017, Faster CNNs with direct sparse convolutions and guided pruning): a weight
with the offset of what it reads. ``src/sparse/sparse_conv.inl`` reads it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ticketsmith.errors import TicketSmithError
from ticketsmith.native import abi
from ticketsmith.sparse.pattern import Pattern, cumulated
from ticketsmith.sparse.values import aligned

TAP = np.dtype(abi.Tap)
QUAD = np.dtype(abi.Quad)
STRETCH = np.dtype(abi.Stretch)
_SPARE = 2
"""Taps behind the last one: the kernels know where they read from two taps before."""


@dataclass(frozen=True, eq=False)
class SparseConv:
    """Taps by block of input planes, output plane, and the columns that they are moved by: ``shifts``, first 0.
    ``starts`` is [blocks * outputs * shifts + 1]."""

    offsets: NDArray[np.int64]
    starts: NDArray[np.int32]
    shifts: NDArray[np.int64]
    blocks: int
    moves: NDArray[np.uint8]
    """Of each tap, the place in ``shifts``."""
    order: NDArray[np.intp]
    """[nnz]: which value of the pattern each tap has."""

    @classmethod
    def of(cls, pattern: Pattern, offsets: NDArray[np.int64], planes: NDArray[np.int64], moves: NDArray[np.int64],
           block_planes: int) -> SparseConv:  # fmt: skip
        """``pattern`` [outputs, taps]; where each tap reads [outputs or 1, taps], from which plane, and how far what it gives
        is moved, of the same shape."""
        (row, column), outputs = pattern.places, len(pattern.mask)
        where = row if len(offsets) > 1 else 0
        offset, plane, move = offsets[where, column], planes[where, column], moves[where, column]
        if offset.size and (offset.max() >= 2**31 or offset.min() < -(2**31)):
            raise TicketSmithError("a layer is too large: its input does not fit 32-bit offsets.")
        shifts = np.array([0, *sorted(set(move.tolist()) - {0})], np.int64)
        group = np.zeros_like(move)
        for index, shift in enumerate(shifts):
            group[move == shift] = index
        blocks = max(1, -(-(int(planes.max()) + 1) // block_planes))
        key = (plane // block_planes * outputs + row) * len(shifts) + group
        order = np.argsort(key, kind="stable")
        starts = cumulated(np.bincount(key, minlength=blocks * outputs * len(shifts))).astype(np.int32)
        group_of_tap: NDArray[np.uint8] = aligned(len(order) + _SPARE, np.uint8)
        group_of_tap[:-_SPARE] = group[order]
        return cls(offset[order], starts, shifts, blocks, group_of_tap, order)

    @classmethod
    def few(
        cls, pattern: Pattern, offsets: NDArray[np.int64], planes: NDArray[np.int64], moves: NDArray[np.int64]
    ) -> SparseConv:
        """The same for taps that are read where they lie, of all input planes at once: ``starts`` is [outputs + 1]."""
        conv = cls.of(pattern, offsets + moves, planes, moves, int(planes.max()) + 1)
        return replace(conv, starts=np.ascontiguousarray(conv.starts[:: len(conv.shifts)]))

    def packed(self, values: NDArray[Any]) -> NDArray[Any]:
        """``values`` [nnz] with their offsets, in the order in which they are read: float32, or int32 of four weights."""
        taps = aligned(len(self.order) + _SPARE, TAP)
        taps["offset"][:-_SPARE], taps["weight"][:-_SPARE] = self.offsets, values[self.order].view(np.float32)
        return taps

    def fours(self, matrix: NDArray[Any]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Of the pattern of ``in_fours``: where taps read from, [n], and the weights of ``matrix`` [outputs, taps], [n, 4]."""
        offsets, weights = aligned(len(self.order), np.int32), aligned((len(self.order), 4), np.float32)
        offsets[:] = self.offsets
        weights[:] = _by_fours(matrix).transpose(0, 2, 1)[in_fours(matrix).mask][self.order]
        return offsets, weights

    def totals(self, values: NDArray[Any]) -> NDArray[np.int32]:
        """Sums of ``values`` [nnz], one for each of what ``starts`` begins."""
        ends = cumulated(values[self.order])[self.starts]
        return np.diff(ends).astype(np.int32)


@dataclass(frozen=True, eq=False)
class Quads:
    """Four taps of an output together, whatever they read, by block of input planes and output plane: ``starts`` is [blocks *
    outputs + 1]. Of the last of each, taps may be missing: their weights are 0."""

    offsets: NDArray[np.int32]
    """[quads, 4]"""
    starts: NDArray[np.int32]
    blocks: int
    places: NDArray[np.intp]
    """[nnz]: where each value of the pattern lies in quads."""

    @classmethod
    def of(cls, pattern: Pattern, offsets: NDArray[np.int64], planes: NDArray[np.int64], block_planes: int) -> Quads:
        """As ``SparseConv.of``, without moves."""
        (row, column), outputs = pattern.places, len(pattern.mask)
        where = row if len(offsets) > 1 else 0
        offset, plane = offsets[where, column], planes[where, column]
        if offset.size and (offset.max() >= 2**31 or offset.min() < -(2**31)):
            raise TicketSmithError("a layer is too large: its input does not fit 32-bit offsets.")
        blocks = max(1, -(-(int(planes.max()) + 1) // block_planes))
        key = plane // block_planes * outputs + row
        order, counts = np.argsort(key, kind="stable"), np.bincount(key, minlength=blocks * outputs)
        starts = cumulated(-(-counts // 4))
        within = np.arange(len(order)) - np.repeat(cumulated(counts)[:-1], counts)
        slots = np.repeat(4 * starts[:-1], counts) + within
        places = np.empty_like(order)
        places[order] = slots
        first = np.zeros(int(starts[-1]), np.int64)
        begins = slots % 4 == 0
        first[slots[begins] // 4] = offset[order][begins]
        each: NDArray[np.int32] = np.repeat(first, 4).astype(np.int32)
        each[slots] = offset[order]
        return cls(each.reshape(-1, 4), starts.astype(np.int32), blocks, places)

    def packed(self, values: NDArray[np.int8]) -> NDArray[Any]:
        """``values`` [nnz] with their offsets, in the order in which they are read."""
        quads, weights = aligned(max(1, len(self.offsets)), QUAD), np.zeros((len(self.offsets), 4), np.int8)
        weights.reshape(-1)[self.places] = values
        quads["offset"][: len(weights)], quads["weights"][: len(weights)] = self.offsets, weights.view(np.int32)[:, 0]
        return quads


def in_fours(weight: NDArray[Any]) -> Pattern:
    """[outputs / 4, rounded up, taps]: the taps that any of four neighbouring outputs of ``weight`` [outputs, taps] has."""
    return Pattern((_by_fours(weight) != 0).any(1))


def _by_fours(weight: NDArray[Any]) -> NDArray[Any]:
    whole = np.zeros((-(-len(weight) // 4) * 4, weight.shape[1]), weight.dtype)
    whole[: len(weight)] = weight
    return whole.reshape(-1, 4, weight.shape[1])
