"""Structure: which weights of a layer stay or go together, its *units*.

A new structure is a function, a line of ``STRUCTURES``, and a word of ``StructureName``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ticketsmith.errors import PruningError
from ticketsmith.pruning.layout import Layout, columns, rows
from ticketsmith.pruning.schedule import check_inputs


def single_weights(name: str, shape: torch.Size, layout: Layout) -> None:
    """Each weight is a unit, at its own place: no index is needed, which for a large network would take most memory."""


def whole_rows(name: str, shape: torch.Size, layout: Layout) -> Tensor:
    """All weights of an output are a unit. Raises PruningError for a layer without inputs, or under weight norm."""
    _check(name, shape, layout)
    return rows(shape, layout)


def whole_channels(name: str, shape: torch.Size, layout: Layout) -> Tensor:
    """All weights that meet an input are a unit. Raises PruningError for a layer without inputs, or under weight norm."""
    _check(name, shape, layout)
    return columns(shape, layout)


def _check(name: str, shape: torch.Size, layout: Layout) -> None:
    if layout.normed is not None:
        raise PruningError(
            f"pruning.structure: {name!r} is under weight norm, which divides by the norm of each output: none can go as a "
            "whole. Keep it dense by `pruning.exclude`."
        )
    check_inputs(name, layout.ends(shape)[1])


STRUCTURES: dict[str, Callable[[str, torch.Size, Layout], Tensor | None]] = {
    "unstructured": single_weights,
    "row": whole_rows,
    "channel": whole_channels,
}
"""From a layer's name, shape and layout to flat indices of its weights, ``[units, weights of a unit]``; None for each one."""
