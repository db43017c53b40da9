"""The order in which training examples are seen."""

from __future__ import annotations

import torch
from torch import Tensor

from ticketsmith.streams import derive


class DataOrder:
    """An endless sequence of shuffled epochs, cut into batches; an epoch's end may fall inside a batch.

    The batch of a step depends on seed, size and step alone, so training can begin at any step.
    """

    def __init__(self, seed: int, size: int, batch_size: int) -> None:
        self._seed, self._size, self._batch = seed, size, batch_size
        self._epochs: dict[int, Tensor] = {}

    def indices(self, step: int, steps: int = 1) -> Tensor:
        """Indices of the examples of the batch of ``step``, ``[batch_size]``; of ``steps`` batches, one after the other."""
        start, stop = step * self._batch, (step + steps) * self._batch
        parts = []
        while start < stop:
            epoch, offset = divmod(start, self._size)
            part = self._epoch(epoch)[offset : offset + stop - start]
            parts.append(part)
            start += len(part)
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _epoch(self, epoch: int) -> Tensor:
        if epoch not in self._epochs:
            self._epochs = {number: order for number, order in self._epochs.items() if number == epoch - 1}
            generator = torch.Generator().manual_seed(derive(self._seed, "order", epoch))
            self._epochs[epoch] = torch.randperm(self._size, generator=generator)
        return self._epochs[epoch]
