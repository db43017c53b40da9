"""Comparison groups inside a layer: the weights of one output (``scope: row``), and M neighbours of them (N:M patterns).

The input axis of a parameter is the one along which its inputs lie: 1 in torch's linear and convolution layers
``[out, in, ...]``, 0 in transposed convolutions and in the ``Conv1D`` of GPT-2 ``[in, out]``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ticketsmith.pruning.arithmetic import check_pattern


def rows(shape: torch.Size, axis: int) -> Tensor:
    """Flat indices of a parameter, ``[outputs, weights of an output]``."""
    return _indices(shape).movedim(axis, 1).flatten(1)


def neighbours(name: str, shape: torch.Size, axis: int | None, m: int) -> Tensor:
    """Flat indices of a parameter in groups that meet ``m`` consecutive inputs, ``[groups, m]``.

    Raises PruningError when the inputs are no multiple of ``m``, or there are none (``axis`` None).
    """
    check_pattern(name, 0 if axis is None else shape[axis], m)
    assert axis is not None
    return _indices(shape).movedim(axis, -1).reshape(-1, m)


def _indices(shape: torch.Size) -> Tensor:
    return torch.arange(shape.numel()).view(shape)
