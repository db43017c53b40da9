"""The variants that the field knows: their names for a reader, their order, and which of them are controls."""

from __future__ import annotations

from collections.abc import Iterable

DENSE = "dense"
TICKET = "ticket"
RANDOM_REINIT = "random_reinit"
RANDOM_TICKET = "random_ticket"
RANDOM_PRUNING = "random_pruning"
POST_TRAINING = "post_training"
POST_RANDOM = "post_random"

_NAMES = {
    DENSE: "Dense baseline",
    TICKET: "Winning ticket (IMP)",
    "lr_rewind": "Learning-rate rewinding",
    "finetune": "Fine-tuning",
    "one_shot": "One-shot",
    POST_TRAINING: "Post-training pruning",
    RANDOM_REINIT: "Random re-initialisation",
    RANDOM_TICKET: "Random ticket (shuffled mask)",
    RANDOM_PRUNING: "Random pruning",
}

# A control takes one ingredient of the ticket away: the initial weights, the places of the kept weights, or both.
CONTROLS = (RANDOM_REINIT, RANDOM_TICKET, RANDOM_PRUNING)


def display(variant: str) -> str:
    """The name for a reader; a variant that is not known here is shown as it is."""
    if variant not in _NAMES and variant.startswith("post_"):
        return f"Post-training pruning, {variant.removeprefix('post_')}"
    return _NAMES.get(variant, variant)


def in_sentence(variant: str) -> str:
    """The name in the middle of a sentence: ``the ticket``, ``post-training pruning``."""
    name = display(variant)
    return "the ticket" if variant == TICKET else "dense" if variant == DENSE else f"{name[:1].lower()}{name[1:]}"


def is_control(variant: str, subject: str = TICKET) -> bool:
    """Whether it takes an ingredient of ``subject`` away. Beside pruning after training, that is the choice of weights."""
    return variant in CONTROLS or (subject == POST_TRAINING and variant == POST_RANDOM)


def is_yardstick(variant: str, subject: str = TICKET) -> bool:
    """Whether ``subject`` is held against it: its controls, and for pruning after training the other criteria too."""
    other = subject == POST_TRAINING != variant and variant.startswith("post_")
    return other or is_control(variant, subject)


def ordered(variants: Iterable[str]) -> tuple[str, ...]:
    """Each variant once, in the order of the story: dense, the known methods, unknown names, controls."""
    known = list(_NAMES)
    methods = known[: known.index(RANDOM_REINIT)]

    def place(variant: str) -> tuple[int, int, str]:
        if variant in methods:
            return (0, methods.index(variant), "")
        if variant in CONTROLS:
            return (2, CONTROLS.index(variant), "")
        return (1, 0, variant)

    return tuple(sorted(set(variants), key=place))


def subject(variants: Iterable[str]) -> str:
    """The variant that the experiment is about: the ticket, or the first method that is neither dense nor a control."""
    methods = [variant for variant in ordered(variants) if variant != DENSE and variant not in CONTROLS]
    return methods[0] if methods else TICKET
