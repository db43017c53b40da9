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
    """The weights that a mask [outputs, taps] leaves. They lie by parts of the taps, then by outputs; and four neighbours have
    the same output: where an output's number of weights is no multiple of four, its last weight is there more than once, and
    copies are never read."""

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
    def of(cls, mask: NDArray[np.bool_], part: int) -> Survivors:
        """``part``: so many neighbouring taps are a part."""
        outputs, taps = mask.shape
        places = np.flatnonzero(mask)
        rows, columns = np.divmod(places, taps)
        segments = columns // part * outputs + rows
        order = np.argsort(segments, kind="stable")
        counts = np.bincount(segments, minlength=-(-taps // part) * outputs)
        fours = -(-counts // _FOUR)
        first, begin = np.cumsum(counts) - counts, _FOUR * (np.cumsum(fours) - fours)
        slots = np.empty_like(places)
        slots[order] = np.arange(places.size) + (begin - first)[segments[order]]
        size = -(-max(1, _FOUR * int(fours.sum())) // _GROUP) * _GROUP
        last = np.zeros(size, np.int64)  # of each slot, how many weights there are up to it
        last[slots[order]] = np.arange(places.size)
        last = np.maximum.accumulate(last)
        owners = np.repeat(np.arange(counts.size) % outputs, fours)
        owners = np.append(owners, np.full(size // _FOUR - owners.size, owners[-1] if owners.size else 0))
        return cls(
            (outputs, taps),
            places.astype(np.int32),
            slots.astype(np.int32),
            (columns[order][last] if places.size else last).astype(np.int32),
            owners.astype(np.int32),
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
