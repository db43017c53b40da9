"""Structure: which weights of a layer stay or go together (its *units*), and whether a pattern limits how many stay.

A new structure is a class with these two methods, and a line of ``STRUCTURES``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ticketsmith.errors import PruningError
from ticketsmith.pruning.layout import Layout, columns, neighbours, rows
from ticketsmith.pruning.schedule import check_inputs
from ticketsmith.spec import PruneRule, n_of_m


@dataclass(frozen=True)
class Unstructured:
    """Each weight is a unit."""

    def units(self, name: str, shape: torch.Size, layout: Layout) -> Tensor:
        """Flat indices of a layer's weights, ``[units, weights of a unit]``."""
        return torch.arange(shape.numel()).view(-1, 1)

    def pattern(self, name: str, shape: torch.Size, layout: Layout) -> tuple[Tensor, int] | None:
        """Units that compete by the pattern, ``[groups, M]``, and N, how many of a group stay; None without a pattern."""
        return None


@dataclass(frozen=True)
class NofM(Unstructured):
    """Each weight is a unit, and N of every M that meet consecutive inputs of an output stay."""

    n: int
    m: int

    def pattern(self, name: str, shape: torch.Size, layout: Layout) -> tuple[Tensor, int]:
        check_inputs(name, layout.ends(shape)[1], self.m)
        return neighbours(name, shape, layout, self.m), self.n


@dataclass(frozen=True)
class Whole(Unstructured):
    """All weights of an output (``by_output``), or all that meet an input, are a unit."""

    by_output: bool

    def units(self, name: str, shape: torch.Size, layout: Layout) -> Tensor:
        if layout.normed is not None:
            raise PruningError(
                f"pruning.structure: {name!r} is under weight norm, which divides by the norm of each output: none can go "
                "as a whole. Keep it dense by `pruning.exclude`."
            )
        check_inputs(name, layout.ends(shape)[1])
        return rows(shape, layout) if self.by_output else columns(shape, layout)


Structure = Unstructured | NofM | Whole

STRUCTURES: dict[str, Structure] = {
    "unstructured": Unstructured(),
    "row": Whole(by_output=True),
    "channel": Whole(by_output=False),
}


def structure_of(rule: PruneRule) -> Structure:
    """That of a rule, which has a pattern or a structure by name."""
    return STRUCTURES[rule.structure] if rule.pattern is None else NofM(*n_of_m(rule.pattern))
