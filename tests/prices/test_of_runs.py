"""Prices through a real experiment: what lands in the ledger and the report, and that nothing of it is ever sealed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import ticketsmith
from tests.conftest import DIGITS
from ticketsmith.api import prepare, train
from ticketsmith.cli.main import group
from ticketsmith.errors import RecipeError
from ticketsmith.inference.settings import BenchmarkSettings
from ticketsmith.prices import Rate
from ticketsmith.store.directory import DirectoryStore

pytestmark = pytest.mark.usefixtures("undrawn")

T4 = Rate("T4", 3.6, gpus=1, idle_tail=600.0, source="a list", dated="2026-08-20")


SMALL = ("training.duration=40it", "pruning.levels=1", "benchmark.rounds=10", "gates.target_sparsity=0.3")


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory, undrawn: None) -> Path:
    """A store with the dense runs of the small recipe, trained once on a T4."""
    folder = tmp_path_factory.mktemp("dense")
    (folder / "recipe.yaml").write_text(DIGITS)
    recipe = ticketsmith.load(folder / "recipe.yaml", [f"store={folder / 'runs'}", *SMALL])
    train(prepare(recipe), variants=["dense"], machine=T4, executor="debug")
    return folder / "runs"


@pytest.fixture
def recipe(recipe_file: Callable[..., Path], tmp_path: Path) -> Callable[..., ticketsmith.config.Recipe]:
    """The small recipe on digits, one level; each call may name another store or experiment."""

    def load(store: str = "runs", *overrides: str) -> Any:
        return ticketsmith.load(recipe_file(), [f"store={tmp_path / store}", *SMALL, *overrides])

    return load


def costs(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("ledger/*/*/*/cost.json"))]


def sealed(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in files
        if path.relative_to(folder).parts[0] not in ("ledger", "report", "benchmark.json")
    }


def test_the_price_is_in_the_ledger_and_in_no_sealed_file(recipe: Callable[..., Any], tmp_path: Path) -> None:
    priced = train(prepare(recipe("runs", "replicates=1")), workers=2, machine=T4)
    results = priced.results
    (tmp_path / "runs").rename(tmp_path / "priced")
    train(prepare(recipe("runs", "replicates=1")), workers=2)
    assert sealed(tmp_path / "priced/digits") == sealed(tmp_path / "runs/digits"), "every byte, recipe and plan too"

    ledger = costs(tmp_path / "priced/digits")
    assert len(ledger) == len(priced.plan.by_key)
    for cost in ledger:
        assert cost["side_by_side"] == 2
        assert cost["price"] == pytest.approx(cost["seconds"] / 2 * 0.001, abs=1e-6)
        assert (cost["device"], cost["gpu_seconds"], cost["currency"]) == ("cpu", 0.0, "USD")
        assert (tmp_path / "priced" / cost["run"] / "manifest.json").is_file()
    tails = [cost["idle_tail_seconds"] for cost in ledger]
    assert sum(tails) == 600.0, "the node idles once, not once a run; two workers share it"
    assert all(cost["price"] is None for cost in costs(tmp_path / "runs/digits"))
    by_key = {cost["key"]: cost["price"] for cost in ledger}
    assert [result.bill and result.bill.price for result in results] == [by_key[result.key] for result in results]


def test_a_copied_run_brings_its_cost_along(recipe: Callable[..., Any], dense: Path, tmp_path: Path) -> None:
    shutil.copytree(dense, tmp_path / "runs")
    other = train(prepare(recipe("runs", "experiment=again")), variants=["dense"], executor="debug")
    assert other.outcome.trained == 0
    before, after = costs(tmp_path / "runs/digits"), costs(tmp_path / "runs/again")
    assert [cost["price"] for cost in after] == [
        cost["price"] for cost in before if cost["run"].split("/")[1] == "dense"
    ]
    assert all(cost["run"].startswith("again/") and cost["copied_from"].startswith("digits/") for cost in after)
    assert all(result.bill and result.bill.copied for result in other.results)


def test_a_lost_or_damaged_ledger_loses_no_result(dense: Path, tmp_path: Path) -> None:
    shutil.copytree(dense, tmp_path / "runs")
    first, second = sorted((tmp_path / "runs/digits/ledger").rglob("cost.json"))
    first.unlink()
    broken = json.loads(second.read_text()) | {"price": "cheap"}
    second.write_text(json.dumps(broken))
    again = ticketsmith.open_experiment("digits", str(tmp_path / "runs"))
    assert [result.seconds for result in again.results] == [None, None]
    assert again.findings.cost.total.untimed == 2


def test_times_of_older_stores_are_still_read(dense: Path, tmp_path: Path) -> None:
    shutil.copytree(dense, tmp_path / "runs")
    store = DirectoryStore(tmp_path / "runs")
    for path in sorted((tmp_path / "runs/digits/ledger").rglob("cost.json")):
        cost = json.loads(path.read_text())
        path.unlink()
        old = {"key": cost["key"], "run": cost["run"], "seconds": 12.5, "device": "cpu"}
        store.put(f"digits/ledger/{cost['key']}.json", json.dumps(old).encode())
    again = ticketsmith.open_experiment("digits", str(tmp_path / "runs"))
    assert [result.seconds for result in again.results] == [12.5, 12.5]
    assert again.findings.cost.total.unpriced == 2


def test_the_report_tells_what_it_cost_and_what_the_cluster_billed(recipe: Callable[..., Any], tmp_path: Path) -> None:
    recipe_ = recipe("runs", "replicates=1", "variants.random_reinit=false", "variants.random_ticket=false")
    made = ticketsmith.run(recipe_, workers=2, machine=replace(T4, idle_tail=0.0), benchmark=False)
    benchmark = made.time_inference(
        BenchmarkSettings(("torch", "sparse"), batch_sizes=(1,), rounds=10), machine="server=7.2"
    )
    assert benchmark.machine_rate is not None
    assert (benchmark.machine_rate.machine, benchmark.machine_rate.per_hour) == ("server", 7.2)
    kept = made.time_inference(BenchmarkSettings(batch_sizes=(1,)), machine="other=1.0")
    assert kept.timings == benchmark.timings, "a new price measures nothing anew"
    assert made.benchmark == kept

    record = {"pod": "p", "job": "j", "index": 0, "variant": "dense", "seconds": 50.0, "machine": "T4",
              "price_per_hour": 3.6, "currency": "USD", "exit": 0, "ended": True}  # fmt: skip
    store = DirectoryStore(tmp_path / "runs")
    store.put("digits/jobs/j/pods/p.json", json.dumps(record).encode())
    store.put("digits/jobs/j/pods/q.json", b"half a rec")
    store.put("digits/jobs/j/job.json", b"{}")
    again = ticketsmith.open_experiment("digits", made.store.url)
    again.report()
    text = (tmp_path / "runs/digits/report/report.md").read_text()
    assert "## What it cost" in text
    assert "Finding the ticket cost $" in text or "The search cost $" in text
    assert "The cluster billed $0.050: 1 pod took 50 s" in text
    assert "1 record of pods could not be read" in text
    rows = (tmp_path / "runs/digits/report/results.csv").read_text().splitlines()
    assert "price,currency,machine,price_per_hour" in rows[0]
    assert all(",USD,T4,3.6," in row for row in rows[1:])


def test_the_commands_take_a_machine(recipe_file: Callable[..., Path], tmp_path: Path) -> None:
    common = ["--config", str(recipe_file()), "--store", str(tmp_path / "runs"), "--set", "training.duration=40it"]
    command = ["train", *common, "--workers", "1", "--machine", "Standard_D2s_v5@westeurope"]
    assert CliRunner().invoke(group, command, catch_exceptions=False).exit_code == 0
    (cost, _) = costs(tmp_path / "runs/digits")
    assert (cost["machine"], cost["price_per_hour"], cost["dated"]) == ("Standard_D2s_v5", 0.115, "2026-08-20")
    assert cost["side_by_side"] == 1
    with pytest.raises(RecipeError, match=r"Did you mean 'Standard_D2s_v5'"):
        CliRunner().invoke(group, ["train", *common, "--machine", "Standard_D2_v5"], catch_exceptions=False)
