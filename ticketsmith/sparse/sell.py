"""Sliced ELLPACK (SELL-C-sigma; Kreutzer et al. 2014) with blocks of columns: ``src/sparse/sell.inl`` reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ticketsmith.sparse.pattern import Pattern, cumulated
from ticketsmith.sparse.values import Floats, aligned, pairs, quantized, whole_numbers

SLICE_ROWS = 16

_WORTH_ORDERING = 0.95
"""The share of slots that must be left: outputs are then written one by one."""

_AT_ONCE = 128
"""Rows among which a slice chooses: with more it would take long to make a program."""

_GROWTH, _NEVER = 2**20, 2**60
"""Of two rows that let a slice grow as much, the fuller one is taken."""


@dataclass(frozen=True, eq=False)
class Sell:
    """16 rows by ``width`` columns at a time, each with as many slots of 16 weights as its fullest row needs."""

    pattern: Pattern
    first: NDArray[np.int64]
    slots: NDArray[np.uint16]
    columns: NDArray[np.uint8]
    order: NDArray[np.int32] | None
    """Which output each row is, where rows of about as many weights were put together; those that are none come to lie
    behind the last output."""
    places: NDArray[np.int64]
    """[nnz]: where each value of the pattern lies."""

    @classmethod
    def of(cls, pattern: Pattern, width: int = 64, four: int = 1) -> Sell:
        """``width`` columns (64 to 256) make a block. ``four``: weights of a row that lie side by side in a slot, which then has
        16 times as many."""
        (row, column), (outputs, inputs) = pattern.places, pattern.mask.shape
        slices, blocks = -(-outputs // SLICE_ROWS), -(-inputs // width)
        cell = row * blocks + column // width  # ascending: rows by rows, and within a row by columns
        counts = np.bincount(cell, minlength=slices * SLICE_ROWS * blocks)
        rank = np.arange(len(cell)) - np.repeat(np.cumsum(counts) - counts, counts)
        by_row = counts.reshape(slices * SLICE_ROWS, blocks)
        plain, order = np.arange(len(by_row)), _alike(by_row)
        is_ordered = _fullest(by_row, order).sum() <= _WORTH_ORDERING * _fullest(by_row, plain).sum()
        order = order if is_ordered else plain
        slots, lane = -(-_fullest(by_row, order) // four), np.argsort(order)[row]
        starts = cumulated(slots)
        slot = starts[lane // SLICE_ROWS * blocks + column // width] + rank // four
        places = (slot * SLICE_ROWS + lane % SLICE_ROWS) * four + rank % four
        # the kernels read four slots at a time, never more than there are; 64 spare bytes let narrow loads be wide
        columns = aligned(int(starts[-1]) * SLICE_ROWS * four + 64, np.uint8)
        columns[places] = column % width
        return cls(
            pattern, starts[::blocks].copy(), slots.astype(np.uint16), columns,
            order.astype(np.int32) if is_ordered else None, places,
        )  # fmt: skip

    def packed(self, values: NDArray[Any]) -> NDArray[Any]:
        """``values`` [nnz] in the order in which they are read."""
        out = aligned(len(self.columns), values.dtype)
        out[self.places] = values
        return out

    def weights(self, matrix: Floats, dtype: str) -> tuple[NDArray[Any], Floats | None]:
        """``packed``, of ``matrix`` [rows, columns] and as ``dtype``: float32, bfloat16, or int8 with a scale for each row,
        in the order of the rows."""
        values, scales = quantized(matrix, dtype, len(self.slots) * SLICE_ROWS)
        if scales is not None:
            scales = self.ordered(scales)
        return self.packed(self.pattern.values(values)), scales

    def ordered(self, rows: NDArray[Any]) -> NDArray[Any]:
        """A number for each row, in the order of the rows."""
        if self.order is None:
            return rows
        out = aligned(len(rows), rows.dtype)
        out[:] = rows[self.order]
        return out

    def dots(self, matrix: Floats, dtype: str) -> tuple[NDArray[Any], Floats, NDArray[np.int32]]:
        """For ``SellDot``, of a view with ``four=4``: the values of ``matrix`` as int8 or int4, what a step of each row is worth,
        and the sum of its steps."""
        numbers, scales, totals = whole_numbers(matrix, dtype, len(self.slots) * SLICE_ROWS)
        values = self.packed(self.pattern.values(numbers))
        return pairs(values) if dtype == "int4" else values, self.ordered(scales), self.ordered(totals)


def _fullest(weights: NDArray[np.int64], order: NDArray[np.int64]) -> NDArray[np.int64]:
    """[slices, blocks]: the most weights that a row of a slice has in each block."""
    most: NDArray[np.int64] = weights[order].reshape(-1, SLICE_ROWS, weights.shape[1]).max(axis=1)
    return most


def _alike(weights: NDArray[np.int64]) -> NDArray[np.int64]:
    """An order of rows with ``weights`` [rows, blocks] in which 16 that follow each other have about as many in each block.

    Sorted by their fullest block first; then, among some that follow each other, a slice takes the row that makes it grow
    least. Where rows are very uneven the latter spoils the former, and is left. Slices that would follow each other come to
    lie far apart, so that parts of all, as threads take them, have about as much work.
    """
    order = np.lexsort((weights.argmax(axis=1), -weights.max(axis=1)))
    parts = [order[begin : begin + _AT_ONCE] for begin in range(0, len(order), _AT_ONCE)]
    grouped = np.concatenate([part[_grouped(weights[part])] for part in parts])
    if _fullest(weights, grouped).sum() < _fullest(weights, order).sum():
        order = grouped
    slices = order.reshape(-1, SLICE_ROWS)
    digits = max(1, (len(slices) - 1).bit_length())
    turned = [int(f"{index:0{digits}b}"[::-1], 2) for index in range(len(slices))]
    return slices[np.argsort(turned, kind="stable")].ravel()


def _grouped(weights: NDArray[np.int64]) -> list[int]:
    left, total, order = np.ones(len(weights), bool), weights.sum(axis=1), []
    for _ in range(len(weights) // SLICE_ROWS):
        row = int(np.where(left, total, -1).argmax())
        most = weights[row]
        for index in range(SLICE_ROWS):
            if index:
                growth = np.maximum(weights - most, 0).sum(axis=1)
                row = int(np.where(left, _GROWTH * growth - total, _NEVER).argmin())
                most = np.maximum(most, weights[row])
            order.append(row)
            left[row] = False
    return order
