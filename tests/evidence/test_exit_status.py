"""What a command that reads a store tells a pipeline."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ticketsmith.api import Experiment
from ticketsmith.config.load import parse_recipe
from ticketsmith.errors import Exit
from ticketsmith.plan import REWIND_POINT, make_plan
from ticketsmith.store.contract import MANIFEST, manifest_of
from ticketsmith.store.directory import DirectoryStore

from .synthetic import result

RECIPE = """
experiment: exp
task: {data: digits, model: mlp}
training: {optimizer: adam, lr: 0.001, batch_size: 60, duration: 100it}
pruning: {levels: 1, fraction: 0.5}
replicates: 1
"""


def test_what_needs_a_rewind_point_that_diverged_is_not_missing(tmp_path: Path) -> None:
    recipe = parse_recipe(RECIPE, "recipe.yaml", Path())
    plan, store = make_plan(recipe, {"name": "classification"}, 1000), DirectoryStore(tmp_path)
    dense = next(node for node in plan.nodes if node.variant == "dense")
    point = next(node for node in plan.nodes if node.variant == REWIND_POINT)
    for node, status in ((dense, "trained"), (point, "diverged")):
        store.publish(node.folder("exp"), {MANIFEST: manifest_of(node.key, status, {})})
    experiment = Experiment(store, "exp", recipe)
    experiment.__dict__.update(plan=plan, results=[replace(result("dense", 0, 0, 99.0), key=dense.key)])
    assert experiment.exit_status == Exit.DIVERGED
