"""Distribution: which units of a network compete with each other, and how many of them a round leaves.

A new distribution is a function, a line of ``DISTRIBUTIONS``, and a word of ``PruneRule.scope``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ticketsmith.pruning.layout import Layout, rows
from ticketsmith.pruning.names import rate
from ticketsmith.pruning.schedule import survivors
from ticketsmith.spec import PruneRule


@dataclass(frozen=True)
class Candidates:
    """The units of a layer: their scores and whether they are alive, ``[units]``; the layer's shape and layout.

    ``pattern``: groups of them, ``[groups, M]``, of which N stay whatever else competes (N:M); None without one.
    ``block_rows``: rows of blocks, where units are blocks; None where they are not.
    """

    scores: Tensor
    alive: Tensor
    shape: torch.Size
    layout: Layout
    pattern: tuple[Tensor, int] | None
    block_rows: int | None = None

    @property
    def rows(self) -> Tensor:
        """The units of each output, or row of blocks: places ``[rows, units of a row]``."""
        if self.block_rows is None:
            return rows(self.shape, self.layout)
        return torch.arange(len(self.scores)).view(self.block_rows, -1)


Layers = Iterable[tuple[str, Candidates]]
"""Each layer's name and candidates, one after another: of a large network, those of all at once take gigabytes."""


def by_layer(layers: Layers, rule: PruneRule) -> dict[str, Tensor]:
    """The same fraction of every layer, but for ``rates``; with a pattern, N of every M."""
    stays = {}
    for name, units in layers:
        if units.pattern is None:
            left = survivors(int(units.alive.sum()), rate(rule, name), rule.rounds)
            stays[name] = highest(units.scores, units.alive, left)
        else:
            groups, n = units.pattern
            stays[name] = highest_of_each(units.scores, units.alive, groups, torch.full((len(groups),), n))
    return stays


def by_row(layers: Layers, rule: PruneRule) -> dict[str, Tensor]:
    """The same fraction of every output of a layer (Sun et al. 2023, arXiv:2306.11695), but for ``rates``, rounded for
    itself."""
    stays = {}
    for name, units in layers:
        groups = units.rows
        alive: list[int] = units.alive[groups].sum(1).tolist()
        left = {count: survivors(count, rate(rule, name), rule.rounds) for count in set(alive)}
        counts = torch.tensor([left[count] for count in alive])
        stays[name] = highest_of_each(units.scores, units.alive, groups, counts)
    return stays


def over_all_layers(layers: Layers, rule: PruneRule) -> dict[str, Tensor]:
    """The lowest of all layers together."""
    by_name = dict(layers)
    alive = torch.cat([units.alive for units in by_name.values()])
    scores = torch.cat([units.scores.double() for units in by_name.values()])
    stays = highest(scores, alive, survivors(int(alive.sum()), rule.fraction, rule.rounds))
    return dict(zip(by_name, torch.split(stays, [len(units.alive) for units in by_name.values()]), strict=True))


DISTRIBUTIONS: dict[str, Callable[[Layers, PruneRule], dict[str, Tensor]]] = {
    "layer": by_layer,
    "row": by_row,
    "global": over_all_layers,
}
"""By ``PruneRule.scope``: from candidates by layer to whether each unit stays, ``[units]``, by layer."""


def highest(scores: Tensor, alive: Tensor, count: int) -> Tensor:
    """The ``count`` highest of those ``alive``; ties by position: the earlier one goes first."""
    stays = torch.zeros_like(alive)
    if count == 0:
        return stays
    places = alive.nonzero().squeeze(1)
    values = scores[places] if scores.dtype.itemsize >= 4 else scores[places].float()
    least = torch.kthvalue(values, len(places) - count + 1).values  # a third of the time that sorting takes
    above = values > least
    ties = (values == least).nonzero().squeeze(1)
    above[ties[len(ties) - (count - int(above.sum())) :]] = True
    stays[places[above]] = True
    return stays


def highest_of_each(scores: Tensor, alive: Tensor, groups: Tensor, counts: Tensor) -> Tensor:
    """The same in each group (indices ``[groups, size]``), which has a count of its own (``counts``, ``[groups]``)."""
    order = torch.sort(scores.masked_fill(~alive, -math.inf)[groups], dim=1, stable=True).indices
    best = torch.arange(groups.shape[1]) >= groups.shape[1] - counts[:, None]
    stays = torch.zeros_like(alive)
    stays[groups.gather(1, order)[best]] = True
    return stays & alive
