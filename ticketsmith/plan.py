"""A recipe becomes a DAG of specs. Pure: no files, no training, no torch.

Every method of the field is a way of writing specs; this module is where they are written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pydantic import BaseModel, Field

from ticketsmith.config.schema import Draws, Pruning, Recipe
from ticketsmith.errors import PruningError, RecipeError
from ticketsmith.evidence.search import POINT, level_before
from ticketsmith.pruning.names import pruned_layers, resolved
from ticketsmith.pruning.schedule import Layer, left
from ticketsmith.spec import (
    AtInit,
    Continue,
    Init,
    Mask,
    Prune,
    PruneRule,
    Rewind,
    RunSpec,
    Same,
    Shuffle,
    Training,
    Weights,
    in_steps,
    n_of_m,
)
from ticketsmith.store.contract import RunFolder, to_json

REWIND_POINT = POINT
"""The variant name of dense runs that stop where tickets are rewound to; they are material, not results."""


@dataclass(frozen=True)
class PlannedRun:
    """One run of a plan: its spec, and what it is called.

    ``stored_key`` is the key that a stored plan gives it. It differs from the spec's own when the plan was made under
    another version of the science: its runs stay what they are, and none can be made any more.
    """

    spec: RunSpec
    variant: str
    level: int
    draw: int = 0
    stored_key: str | None = field(default=None, compare=False)

    @cached_property
    def key(self) -> str:
        return self.stored_key or self.spec.key

    @property
    def outdated(self) -> bool:
        """Whether this version of the science would make another run of the same spec."""
        return self.key != self.spec.key

    @property
    def seed(self) -> int:
        return self.spec.seed

    def folder(self, experiment: str) -> RunFolder:
        """Where the run is sealed."""
        return RunFolder(experiment, self.variant, self.seed, self.level, self.key[:8])


class _StoredRun(BaseModel):
    spec: RunSpec
    variant: str
    level: int
    draw: int
    key: str = Field(pattern=r"^[0-9a-f]{64}$")


class _StoredPlan(BaseModel):
    experiment: str
    nodes: list[_StoredRun]


@dataclass(frozen=True)
class Plan:
    """All runs of an experiment, parents before children."""

    experiment: str
    nodes: tuple[PlannedRun, ...]

    @cached_property
    def by_key(self) -> dict[str, PlannedRun]:
        """Each run once, parents before children; where two variants share one, the first gives it its name."""
        runs: dict[str, PlannedRun] = {}
        for node in self.nodes:
            runs.setdefault(node.key, node)
        return runs

    @property
    def results(self) -> tuple[PlannedRun, ...]:
        """The nodes that evidence is drawn from: all but the rewind points."""
        return tuple(node for node in self.nodes if node.variant != REWIND_POINT)

    def only(self, variants: Iterable[str]) -> Plan:
        """The part that makes these variants, with everything that they need."""
        names = set(variants)
        return self.needed_for(node.key for node in self.nodes if node.variant in names)

    def needed_for(self, keys: Iterable[str]) -> Plan:
        """The part that consists of these runs and all that they need."""
        needed = set(keys)
        for node in reversed(self.nodes):
            if node.key in needed:
                needed.update(node.spec.parents)
        return Plan(self.experiment, tuple(node for node in self.nodes if node.key in needed))

    def needing(self, keys: Iterable[str]) -> set[str]:
        """These runs and all that need one of them, directly or not."""
        affected = set(keys)
        for node in self.nodes:
            if affected.intersection(node.spec.parents):
                affected.add(node.key)
        return affected

    def to_bytes(self) -> bytes:
        """``plan.json``: what an experiment consists of, for those who read only the store."""
        return to_json(
            {
                "experiment": self.experiment,
                "nodes": [
                    {"variant": n.variant, "level": n.level, "draw": n.draw, "key": n.key, "spec": n.spec.canonical}
                    for n in self.nodes
                ],
            }
        )

    @classmethod
    def from_bytes(cls, content: bytes) -> Plan:
        """The inverse of ``to_bytes``, keys included. Raises ValueError when it is something else."""
        plain = _StoredPlan.model_validate_json(content)
        return cls(plain.experiment, tuple(PlannedRun(n.spec, n.variant, n.level, n.draw, n.key) for n in plain.nodes))


def criteria(recipe: Recipe) -> tuple[str | dict[str, Any], ...]:
    """All criteria that a recipe uses, as components."""
    rivals = recipe.variants.post_training.components.values() if recipe.variants.post_training else ()
    return (recipe.criterion, *rivals)


def make_plan(
    recipe: Recipe,
    task: Mapping[str, Any],
    train_size: int,
    criterion_sources: Mapping[str, str | None] | None = None,
    layout: int = 1,
) -> Plan:
    """The runs of a recipe; of a search, all that it may ask for, coarse levels with their rounds merged.

    ``task`` is the task's identity, ``train_size`` its training examples (for epochs in steps), ``criterion_sources`` the
    fingerprints of criteria of the user's own, by name, ``layout`` that of rules (see PruneRule). Raises RecipeError when
    tickets would be rewound to or past the end of training.
    """
    steps = in_steps(recipe.training.duration, train_size, recipe.training.batch_size)
    rewind = in_steps(recipe.rewind, train_size, recipe.training.batch_size)
    if rewind >= steps and recipe.variants.trained:
        raise RecipeError(
            f"rewind: {recipe.rewind} is step {rewind}, but training ends at step {steps}: rewind earlier."
        )
    nodes: list[PlannedRun] = []
    for seed in range(recipe.replicates):
        nodes += _replicate(recipe, dict(task), seed, rewind, dict(criterion_sources or {}), layout)
    return Plan(recipe.experiment, tuple(nodes))


def check_schedule(recipe: Recipe, layers: Mapping[str, Layer]) -> None:
    """Refuses a schedule that would empty a layer, before anything is trained. ``layers`` by name.

    Also a target sparsity that it does not reach, and a pattern that does not fit. Raises PruningError and RecipeError.
    Under ``scope: global`` only the count over all layers can be known beforehand.
    """
    pruning = recipe.pruning
    rule = resolved(whole_rule(pruning), {name: (name, *layer.names) for name, layer in layers.items()})
    pruned = {name: layers[name] for name in pruned_layers(rule, list(layers))}
    alive, remaining = sum(layer.weights for layer in pruned.values()), left(rule, pruned)
    if remaining < sum(layer.least for layer in pruned.values()):
        raise PruningError(
            f"pruning.levels: {pruning.levels} rounds would leave fewer weights than there are layers. Use fewer levels."
        )
    deepest = (alive - remaining) / sum(layer.weights for layer in layers.values())
    target = recipe.gates.target_sparsity
    if target is not None and target > deepest:
        raise RecipeError(
            f"gates.target_sparsity: {target:g} is never reached: {pruning.levels} levels end at {deepest:.4f}. Add levels or "
            "lower the target."
        )


def whole_rule(pruning: Pruning) -> PruneRule:
    """The rule of all levels at once."""
    return PruneRule(**_schedule(pruning, pruning.levels, pruning.levels))


def _replicate(
    recipe: Recipe, task: dict[str, Any], seed: int, rewind: int, sources: Mapping[str, str | None], layout: int
) -> list[PlannedRun]:
    training, variants = recipe.training, recipe.variants
    nodes: list[PlannedRun] = []

    def add(
        variant: str, level: int, weights: Weights, mask: Mask, draw: int = 0, training: Training = training
    ) -> RunSpec:
        spec = RunSpec(task=task, training=training, seed=seed, weights=weights, mask=mask)
        nodes.append(PlannedRun(spec, variant, level, draw))
        return spec

    dense = RunSpec(task=task, training=training, seed=seed)
    point = dense.until(rewind)
    nodes.append(PlannedRun(dense, "dense", 0))
    if variants.ticket or variants.one_shot:
        nodes.append(PlannedRun(point, REWIND_POINT, 0))
    rewound = Rewind(run=point.key, step=rewind)

    def rule(level: int, rounds: int = 1, criterion: str | dict[str, Any] | None = None) -> PruneRule:
        """The rule of one round, or of the first ``level`` rounds at once."""
        component = criterion or recipe.criterion
        return PruneRule(
            criterion=component,
            criterion_source=sources.get(criterion_name(component)),
            layout=layout,
            **_schedule(recipe.pruning, level, rounds),
        )

    tickets, free, finetuned, relearned = {0: dense}, {0: dense}, {0: dense}, {0: dense}
    step = recipe.search.step(recipe.pruning.levels) if recipe.search else 1
    for level in range(1, recipe.pruning.levels + 1):
        before = level_before(level, step, recipe.pruning.levels)
        rounds, ticket = level - before, dense
        if variants.ticket:
            mask = Prune(run=tickets[before].key, rule=rule(level, rounds))
            ticket = tickets[level] = add("ticket", level, rewound, mask)
        if variants.unstructured:
            alike = rule(level, rounds).model_copy(update=_free(recipe.pruning, level, before))
            free[level] = add("unstructured", level, rewound, Prune(run=free[before].key, rule=alike))
        if variants.random_reinit:
            for draw in _draws(variants.random_reinit):
                add("random_reinit", level, Init(draw=draw + 1), Same(run=ticket.key), draw)
        if variants.random_ticket:
            for draw in _draws(variants.random_ticket):
                shuffled = Shuffle(
                    run=ticket.key,
                    draw=draw,
                    groups=_group_size(recipe.pruning),
                    structure=recipe.pruning.structure,
                    block=recipe.pruning.block,
                )
                add("random_ticket", level, rewound, shuffled, draw)
        if variants.random_pruning:
            for draw in _draws(variants.random_pruning):
                at_init = AtInit(rule=rule(level, rounds=level, criterion="random"), draw=draw)
                add("random_pruning", level, Init(), at_init, draw)
        if variants.one_shot:
            add("one_shot", level, rewound, Prune(run=dense.key, rule=rule(level, rounds=level)))
        if variants.post_training:
            for variant, criterion in {"post_training": recipe.criterion, **variants.post_training.components}.items():
                pruned = Prune(run=dense.key, rule=rule(level, rounds=level, criterion=criterion))
                add(variant, level, Continue(run=dense.key), pruned, training=_nothing(training))
        if variants.finetune:
            short = Training(
                **{
                    **training.model_dump(exclude={"schedule", "milestones", "gamma", "warmup"}),
                    "lr": variants.finetune.lr,
                    "duration": variants.finetune.duration,
                }
            )
            parent = finetuned[before].key
            pruned = Prune(run=parent, rule=rule(level, rounds))
            finetuned[level] = add("finetune", level, Continue(run=parent), pruned, training=short)
        if variants.lr_rewind:
            parent = relearned[before].key
            pruned = Prune(run=parent, rule=rule(level, rounds))
            relearned[level] = add("lr_rewind", level, Continue(run=parent), pruned)
    return nodes


def _nothing(training: Training) -> Training:
    """Training of no steps: what would have been trained is no part of it."""
    return Training(lr=training.lr, optimizer=training.optimizer, batch_size=training.batch_size, duration="0it")


def _schedule(pruning: Pruning, level: int, rounds: int) -> dict[str, Any]:
    """The fields of a rule that say how much goes, and where, in a level's round or in ``rounds`` at once."""
    common = {"exclude": pruning.exclude, "include": pruning.include}
    if pruning.patterns:
        n, m = n_of_m(pruning.patterns[level - 1])
        return {**common, "pattern": pruning.patterns[level - 1], "fraction": 1 - n / m}
    amounts = {"fraction": pruning.fraction, "rates": tuple(pruning.rates.items()), "rounds": rounds}
    return {
        **common,
        **amounts,
        "scope": pruning.scope,
        "structure": pruning.structure,
        "block": pruning.block,
    }


def _free(pruning: Pruning, level: int, before: int) -> dict[str, Any]:
    """What of a rule leaves single weights free to go, as many of them as with the recipe's pattern or structure."""
    free: dict[str, Any] = {"pattern": None, "structure": "unstructured", "block": None}
    if pruning.patterns:
        n, m = n_of_m(pruning.patterns[level - 1])
        of = n_of_m(pruning.patterns[before - 1])[0] if before else m
        free["fraction"] = 1 - n / of
    return free


def _group_size(pruning: Pruning) -> int | None:
    return n_of_m(pruning.patterns[0])[1] if pruning.patterns else None


def criterion_name(criterion: str | Mapping[str, Any]) -> str:
    """The name in a criterion's component."""
    return criterion if isinstance(criterion, str) else str(criterion["name"])


def _draws(control: Draws) -> range:
    return range(control.draws)
