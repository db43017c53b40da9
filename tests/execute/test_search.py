"""A search in real processes: by local workers, killed twenty times, by two processes at once. One path, the same bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.conftest import DIGITS
from tests.execute.test_local_executor import ROOT, finish, sealed
from ticketsmith import api
from ticketsmith.cli.main import group
from ticketsmith.errors import RecipeError
from ticketsmith.evidence.search import Path as SearchPath
from ticketsmith.evidence.search import Reason

RECIPE = (
    DIGITS.replace("levels: 2", "levels: 6")
    .replace("duration: 120it", "duration: 24it")
    .replace("evaluate_every: 30it", "evaluate_every: 12it")
    .replace("replicates: 2", "replicates: 4")
    .replace("  metrics:", "  looks: [2, 4]\n  metrics:")
    .replace("max_drop: 5.0", "max_drop: 20.0")
)
KILLS = 20


@dataclass(frozen=True)
class Undisturbed:
    """A search by local workers, by the command line."""

    recipe: Path
    output: str
    bytes: dict[str, str]
    plan: bytes
    path: SearchPath
    store: Path


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder = tmp_path_factory.mktemp("search")
    recipe, store = folder / "recipe.yaml", folder / "runs"
    recipe.write_text(RECIPE)
    _, output = finish(recipe, store, "--search", "--workers", "2")
    recipe.write_text(RECIPE + "search: sweet_spot\n")
    return Undisturbed(recipe, output, sealed(store), (store / "digits/plan.json").read_bytes(), path_of(store), store)


def path_of(store: Path) -> SearchPath:
    path = api.open_experiment("digits", store).path
    assert path is not None
    return path


def interrupted(recipe: Path, store: Path, kills: int) -> str:
    command = [sys.executable, "-m", "tests.execute.interruptions", str(recipe), str(store), str(kills)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_search_is_over_when_nothing_more_is_asked_for_and_says_what_it_spared(undisturbed: Undisturbed) -> None:
    path = undisturbed.path
    assert path.over
    assert {move.reason for move in path.moves} >= {Reason.COARSE, Reason.SEEDS}
    runs = json.loads(undisturbed.plan)["nodes"]
    assert len(runs) == len(path.places) < path.terms.grid
    assert f"The search took {len(runs)} of the {path.terms.grid} runs of the full grid" in undisturbed.output
    document = json.loads((undisturbed.store / "digits/gates.json").read_text())
    assert document["search"]["passes"] == path.passes
    assert document["search"]["saving"]["runs"] == len(runs)
    assert (document["sweet_spot"] or {"level": 0})["level"] == path.passes
    assert document["search"]["moves"][0]["why"].startswith("the next coarse level, 2 rounds at once")


def test_killed_twenty_times_it_goes_the_same_path_to_the_same_bytes(tmp_path: Path, undisturbed: Undisturbed) -> None:
    assert interrupted(undisturbed.recipe, tmp_path / "runs", KILLS) == str(KILLS)
    assert sealed(tmp_path / "runs") == undisturbed.bytes
    assert (tmp_path / "runs/digits/plan.json").read_bytes() == undisturbed.plan
    assert path_of(tmp_path / "runs") == undisturbed.path


def test_two_processes_follow_one_path(tmp_path: Path, undisturbed: Undisturbed) -> None:
    interrupted(undisturbed.recipe, tmp_path / "runs", 0)
    assert sealed(tmp_path / "runs") == undisturbed.bytes
    assert path_of(tmp_path / "runs") == undisturbed.path


def test_a_search_that_was_left_is_incomplete_and_tells_what_comes(tmp_path: Path, undisturbed: Undisturbed) -> None:
    recipe = api.load(undisturbed.recipe, [f"store={tmp_path / 'runs'}"])
    experiment = api.train(api.prepare(recipe), device="cpu", executor="debug", variants=("dense",))
    assert {(run.variant, run.seed) for run in experiment.results} == {("dense", 0), ("dense", 1)}
    assert experiment.path is not None
    assert not experiment.path.over
    assert experiment.exit_status == 5


def test_plan_shows_the_first_batch_and_what_may_follow(tmp_path: Path, undisturbed: Undisturbed) -> None:
    def plan(*more: str) -> str:
        command = ["plan", "--config", str(undisturbed.recipe), "--store", str(tmp_path / "runs"), *more]
        done = CliRunner().invoke(group, command, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    document = json.loads(plan("--json"))
    assert {(run["variant"], run["seed"]) for run in document["nodes"]} >= {("ticket", 0), ("ticket", 1)}
    assert {run["level"] for run in document["nodes"]} == {0, 2}
    extent = document["search"]
    assert extent["runs"] == 6 < extent["first_look"][0] < extent["first_look"][1] < extent["at_most"] <= extent["grid"]
    assert f"at most {extent['at_most']}" in plan()


def test_a_budget_of_money_needs_a_price(tmp_path: Path, undisturbed: Undisturbed) -> None:
    recipe = api.load(undisturbed.recipe, [f"store={tmp_path / 'runs'}", "search={budget: {money: 1}}"])
    with pytest.raises(RecipeError, match=r"search.budget.money: .* --machine NAME=PRICE"):
        api.train(api.prepare(recipe), device="cpu", executor="debug")
    assert not (tmp_path / "runs").exists()
