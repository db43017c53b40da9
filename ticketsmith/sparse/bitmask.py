"""A bit for each weight, and the values of those that are there: ``src/sparse/bitmask.inl`` reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ticketsmith.sparse.pattern import Pattern, cumulated
from ticketsmith.sparse.values import Floats, aligned, quantized

ROWS, COLUMNS = 8, 64
_SPARE = 16
"""Values behind the last one: the kernels read whole vectors."""


@dataclass(frozen=True, eq=False)
class Bitmask:
    """8 rows by 64 columns at a time: ``bits`` [rows / 8, blocks, 8], ``first`` [rows / 8 + 1]."""

    cells: NDArray[np.bool_]
    """The mask in the order in which it is read, [rows / 8, blocks, 8, 64]."""
    first: NDArray[np.int64]
    bits: NDArray[np.uint64]

    @classmethod
    def of(cls, pattern: Pattern) -> Bitmask:
        """The mask itself is the index."""
        cells = _cells(pattern.mask)
        bits: NDArray[np.uint64] = aligned(cells.shape[:3], np.uint64)
        bits[:] = np.packbits(cells, axis=-1, bitorder="little").view("<u8")[..., 0]
        return cls(cells, cumulated(cells.sum(axis=(1, 2, 3))), bits)

    def packed(self, matrix: NDArray[Any]) -> NDArray[Any]:
        """The values of ``matrix`` [rows, columns] in the order in which they are read. Of ``pattern.matrix(values)`` for
        values by themselves: places in between would cost more than they save."""
        values = _cells(matrix)[self.cells]
        out = aligned(len(values) + _SPARE, values.dtype)
        out[: len(values)] = values
        return out

    def weights(self, matrix: Floats, dtype: str) -> tuple[NDArray[Any], Floats | None]:
        """``packed``, as ``dtype``: float32, bfloat16, or int8 with a scale for each row."""
        values, scales = quantized(matrix, dtype, len(self.bits) * ROWS)
        return self.packed(values), scales


def _cells(matrix: NDArray[Any]) -> NDArray[Any]:
    """[rows / 8, blocks, 8, 64]: the order in which they are read."""
    rows, columns = matrix.shape
    groups, blocks = -(-rows // ROWS), -(-columns // COLUMNS)
    full = np.zeros((groups * ROWS, blocks * COLUMNS), matrix.dtype)
    full[:rows, :columns] = matrix
    return full.reshape(groups, ROWS, blocks, COLUMNS).transpose(0, 2, 1, 3)
