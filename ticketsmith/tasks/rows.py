"""Examples that stay in their file: of data that may be larger than memory, only batches are read."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ticketsmith.data.arrays import is_mapped


class Rows:
    """Some examples of a memory-mapped array, ``[n, ...]``; on every device they are read from the file when asked for.

    The pages that were read are the system's, shared by all processes, and go when memory is needed.
    """

    def __init__(self, array: NDArray[Any], rows: NDArray[np.int64]) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nothing here writes
            self._whole = torch.from_numpy(array)
        self._rows = torch.from_numpy(rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, which: Tensor | slice) -> Tensor:
        """A copy of these, in memory."""
        return self._whole[self._rows[which.cpu() if isinstance(which, Tensor) else which]]

    def to(self, device: torch.device) -> Rows:
        """They stay where they are."""
        return self


def examples(array: NDArray[Any], rows: NDArray[np.int64]) -> Tensor | Rows:
    """The examples ``rows`` of ``array``: a copy in memory, or read from its file as they are asked for."""
    return Rows(array, rows) if is_mapped(array) else torch.tensor(array[rows])
