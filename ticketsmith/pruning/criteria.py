"""Criteria: what a weight is worth. The lowest scores are removed first.

A criterion is a function ``(Scoring) -> {parameter name: tensor of scores}``. Name your own in the recipe as
``pruning.criterion: my_package.my_module:my_criterion``.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ticketsmith.errors import PruningError
from ticketsmith.plugins import build, failure, foreign, resolve
from ticketsmith.pruning.masks import Masks, fully_excluded
from ticketsmith.pruning.weights import computed, layouts, prunable
from ticketsmith.spec import PruneRule

if TYPE_CHECKING:
    from ticketsmith.tasks.task import Task

BUILTINS = {
    "magnitude": "ticketsmith.pruning.criteria:magnitude",
    "random": "ticketsmith.pruning.criteria:random",
    "wanda": "ticketsmith.pruning.wanda:wanda",
}


@dataclass(frozen=True)
class Scoring:
    """What a criterion may look at: the prunable weights (pruned ones are zero), their masks, the whole model and task.

    ``generator`` is the replicate's own stream for masks, on the CPU. ``excluded``: parameters that this round leaves as they
    are; nobody looks at their scores.
    """

    weights: Mapping[str, Tensor]
    masks: Masks
    model: nn.Module
    task: Task
    generator: torch.Generator
    excluded: frozenset[str] = frozenset()


def magnitude(scoring: Scoring) -> dict[str, Tensor]:
    """|w| (Han et al. 2015; Frankle & Carbin 2019), of the weights that layers compute with (under weight norm, say)."""
    weights = {**scoring.weights, **computed(scoring.model)}
    return {name: weights[name].detach().abs() for name in scoring.weights}


def random(scoring: Scoring) -> dict[str, Tensor]:
    """Uniform chance: the control that any criterion must beat."""
    return {name: torch.rand(weight.shape, generator=scoring.generator) for name, weight in scoring.weights.items()}


def score(criterion: str | Mapping[str, Any], scoring: Scoring) -> dict[str, Tensor]:
    """Scores of every prunable weight by the named criterion, on the CPU.

    Raises PruningError when a criterion of the user's own fails, or gives scores that cannot be ranked.
    """
    name, options = _split(criterion)
    with foreign(lambda error: PruningError(f"criterion {name!r} failed: {failure(error)}")):
        scores = build("criterion", name, BUILTINS, options, scoring=scoring)
    for parameter, mask in scoring.masks.items():
        scores_of = scores.get(parameter) if isinstance(scores, Mapping) else None
        if not isinstance(scores_of, Tensor) or scores_of.shape != mask.shape:
            raise PruningError(f"criterion {name!r} must give a tensor of shape {tuple(mask.shape)} for {parameter!r}.")
        scores_of_survivors = scores_of.detach().cpu()[mask.cpu()]
        if parameter not in scoring.excluded and not bool(torch.isfinite(scores_of_survivors).all()):
            raise PruningError(f"criterion {name!r} gave scores for {parameter!r} that are not finite numbers.")
    return {parameter: scores[parameter].detach().cpu() for parameter in scoring.masks}


def attempt(
    criterion: str | Mapping[str, Any], model: nn.Module, task: Task, include: tuple[str, ...], exclude: tuple[str, ...]
) -> None:
    """Scores the weights of a fresh model once, so that a mistake is told before anything is trained.

    A criterion with an option ``examples`` is given two of them at most. Raises RecipeError and PruningError.
    """
    name, options = _split(criterion)
    few = options.get("examples", 2)
    if "examples" in inspect.signature(resolve("criterion", name, BUILTINS)).parameters and isinstance(few, int):
        options["examples"] = min(few, 2)
    weights = prunable(model, include)
    masks = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}
    rule = PruneRule(fraction=0.5, exclude=exclude)
    excluded = fully_excluded(rule, masks, layouts(model))
    score({"name": name, **options}, Scoring(weights, masks, model, task, torch.Generator().manual_seed(0), excluded))


def _split(criterion: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    if isinstance(criterion, str):
        return criterion, {}
    return str(criterion["name"]), {key: value for key, value in criterion.items() if key != "name"}
