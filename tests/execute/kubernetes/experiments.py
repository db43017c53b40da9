"""Plans and targets that several tests use."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ticketsmith.config.load import parse_model
from ticketsmith.config.schema import Recipe
from ticketsmith.config.target import Target
from ticketsmith.plan import Plan, make_plan

RECIPE = """
experiment: digits
task: {data: digits, model: {name: mlp, widths: [32, 16]}, validation: 200}
training: {optimizer: adam, lr: 0.003, batch_size: 50, duration: 120it, evaluate_every: 30it}
pruning: {levels: 2, fraction: 0.5, rates: {output: 0.25}}
replicates: 3
"""

TARGET = """
image: ticketsmith:test
store: az://experiments/runs
connection_secret: {name: ticketsmith-store}
train: {machine: my-gpu=2.0, gpus: 1, cpu: "3", memory: 8Gi, parallelism: 2, idle_tail: 6m}
cpu: {machine: my-node=0.4, share: 0.5, cpu: 500m, memory: 1Gi, idle_tail: 6m}
limits: {deadline: 1h, report_deadline: 30m, experiment: 10h, grace: 60s}
"""


def plan_of(text: str = RECIPE) -> Plan:
    """The plan of a recipe, with an invented identity of its task."""
    recipe, _ = parse_model(Recipe, text, "recipe.yaml", (), "a recipe", "experiment:")
    return make_plan(recipe, {"name": "classification", "data": "invented"}, 1237)


def target_of(*overrides: str, text: str = TARGET) -> Target:
    """The target, with overrides."""
    return parse_model(Target, text, "target.yaml", overrides, "a target", "image:")[0]


def keys(
    plan: Plan, variants: Iterable[str], seeds: Sequence[int] = (0, 1, 2), levels: Sequence[int] = range(9)
) -> set[str]:
    """Keys of a part of a plan."""
    chosen = set(variants)
    return {n.key for n in plan.nodes if n.variant in chosen and n.seed in seeds and n.level in levels}


def dense_keys(plan: Plan) -> set[str]:
    """Keys of the dense runs, and of the points that tickets are rewound to."""
    return keys(plan, ["dense", "rewind_point"])
