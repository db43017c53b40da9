"""A recipe becomes a DAG of specs. Pure: no files, no training, no torch.

Every method of the field is a way of writing specs; this module is where they are written.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ticketsmith.config.schema import Draws, Recipe
from ticketsmith.errors import PruningError, RecipeError
from ticketsmith.pruning.arithmetic import pruned_layers, survivors, targets
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
    from_canonical,
    in_steps,
)
from ticketsmith.store.contract import RunFolder, to_json

REWIND_POINT = "rewind_point"
"""The variant name of dense runs that stop where tickets are rewound to; they are material, not results."""


@dataclass(frozen=True)
class Node:
    """One run of a plan: its spec, and what it is called."""

    spec: RunSpec
    variant: str
    level: int
    draw: int = 0

    @property
    def key(self) -> str:
        return self.spec.key

    @property
    def seed(self) -> int:
        return self.spec.seed

    def folder(self, experiment: str) -> RunFolder:
        """Where the run is sealed."""
        return RunFolder(experiment, self.variant, self.seed, self.level, self.key[:8])


@dataclass(frozen=True)
class Plan:
    """All runs of an experiment, parents before children."""

    experiment: str
    nodes: tuple[Node, ...]

    @cached_property
    def by_key(self) -> dict[str, Node]:
        """Each run once, parents before children; where two variants share one, the first gives it its name."""
        found: dict[str, Node] = {}
        for node in self.nodes:
            found.setdefault(node.key, node)
        return found

    @property
    def results(self) -> tuple[Node, ...]:
        """The nodes that evidence is drawn from: all but the rewind points."""
        return tuple(node for node in self.nodes if node.variant != REWIND_POINT)

    def only(self, variants: Iterable[str]) -> Plan:
        """The part that makes these variants, with everything that they need."""
        chosen = set(variants)
        return self.needed_for(node.key for node in self.nodes if node.variant in chosen)

    def needed_for(self, keys: Iterable[str]) -> Plan:
        """The part that consists of these runs and all that they need."""
        wanted = set(keys)
        for node in reversed(self.nodes):
            if node.key in wanted:
                wanted.update(node.spec.parents)
        return Plan(self.experiment, tuple(node for node in self.nodes if node.key in wanted))

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
        """The inverse of ``to_bytes``. Raises ValueError or KeyError when it is something else."""
        plain = json.loads(content)
        nodes = (Node(from_canonical(n["spec"]), n["variant"], n["level"], n["draw"]) for n in plain["nodes"])
        return cls(plain["experiment"], tuple(nodes))


def make_plan(recipe: Recipe, task: Mapping[str, Any], train_size: int, criterion_source: str | None = None) -> Plan:
    """The runs of a recipe.

    ``task`` is the task's identity, ``train_size`` its training examples (for epochs in steps), ``criterion_source`` the
    fingerprint of a criterion of the user's own. Raises RecipeError when tickets would be rewound to or past the end of
    training.
    """
    steps = in_steps(recipe.training.duration, train_size, recipe.training.batch_size)
    rewind = in_steps(recipe.rewind, train_size, recipe.training.batch_size)
    if rewind >= steps:
        raise RecipeError(
            f"rewind: {recipe.rewind} is step {rewind}, but training ends at step {steps}: rewind earlier."
        )
    nodes: list[Node] = []
    for seed in range(recipe.replicates):
        nodes += _replicate(recipe, dict(task), seed, rewind, criterion_source)
    return Plan(recipe.experiment, tuple(nodes))


def check_schedule(recipe: Recipe, layers: Mapping[str, int]) -> None:
    """Refuses a schedule that would empty a layer, before anything is trained. ``layers``: weights by parameter name.

    Also a target sparsity that it does not reach. Raises PruningError and RecipeError. Under ``scope: global`` only the
    count over all layers can be known beforehand.
    """
    pruning = recipe.pruning
    rule = PruneRule(
        fraction=pruning.fraction,
        scope=pruning.scope,
        rates=tuple(pruning.rates.items()),
        exclude=pruning.exclude,
        include=pruning.include,
        rounds=pruning.levels,
    )
    alive = {name: layers[name] for name in pruned_layers(rule, list(layers))}
    if pruning.scope == "layer":
        left = sum(targets(rule, alive).values())
    else:
        left = survivors(sum(alive.values()), rule.fraction, rule.rounds)
    if left < len(alive):
        raise PruningError(
            f"pruning.levels: {pruning.levels} rounds would leave fewer weights than there are layers. Use fewer levels."
        )
    total = sum(layers.values())
    deepest = (sum(alive.values()) - left) / total
    target = recipe.gates.target_sparsity
    if target is not None and target > deepest:
        raise RecipeError(
            f"gates.target_sparsity: {target:g} is never reached: {pruning.levels} levels end at {deepest:.4f}. Add levels or "
            "lower the target."
        )


def _replicate(
    recipe: Recipe, task: dict[str, Any], seed: int, rewind: int, criterion_source: str | None
) -> list[Node]:
    training, variants = recipe.training, recipe.variants
    nodes: list[Node] = []

    def add(
        variant: str, level: int, weights: Weights, mask: Mask, draw: int = 0, training: Training = training
    ) -> RunSpec:
        spec = RunSpec(task=task, training=training, seed=seed, weights=weights, mask=mask)
        nodes.append(Node(spec, variant, level, draw))
        return spec

    dense = RunSpec(task=task, training=training, seed=seed)
    point = dense.until(rewind)
    nodes += [Node(dense, "dense", 0), Node(point, REWIND_POINT, 0)]
    rewound = Rewind(run=point.key, step=rewind)

    def rule(rounds: int = 1, criterion: str | None = None) -> PruneRule:
        pruning = recipe.pruning
        return PruneRule(
            criterion=criterion or recipe.criterion,
            criterion_source=None if criterion else criterion_source,
            fraction=pruning.fraction,
            scope=pruning.scope,
            rates=tuple(pruning.rates.items()),
            exclude=pruning.exclude,
            include=pruning.include,
            rounds=rounds,
        )

    ticket = finetuned = relearned = dense
    for level in range(1, recipe.pruning.levels + 1):
        ticket = add("ticket", level, rewound, Prune(run=ticket.key, rule=rule()))
        if variants.random_reinit:
            for draw in _draws(variants.random_reinit):
                add("random_reinit", level, Init(draw=draw + 1), Same(run=ticket.key), draw)
        if variants.random_ticket:
            for draw in _draws(variants.random_ticket):
                add("random_ticket", level, rewound, Shuffle(run=ticket.key, draw=draw), draw)
        if variants.random_pruning:
            for draw in _draws(variants.random_pruning):
                mask = AtInit(rule=rule(rounds=level, criterion="random"), draw=draw)
                add("random_pruning", level, Init(), mask, draw)
        if variants.one_shot:
            add("one_shot", level, rewound, Prune(run=dense.key, rule=rule(rounds=level)))
        if variants.finetune:
            short = Training(
                **{
                    **training.model_dump(exclude={"schedule", "milestones", "gamma", "warmup"}),
                    "lr": variants.finetune.lr,
                    "duration": variants.finetune.duration,
                }
            )
            pruned = Prune(run=finetuned.key, rule=rule())
            finetuned = add("finetune", level, Continue(run=finetuned.key), pruned, training=short)
        if variants.lr_rewind:
            pruned = Prune(run=relearned.key, rule=rule())
            relearned = add("lr_rewind", level, Continue(run=relearned.key), pruned)
    return nodes


def _draws(control: Draws) -> range:
    return range(control.draws)
