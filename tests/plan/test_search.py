"""What a search trains: the grid's levels by merged rounds, and nothing that a grid would train otherwise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ticketsmith.config import load_recipe
from ticketsmith.errors import RecipeError
from ticketsmith.plan import Plan, make_plan
from ticketsmith.pruning.layout import Layout
from ticketsmith.pruning.masks import prune
from ticketsmith.search import hypotheses, part, path
from ticketsmith.spec import Prune

Write = Callable[..., Path]
TASK = {"name": "classification", "data": {"name": "digits"}, "model": {"name": "mlp"}}


def plan_of(file: Path, *overrides: str) -> Plan:
    return make_plan(load_recipe(file, overrides), TASK, 1000)


def kept(plan: Plan, level: int) -> dict[str, int]:
    """How many weights of each layer a ticket of seed 0 keeps, by its own chain of rules."""
    shapes = {"fc1.weight": (30, 64), "fc2.weight": (16, 30), "output.weight": (10, 16)}
    random = torch.Generator().manual_seed(0)
    weights = {name: torch.rand(shape, generator=random) for name, shape in shapes.items()}
    masks = {name: torch.ones(shape, dtype=torch.bool) for name, shape in shapes.items()}
    nodes = {node.key: node for node in plan.nodes}
    node = next(node for node in plan.nodes if (node.variant, node.level, node.seed) == ("ticket", level, 0))
    rules = []
    while isinstance(mask := node.spec.mask, Prune):
        rules.append(mask.rule)
        node = nodes[mask.run]
    for rule in reversed(rules):
        masks = prune(masks, weights, rule, dict.fromkeys(shapes, Layout(1)))
    return {name: int(mask.sum()) for name, mask in masks.items()}


@pytest.mark.parametrize(
    "how",
    [
        "pruning.fraction=0.37",
        "pruning.scope=row",
        "pruning={levels: 7, scope: global, fraction: 0.3}",
        "pruning={levels: 7, structure: row, fraction: 0.2, exclude: [output]}",
        'pruning={levels: 7, pattern: ["7:8", "6:8", "5:8", "4:8", "3:8", "2:8", "1:8"], exclude: [fc2, output]}',
    ],
)
def test_merged_rounds_end_at_the_grids_own_sparsity(recipe_file: Write, how: str) -> None:
    overrides = [how] if how.startswith("pruning=") else [how, "pruning.levels=7"]
    grid = plan_of(recipe_file(), *overrides)
    merged = plan_of(recipe_file(), *overrides, "search={coarse: 3}")
    for level in range(1, 8):
        assert kept(merged, level) == kept(grid, level), level


def test_without_merging_a_search_trains_the_grids_own_runs(recipe_file: Write) -> None:
    grid = plan_of(recipe_file())
    assert set(plan_of(recipe_file(), "search={coarse: 1}").by_key) == set(grid.by_key)
    merged = plan_of(recipe_file(), "search={coarse: 2}")
    assert not {n.key for n in merged.nodes if (n.variant, n.level) == ("ticket", 2)} & set(grid.by_key)


def test_the_first_runs_are_dense_and_the_first_coarse_level(recipe_file: Write) -> None:
    recipe = load_recipe(recipe_file(), ["pruning.levels=8", "search=sweet_spot"])
    whole = make_plan(recipe, TASK, 1000)
    first = part(whole, path(recipe, [])).nodes
    assert {(node.variant, node.level) for node in first} == {("dense", 0), ("rewind_point", 0), ("ticket", 2)}
    assert all(one.over for one in hypotheses(recipe))


@pytest.mark.parametrize(
    ("overrides", "number", "mend"),
    [
        (["search={coarse: 5}"], "5 rounds of 2", "at most 2"),
        (["search={budget: {runs: 4}}"], "4", "at least 6"),
        (["search={budget: {runs: 10}}", "replicates=4", "gates.looks=[2, 4]"], "10", "no look beyond 3"),
        (["search={budget: {runs: 40, hours: 1}}"], "`runs`, `hours` or `money`", "one of the three"),
        (["search=sweet_spot", "variants={ticket: false, one_shot: {}}"], "ticket", "leave `variants.ticket` on"),
        (["search=sweet_spot", "gates.looks=[2, 4]"], "is 4", "set `replicates: 4`"),
        (["search=knee"], "knee", "sweet_spot"),
    ],
)
def test_a_search_that_cannot_be_is_refused_with_its_mend(
    recipe_file: Write, overrides: list[str], number: str, mend: str
) -> None:
    with pytest.raises(RecipeError) as refused:
        load_recipe(recipe_file(), overrides)
    assert number in str(refused.value)
    assert mend in str(refused.value)
