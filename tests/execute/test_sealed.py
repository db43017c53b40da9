"""What commands ask of a store about runs that are sealed: as many requests for a hundred runs as for one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.store.places import Counting
from ticketsmith.config.load import parse_recipe
from ticketsmith.errors import TicketSmithError
from ticketsmith.execute.executor import Outcome, statuses
from ticketsmith.execute.local import LocalExecutor
from ticketsmith.execute.worker import WorkerSettings
from ticketsmith.plan import Plan, PlannedRun, make_plan
from ticketsmith.prices.ledger import cost_path
from ticketsmith.spec import key_of
from ticketsmith.store import open_store
from ticketsmith.store.contract import MANIFEST, RunFolder, Store, checkpoint_path, manifest_of
from ticketsmith.store.index import Index
from ticketsmith.training.job import Job

RECIPE = """
experiment: exp
task: {data: digits, model: mlp}
training: {optimizer: adam, lr: 0.001, batch_size: 60, duration: 100it}
pruning: {levels: 2, fraction: 0.5}
replicates: 100
"""


def plan_of(replicates: int, variant: str = "dense") -> Plan:
    recipe = parse_recipe(RECIPE.replace("100\n", f"{replicates}\n"), "recipe.yaml", Path())
    return make_plan(recipe, {"name": "classification"}, 1000).only([variant])


def seal(store: Store, folder: RunFolder, key: str) -> None:
    body = {"model.safetensors": b"weights"}
    assert store.publish(folder, {**body, MANIFEST: manifest_of(key, "trained", body)})


def job_of(node: PlannedRun) -> Job:
    return Job(node.spec, node.folder("exp"), "classification", Path(), "")


def execute(plan: Plan, store: Store) -> Outcome:
    executor = LocalExecutor(store, job_of, WorkerSettings("", "cpu", 30.0, ()), print, Index(store), 1)
    executor.submit(plan)
    executor.wait()
    return executor.outcome


@pytest.fixture
def store(tmp_path: Path) -> Counting:
    return Counting(open_store(tmp_path / "runs"))


@pytest.mark.parametrize("runs", [1, 10, 100])
def test_what_is_sealed_already_costs_no_request_of_its_own_but_its_manifest(store: Counting, runs: int) -> None:
    plan = plan_of(runs)
    for node in plan.nodes:
        seal(store, node.folder("exp"), node.key)
    leftover = checkpoint_path(plan.nodes[0].key)
    store.put(leftover, b"of a process that was killed between sealing and clearing up")
    store.asked.clear()
    outcome = execute(plan, store)
    assert outcome.cached == runs
    assert store.asked.count(("delete", leftover)) == 1
    assert store.count("get", MANIFEST) == runs
    assert len(store.asked) == runs + 3  # the runs, the checkpoints, and the one that goes
    assert not store.exists(leftover)


@pytest.mark.parametrize("runs", [1, 10, 100])
def test_a_checkpoint_is_known_without_reading_it(store: Counting, runs: int) -> None:
    plan = plan_of(runs)
    store.put(checkpoint_path(plan.nodes[0].key), b"gigabytes")
    store.asked.clear()
    shown = list(statuses(plan, store, Index(store, "exp")).values())
    assert shown == ["in part"] + ["missing"] * (runs - 1)
    assert [name for name, _ in store.asked] == ["folders", "files"]


def test_a_job_knows_where_its_parents_and_twins_lie_so_that_no_worker_lists_the_store(store: Counting) -> None:
    from ticketsmith.training.produce import reuse

    plan = plan_of(1, "ticket")
    node = next(node for node in plan.nodes if (node.variant, node.level) == ("ticket", 2))
    parents = [plan.by_key[key] for key in node.spec.parents]
    for parent in parents:
        seal(store, parent.folder("exp"), parent.key)
    twin = RunFolder("other", "one_shot", 0, 2, node.key[:8])
    seal(store, twin, node.key)
    store.put(cost_path(str(twin)), json.dumps({"key": node.key, "seconds": 60.0}).encode())
    job = job_of(node).located(Index(store))
    assert job.parents == {parent.key: parent.folder("exp") for parent in parents}
    store.asked.clear()
    assert reuse(store, job)
    assert not store.count("folders")
    assert not store.count("files")
    assert Index(store).place(node.key, "exp") == job.folder
    cost = json.loads(store.get(cost_path(str(job.folder))) or b"")
    assert (cost["seconds"], cost["copied_from"]) == (60.0, str(twin))


def test_who_publishes_second_leaves_the_cost_of_the_first(store: Counting) -> None:
    from ticketsmith.training.produce import reuse

    class Overtaken(Counting):
        """Another process seals the same run just before."""

        def publish(self, folder: RunFolder, files: dict[str, bytes]) -> bool:
            assert self.inner.publish(folder, files)
            self.inner.put(cost_path(str(folder)), b"what the other paid")
            return self.inner.publish(folder, files)

    node = plan_of(1).nodes[0]
    twin = RunFolder("other", "dense", 0, 0, node.key[:8])
    seal(store, twin, node.key)
    store.put(cost_path(str(twin)), json.dumps({"key": node.key, "seconds": 60.0}).encode())
    job = job_of(node).located(Index(store))
    assert reuse(Overtaken(store.inner), job)
    assert store.get(cost_path(str(job.folder))) == b"what the other paid"


def test_a_plan_of_another_science_keeps_its_runs_and_none_is_made_under_its_keys(store: Counting) -> None:
    plain = json.loads(plan_of(2, "ticket").to_bytes())
    for node in plain["nodes"]:
        node["key"] = key_of(node["spec"], science=2)
    stored = Plan.from_bytes(json.dumps(plain).encode())
    assert [node.key for node in stored.nodes] == [node["key"] for node in plain["nodes"]]
    assert all(node.outdated for node in stored.nodes)
    assert json.loads(stored.to_bytes()) == plain
    *sealed, last = stored.nodes
    for node in sealed:
        seal(store, node.folder("exp"), node.key)
    assert set(Index(store).runs(stored.by_key, "exp")) == {node.key for node in sealed}
    with pytest.raises(TicketSmithError, match=r"another version of the science.*Give the recipe again"):
        execute(stored, store)
    seal(store, last.folder("exp"), last.key)
    assert execute(stored, store).cached == len(stored.nodes)


@pytest.mark.parametrize("key", ["", "0123", "../../x", "G" * 64])
def test_a_plan_with_a_key_that_is_none_is_refused(key: str) -> None:
    plain = json.loads(plan_of(1).to_bytes())
    plain["nodes"][0]["key"] = key
    with pytest.raises(ValueError, match="key"):
        Plan.from_bytes(json.dumps(plain).encode())
