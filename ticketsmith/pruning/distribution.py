"""Distribution: which units of a network compete with each other, and how many of them a round leaves.

A new distribution is a function, a line of ``DISTRIBUTIONS``, and a word of ``PruneRule.scope``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
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
    """

    scores: Tensor
    alive: Tensor
    shape: torch.Size
    layout: Layout
    pattern: tuple[Tensor, int] | None


def by_layer(layers: Mapping[str, Candidates], rule: PruneRule) -> dict[str, Tensor]:
    """The same fraction of every layer, but for ``rates``; with a pattern, N of every M."""
    stays = {}
    for name, units in layers.items():
        if units.pattern is None:
            stays[name] = _fraction_left(units, _everything(units.alive), rule, name)
        else:
            groups, n = units.pattern
            stays[name] = highest(units.scores, units.alive, groups, torch.full((len(groups),), n))
    return stays


def by_row(layers: Mapping[str, Candidates], rule: PruneRule) -> dict[str, Tensor]:
    """The same fraction of every output of a layer (Sun et al. 2023, arXiv:2306.11695), but for ``rates``."""
    return {name: _fraction_left(units, rows(units.shape, units.layout), rule, name) for name, units in layers.items()}


def over_all_layers(layers: Mapping[str, Candidates], rule: PruneRule) -> dict[str, Tensor]:
    """The lowest of all layers together."""
    scores = torch.cat([units.scores.double() for units in layers.values()])
    alive = torch.cat([units.alive for units in layers.values()])
    left = survivors(int(alive.sum()), rule.fraction, rule.rounds)
    stays = highest(scores, alive, _everything(alive), torch.tensor([left]))
    return dict(zip(layers, torch.split(stays, [len(units.alive) for units in layers.values()]), strict=True))


DISTRIBUTIONS: dict[str, Callable[[Mapping[str, Candidates], PruneRule], dict[str, Tensor]]] = {
    "layer": by_layer,
    "row": by_row,
    "global": over_all_layers,
}
"""By ``PruneRule.scope``: from candidates by layer to whether each unit stays, ``[units]``, by layer."""


def highest(scores: Tensor, alive: Tensor, groups: Tensor, counts: Tensor) -> Tensor:
    """Of each group (indices ``[groups, size]``) the ``counts`` (``[groups]``) highest of those ``alive``; ties by position:
    the earlier one goes first."""
    order = torch.sort(scores.masked_fill(~alive, -math.inf)[groups], dim=1, stable=True).indices
    best = torch.arange(groups.shape[1]) >= groups.shape[1] - counts[:, None]
    stays = torch.zeros_like(alive)
    stays[groups.gather(1, order)[best]] = True
    return stays & alive


def _everything(alive: Tensor) -> Tensor:
    """One group."""
    return torch.arange(len(alive))[None]


def _fraction_left(units: Candidates, groups: Tensor, rule: PruneRule, name: str) -> Tensor:
    """Each group loses its own fraction of what is alive, rounded for itself."""
    alive: list[int] = units.alive[groups].sum(1).tolist()
    left = {count: survivors(count, rate(rule, name), rule.rounds) for count in set(alive)}
    return highest(units.scores, units.alive, groups, torch.tensor([left[count] for count in alive]))
