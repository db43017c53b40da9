"""Keys: the same work is never done twice, and another spec is never mistaken for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ticketsmith.config import load_recipe
from ticketsmith.errors import PruningError, RecipeError
from ticketsmith.plan import Plan, PlannedRun, check_schedule, make_plan
from ticketsmith.pruning.layout import Layout
from ticketsmith.pruning.masks import full, prune
from ticketsmith.pruning.schedule import Layer
from ticketsmith.spec import Continue, Init, Prune, PruneRule, Rewind, RunSpec, Same, Training, from_canonical, in_steps

TASK = {"name": "classification", "data": {"name": "mnist"}, "model": {"name": "lenet_300_100"}}
TRAINING = Training(optimizer="adam", lr=0.0012, batch_size=60, duration="50000it", evaluate_every="100it")
LENET = {"fc1.weight": Layer(235_200), "fc2.weight": Layer(30_000), "output.weight": Layer(1_000)}

Write = Callable[..., Path]


def plan_of(path: Path, *overrides: str, train_size: int = 1000) -> Plan:
    return make_plan(load_recipe(path, overrides), TASK, train_size)


def test_pinned_keys() -> None:
    """Stored runs are found by key: if one of these changes, every experiment of every user is trained again.

    A field that is added must have a default that changes nothing. If the change is meant (the same spec now trains to
    other weights), raise SCIENCE_VERSION and pin the new keys.
    """
    dense = RunSpec(task=TASK, training=TRAINING, seed=0)
    point = dense.until(0)
    ticket = RunSpec(
        task=TASK,
        training=TRAINING,
        seed=0,
        weights=Rewind(run=point.key),
        mask=Prune(run=dense.key, rule=PruneRule(fraction=0.2, rates=(("output", 0.1),))),
    )
    reinit = RunSpec(task=TASK, training=TRAINING, seed=0, weights=Init(draw=1), mask=Same(run=ticket.key))
    assert [spec.key[:16] for spec in (dense, point, ticket, reinit)] == PINNED


PINNED = ["c928fe904ac4654d", "7c269a469d666574", "756c662cb60d362d", "e06fac4ea0563b49"]


def test_a_key_depends_on_everything_that_the_run_comes_from() -> None:
    dense = RunSpec(task=TASK, training=TRAINING, seed=0)
    other = RunSpec(task=TASK, training=TRAINING, seed=1)
    assert dense.key != other.key
    rule = PruneRule(fraction=0.2)
    assert (
        RunSpec(task=TASK, training=TRAINING, seed=0, mask=Prune(run=dense.key, rule=rule)).key
        != RunSpec(task=TASK, training=TRAINING, seed=0, mask=Prune(run=other.key, rule=rule)).key
    )


def test_defaults_written_down_do_not_change_a_key() -> None:
    written = Training(
        optimizer="adam",
        lr=0.0012,
        batch_size=60,
        duration="50000 it",
        evaluate_every=100,
        weight_decay=0.0,
        warmup="0it",
    )
    assert RunSpec(task=TASK, training=written, seed=0).key == RunSpec(task=TASK, training=TRAINING, seed=0).key


def test_a_spec_survives_its_canonical_form() -> None:
    spec = RunSpec(
        task=TASK,
        training=TRAINING,
        seed=3,
        weights=Continue(run="ab" * 32),
        mask=Prune(run="cd" * 32, rule=PruneRule(fraction=0.2, scope="global", exclude=("output",))),
    )
    assert from_canonical(spec.canonical) == spec
    assert from_canonical(spec.canonical).key == spec.key


def test_more_levels_extend_and_changed_gates_retrain_nothing(recipe_file: Write) -> None:
    path = recipe_file()
    short, long = plan_of(path), plan_of(path, "pruning.levels=4")
    assert set(short.by_key) < set(long.by_key)
    assert set(plan_of(path, "gates.metrics={accuracy: {max_drop: 0.5}}").by_key) == set(short.by_key)
    assert set(plan_of(path, "experiment=other", "store=elsewhere").by_key) == set(short.by_key)
    assert not set(plan_of(path, "training.lr=0.1").by_key) & set(short.by_key)


def test_parents_come_before_children_and_the_dense_run_is_level_zero(recipe_file: Write) -> None:
    overrides = ["variants.one_shot={}", "variants.lr_rewind={}", "variants.finetune={lr: 0.001, duration: 10it}"]
    plan = plan_of(recipe_file(), *overrides, "variants.random_pruning={}", "variants.random_reinit={draws: 2}")
    seen: set[str] = set()
    for node in plan.nodes:
        assert set(node.spec.parents) <= seen
        seen.add(node.key)
    by_variant = {(node.variant, node.level, node.draw): node for node in plan.nodes if node.seed == 0}
    assert ("dense", 0, 0) in by_variant
    assert ("ticket", 0, 0) not in by_variant
    assert ("random_reinit", 2, 1) in by_variant
    fresh = [by_variant["random_reinit", 1, draw].spec for draw in (0, 1)]
    assert fresh[0].weights != fresh[1].weights
    assert all(spec.mask == Same(run=by_variant["ticket", 1, 0].key) for spec in fresh)


def test_what_two_variants_share_is_one_run(recipe_file: Write) -> None:
    """The first level of one-shot pruning is the first level of the ticket: it is trained once, as the ticket."""
    plan = plan_of(recipe_file(), "variants.one_shot={}")
    shared = [
        node for node in plan.nodes if node.level == 1 and node.seed == 0 and node.variant in ("ticket", "one_shot")
    ]
    assert len({node.key for node in shared}) == 1
    assert plan.by_key[shared[0].key].variant == "ticket"
    assert len(plan.by_key) == len(plan.nodes) - 2
    seen: set[str] = set()
    for key, node in plan.by_key.items():
        assert set(node.spec.parents) <= seen
        seen.add(key)


def test_the_plan_survives_the_store(recipe_file: Write) -> None:
    plan = plan_of(recipe_file())
    assert Plan.from_bytes(plan.to_bytes()) == plan


@pytest.mark.parametrize(
    ("rule", "meaning"),
    [
        ({"fraction": 0.3, "pattern": "2:4", "scope": "row", "rates": (("a", 0.1),), "rounds": 2}, {"pattern": "2:4"}),
        ({"fraction": 0.5, "scope": "global", "rates": (("a", 0.1),)}, {"scope": "global"}),
    ],
)
def test_a_rule_that_a_store_holds_stays_readable(rule: dict[str, Any], meaning: dict[str, Any]) -> None:
    """A recipe that says so is refused; a plan of earlier days, or of somebody's own, is read and means what it did."""
    stored = PruneRule(**rule)
    spec = RunSpec(task=TASK, training=TRAINING, seed=0, mask=Prune(run="ab" * 32, rule=stored))
    plan = Plan("old", (PlannedRun(spec, "ticket", 1),))
    assert Plan.from_bytes(plan.to_bytes()).nodes[0].spec == from_canonical(spec.canonical) == spec
    scores = {"a": torch.rand(4, 8), "b": torch.rand(2, 8)}
    masks, layouts = full(scores), dict.fromkeys(scores, Layout(1))
    plain = prune(masks, scores, PruneRule(fraction=0.5, **meaning), layouts)
    assert all(torch.equal(mask, plain[name]) for name, mask in prune(masks, scores, stored, layouts).items())


def test_the_hash_of_a_recipe_is_what_it_was_before_fields_were_added(recipe_file: Write) -> None:
    default, row = (
        load_recipe(recipe_file(), ["pruning.rates={}", f"pruning.structure={n}"]) for n in ("unstructured", "row")
    )
    assert default.sha256 == "739e4108f41c80219356b3f0a602a0948b9d322a4065162facb8334caeb2f57e" != row.sha256


def test_a_part_of_a_plan_brings_what_it_needs(recipe_file: Write) -> None:
    part = plan_of(recipe_file()).only(["random_ticket"])
    assert {node.variant for node in part.nodes} == {"dense", "rewind_point", "ticket", "random_ticket"}
    assert {node.variant for node in plan_of(recipe_file()).only(["dense"]).nodes} == {"dense"}


@pytest.mark.parametrize(("duration", "steps"), [("500it", 500), ("1ep", 17), ("2.5ep", 42), ("0it", 0), ("0.5ep", 9)])
def test_epochs_in_steps_round_up(duration: str, steps: int) -> None:
    assert in_steps(duration, train_size=1000, batch_size=60) == steps


def test_rewinding_past_the_end_is_refused(recipe_file: Write) -> None:
    with pytest.raises(RecipeError, match="rewind: 120it is step 120, but training ends at step 120"):
        plan_of(recipe_file(), "rewind=120it")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["pruning.levels=9", "pruning.fraction=0.9"], "leave layer 'fc1' without any weight"),
        (["pruning.rates={nosuch: 0.1}"], "'nosuch' matches no layer"),
        (["pruning.exclude=[fc*, output]", "pruning.rates={}"], "leaves no layer"),
        (["pruning.scope=global", "pruning.rates={}", "pruning.levels=100"], "fewer weights than"),
    ],
)
def test_a_schedule_that_cannot_work_is_refused_before_training(
    recipe_file: Write, overrides: list[str], message: str
) -> None:
    with pytest.raises(PruningError, match=message):
        check_schedule(load_recipe(recipe_file(), overrides), LENET)


def test_a_target_that_the_schedule_never_reaches_is_refused(recipe_file: Write) -> None:
    with pytest.raises(RecipeError, match=r"target_sparsity: 0.99 is never reached: 2 levels end at 0.7"):
        check_schedule(load_recipe(recipe_file(), ["gates.target_sparsity=0.99"]), LENET)


def test_epochs_are_exact() -> None:
    assert in_steps("0.07ep", 100, 1) == 7
    assert in_steps("0.55ep", 100, 1) == 55


def test_the_order_of_overlapping_rates_counts() -> None:
    rules = [
        PruneRule(fraction=0.2, rates=rates) for rates in ((("fc*", 0.1), ("fc1", 0.3)), (("fc1", 0.3), ("fc*", 0.1)))
    ]
    keys = {RunSpec(task=TASK, training=TRAINING, seed=0, mask=Prune(run="a", rule=rule)).key for rule in rules}
    assert len(keys) == 2


def test_the_schedule_of_the_paper_is_allowed(recipe_file: Write) -> None:
    overrides: list[Any] = ["pruning.levels=20", "pruning.fraction=0.2", "pruning.rates={output: 0.1}"]
    check_schedule(load_recipe(recipe_file(), overrides), LENET)
