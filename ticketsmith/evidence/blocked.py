"""Planned runs that are no missing ones: they can never be made, since a run that they need diverged."""

from __future__ import annotations

from collections.abc import Iterable

from ticketsmith.evidence.results import Place, Result
from ticketsmith.evidence.variants import CONTROLS, DENSE, RANDOM_PRUNING, RANDOM_REINIT, RANDOM_TICKET, TICKET


def blocker(place: Place, diverged: Iterable[Result]) -> Result | None:
    """The diverged run without which this one cannot be made; None when there is none."""
    return next((run for run in diverged if _needs(place, run)), None)


def _needs(place: Place, run: Result) -> bool:
    """Methods prune dense and then their own level before; two controls take the mask of the ticket of their level."""
    variant, level, seed, _ = place
    if run.seed != seed:
        return False
    if run.variant == DENSE:
        return variant not in (DENSE, RANDOM_PRUNING)
    if run.variant == TICKET and variant in (RANDOM_REINIT, RANDOM_TICKET):
        return run.level <= level
    return run.variant == variant and variant not in CONTROLS and run.level < level
