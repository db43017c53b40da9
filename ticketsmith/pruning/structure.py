"""Structure: which weights of a layer stay or go together, its *units*.

A new structure is a function, a line of ``STRUCTURES``, and a word of ``StructureName``. Blocks have a size besides.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ticketsmith.pruning.layout import Layout, blocks, columns, rows
from ticketsmith.pruning.schedule import check_inputs, refuse_normed


def single_weights(name: str, shape: torch.Size, layout: Layout) -> None:
    """Each weight is a unit, at its own place: no index is needed, which for a large network would take most memory."""


def whole_rows(name: str, shape: torch.Size, layout: Layout) -> Tensor:
    """All weights of an output are a unit. Raises PruningError for a layer without inputs, or under weight norm."""
    _check(name, shape, layout, "structure")
    return rows(shape, layout)


def whole_channels(name: str, shape: torch.Size, layout: Layout) -> Tensor:
    """All weights that meet an input are a unit. Raises PruningError for a layer without inputs, or under weight norm."""
    _check(name, shape, layout, "structure")
    return columns(shape, layout)


def whole_blocks(name: str, shape: torch.Size, layout: Layout, block: tuple[int, int]) -> Tensor:
    """Blocks of weights are units (Gray et al. 2017; Narang et al. 2017, arXiv:1711.02782), as ``layout.blocks`` has them.
    Raises PruningError for a layer without inputs, or under weight norm."""
    _check(name, shape, layout, "pattern")
    return blocks(shape, layout, block).flatten(0, 1)


def units(
    name: str, shape: torch.Size, layout: Layout, structure: str, block: tuple[int, int] | None = None
) -> Tensor | None:
    """Flat indices of the layer's units, ``[units, weights of a unit]``, -1 where a block at the edge has fewer; None where
    each weight is one."""
    if block is not None:
        return whole_blocks(name, shape, layout, block)
    return STRUCTURES[structure](name, shape, layout)


def worth(scores: Tensor, units: Tensor) -> Tensor:
    """The mean of the scores of each unit's weights: of whole blocks it ranks as their sum does, and to those at the edge, which
    are smaller, it does justice. Where pruning is by magnitude it is the L1 norm of a block over its size."""
    inside = units >= 0
    if bool(inside.all()):
        return scores[units].mean(1)
    return torch.where(inside, scores[units], 0.0).sum(1) / inside.sum(1)


def alive(mask: Tensor, units: Tensor) -> Tensor:
    """Whether any weight of each unit is alive."""
    return (mask[units] & (units >= 0)).any(1)


def _check(name: str, shape: torch.Size, layout: Layout, field: str) -> None:
    if layout.normed is not None:
        refuse_normed(name, field)
    check_inputs(name, layout.ends(shape)[1], field=field)


STRUCTURES: dict[str, Callable[[str, torch.Size, Layout], Tensor | None]] = {
    "unstructured": single_weights,
    "row": whole_rows,
    "channel": whole_channels,
}
"""From a layer's name, shape and layout to flat indices of its weights, ``[units, weights of a unit]``; None for each one."""
