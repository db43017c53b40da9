"""The variants that the field knows: their order, which of them are controls, and which need one another."""

from __future__ import annotations

from collections.abc import Iterable

from ticketsmith.evidence.results import Place, Result

DENSE = "dense"
TICKET = "ticket"
UNSTRUCTURED = "unstructured"
RANDOM_REINIT = "random_reinit"
RANDOM_TICKET = "random_ticket"
RANDOM_PRUNING = "random_pruning"
POST_TRAINING = "post_training"
POST_RANDOM = "post_random"

_METHODS = (DENSE, TICKET, UNSTRUCTURED, "lr_rewind", "finetune", "one_shot", POST_TRAINING)
"""The methods that the field knows, in the order of the story."""

# A control takes one ingredient of the ticket away: the initial weights, the places of the kept weights, or both.
CONTROLS = (RANDOM_REINIT, RANDOM_TICKET, RANDOM_PRUNING)


def is_control(variant: str, subject: str = TICKET) -> bool:
    """Whether it takes an ingredient of ``subject`` away. Beside pruning after training, that is the choice of weights."""
    return variant in CONTROLS or (subject == POST_TRAINING and variant == POST_RANDOM)


def is_yardstick(variant: str, subject: str = TICKET) -> bool:
    """Whether ``subject`` is held against it: its controls, of a ticket with a pattern also the one without, and for pruning
    after training the other criteria."""
    other = subject == POST_TRAINING != variant and variant.startswith("post_")
    other |= (subject, variant) == (TICKET, UNSTRUCTURED)
    return other or is_control(variant, subject)


def ordered(variants: Iterable[str]) -> tuple[str, ...]:
    """Each variant once, in the order of the story: dense, the known methods, unknown names, controls."""

    def place(variant: str) -> tuple[int, int, str]:
        if variant in _METHODS:
            return (0, _METHODS.index(variant), "")
        if variant in CONTROLS:
            return (2, CONTROLS.index(variant), "")
        return (1, 0, variant)

    return tuple(sorted(set(variants), key=place))


def subject(variants: Iterable[str]) -> str:
    """The variant that the experiment is about: the ticket, or the first method that is neither dense nor a control."""
    methods = [variant for variant in ordered(variants) if variant != DENSE and variant not in CONTROLS]
    return methods[0] if methods else TICKET


def blocker(place: Place, diverged: Iterable[Result]) -> Result | None:
    """The diverged run without which a planned one can never be made, so that it is no missing one; None when there is none."""
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
