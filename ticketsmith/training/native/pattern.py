"""Surviving weights of a layer, in the order in which their gradients are computed and the optimizer passes over them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int32]

_FOUR = 4
_GROUP = 16


@dataclass(frozen=True, eq=False)
class Survivors:
    """The weights that a mask [outputs, taps] leaves. They lie by outputs, and four neighbours have the same output: where an
    output's number of weights is no multiple of four, its last weight is there more than once, and copies are never read."""

    shape: tuple[int, int]
    places: Ints
    """[nnz]: where each weight lies in the flat matrix, ascending."""
    slots: Ints
    """[nnz]: and where among the values."""
    columns: Ints
    """[size]: the tap of each value."""
    rows: Ints
    """[size / 4]: the output of each four."""

    @classmethod
    def of(cls, mask: NDArray[np.bool_]) -> Survivors:
        outputs, taps = mask.shape
        places = np.flatnonzero(mask)
        rows, columns = np.divmod(places, taps)
        counts = np.bincount(rows, minlength=outputs)
        fours = -(-counts // _FOUR)
        starts = _FOUR * (np.cumsum(fours) - fours)
        within = np.arange(places.size) - (np.cumsum(counts) - counts)[rows]
        slots = starts[rows] + within
        size = -(-max(1, _FOUR * int(fours.sum())) // _GROUP) * _GROUP
        last = np.zeros(size, np.int64)  # of each slot, the last weight that is there or before
        last[slots] = np.arange(places.size)
        last = np.maximum.accumulate(last)
        owner = np.repeat(np.arange(outputs), fours)
        return cls(
            (outputs, taps),
            places.astype(np.int32),
            slots.astype(np.int32),
            (columns[last] if places.size else last).astype(np.int32),
            np.append(owner, np.full(size // _FOUR - owner.size, owner[-1] if owner.size else 0)).astype(np.int32),
        )

    @property
    def size(self) -> int:
        """How many values there are, copies included; a multiple of 16."""
        return int(self.columns.size)

    def values(self, matrix: NDArray[Any]) -> NDArray[Any]:
        """[nnz] of a matrix [outputs, taps]."""
        picked: NDArray[Any] = matrix.reshape(-1)[self.places]
        return picked

    def matrix(self, values: NDArray[Any]) -> NDArray[Any]:
        """[outputs, taps] of values [nnz]; zeros elsewhere."""
        full = np.zeros(self.shape[0] * self.shape[1], values.dtype)
        full[self.places] = values
        return full.reshape(self.shape)
