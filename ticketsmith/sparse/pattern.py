"""Which weights of a matrix are there."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray


def cumulated(counts: NDArray[Any]) -> NDArray[np.int64]:
    """[n + 1]: where each of some parts of these sizes begins, one behind the other, and the end of the last."""
    starts = np.zeros(counts.size + 1, np.int64)
    np.cumsum(counts.ravel(), out=starts[1:])
    return starts


@dataclass(frozen=True, eq=False)
class Pattern:
    """The mask of a matrix, and the places that it leaves: by rows, and within a row by columns. Immutable.

    ``values`` [nnz] of a pattern are in this order. They are no part of it: a product, its transpose, a sampled product and an
    optimizer share both.
    """

    mask: NDArray[np.bool_]
    """[rows, columns]."""

    def __post_init__(self) -> None:
        self.mask.flags.writeable = False

    @classmethod
    def of(cls, weight: NDArray[Any]) -> Pattern:
        """Of what is not zero in ``weight`` [rows, columns]."""
        return cls(weight != 0)

    @cached_property
    def places(self) -> tuple[NDArray[np.int64], ...]:
        """Of each weight the row, ascending, and the column, ascending within a row: [nnz] each."""
        places = np.nonzero(self.mask)
        for index in places:
            index.flags.writeable = False
        return places

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """[rows + 1]: where the weights of each row begin, and the end."""
        return cumulated(np.count_nonzero(self.mask, axis=1))

    @cached_property
    def transposed(self) -> Pattern:
        """The pattern of the transposed matrix."""
        return Pattern(self.mask.T.copy())

    @cached_property
    def permutation(self) -> NDArray[np.intp]:
        """[nnz]: ``values[permutation]`` are those of the transpose, in its order."""
        return np.argsort(self.places[1], kind="stable")

    def values(self, matrix: NDArray[Any]) -> NDArray[Any]:
        """[nnz]: what ``matrix`` [rows, columns] has in these places."""
        picked: NDArray[Any] = matrix[self.mask]
        return picked

    def matrix(self, values: NDArray[Any]) -> NDArray[Any]:
        """[rows, columns]: ``values`` [nnz] in their places, zeros elsewhere."""
        full: NDArray[Any] = np.zeros(self.mask.shape, values.dtype)
        full[self.mask] = values
        return full
