"""Which runs of a recipe come next in its search for the sweet spot. Pure: no state but what is sealed.

``whole`` is the plan of ``make_plan``: all runs that the search may ever ask for. A search asks for parts of it, and grows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ticketsmith.config import Recipe
from ticketsmith.evidence.results import Result
from ticketsmith.evidence.search import Hypothesis, Limit, Path, Terms, search, walk
from ticketsmith.evidence.verdicts import GatePolicy
from ticketsmith.plan import Plan, PlannedRun

Follow = Callable[[Sequence[Result]], Plan]
"""Gives the runs that a search has asked for so far, by what is sealed."""


def terms(recipe: Recipe) -> Terms:
    """What the recipe's search is to do; its ``search`` must be set."""
    assert recipe.search is not None
    variants, limit = recipe.variants, recipe.search.budget
    draws = ("random_reinit", "random_ticket", "random_pruning")
    rivals = {name: getattr(variants, name).draws for name in draws if getattr(variants, name)}
    rivals |= {name: 1 for name in ("unstructured", "one_shot", "finetune", "lr_rewind") if getattr(variants, name)}
    if variants.post_training:
        rivals |= dict.fromkeys(("post_training", *variants.post_training.components), 1)
    return Terms(
        levels=recipe.pruning.levels,
        step=recipe.search.step(recipe.pruning.levels),
        looks=recipe.policy.looks or (recipe.replicates,),
        rivals=rivals,
        chained=frozenset({"unstructured", "finetune", "lr_rewind"} & rivals.keys()),
        limit=Limit(limit.runs, limit.hours, limit.money) if limit else Limit(),
    )


def path(recipe: Recipe, results: Sequence[Result], policy: GatePolicy | None = None) -> Path:
    """How far the search has come; ``policy`` is the recipe's own unless the store knows more of its looks."""
    return search(terms(recipe), results, policy or recipe.policy)


def part(whole: Plan, so_far: Path) -> Plan:
    """The runs that a path has asked for."""
    places = set(so_far.places)
    return Plan(whole.experiment, tuple(node for node in whole.nodes if _place(node) in places))


def hypotheses(recipe: Recipe) -> list[Path]:
    """The path for each level at which the cliff may lie, dense first, if the first look decides everything."""
    what = terms(recipe)
    return [walk(what, Hypothesis(cliff)) for cliff in range(what.levels + 1)]


def _place(node: PlannedRun) -> tuple[str, int, int, int]:
    return node.variant, node.level, node.seed, node.draw
