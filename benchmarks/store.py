"""Reading the results of a large experiment: from a folder, from Azure Blob, and from Blob with a warm cache.

    scripts/install_azurite.sh
    python benchmarks/store.py --runs 1000 --rounds 5

Makes an experiment of synthetic runs (files as training writes them, with weights of 200 kB), in a local folder and in an
Azurite that it starts itself; then reads everything that a report is made of. Requests are counted by a proxy, in one more
reading that is not timed. Azurite on the same machine answers at once; Azure does not, so there a request saved is worth more.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from azure.storage.blob import VERSION

from tests.store.azurite import CONNECTION_STRING, Azurite, connection_string
from tests.store.proxy import FaultyProxy
from ticketsmith import collect
from ticketsmith.config.load import parse_recipe
from ticketsmith.machine import cpu_name
from ticketsmith.plan import Plan, PlannedRun, make_plan
from ticketsmith.prices.ledger import cost_path, run_cost
from ticketsmith.store import open_store
from ticketsmith.store.cache import VARIABLE
from ticketsmith.store.contract import MANIFEST, manifest_of, to_json
from ticketsmith.store.parallel import each
from ticketsmith.store.transfer import move, what_to_move
from ticketsmith.version import __version__

RECIPE = """
experiment: large
task: {data: digits, model: mlp}
training: {optimizer: adam, lr: 0.001, batch_size: 60, duration: 1000it}
pruning: {levels: LEVELS, fraction: 0.1}
replicates: 10
"""
WEIGHTS = 200_000  # bytes
POINTS = 100  # of a curve


def plan_of(runs: int) -> Plan:
    """Ten replicates of dense, its rewind point, and three variants at each level: ten runs are two and three a level."""
    levels = max(1, -(-(runs // 10 - 2) // 3))
    recipe = parse_recipe(RECIPE.replace("LEVELS", str(levels)), "benchmark", Path())
    return make_plan(recipe, {"name": "synthetic"}, 1000)


def files_of(node: PlannedRun, chance: random.Random) -> dict[str, bytes]:
    quality = {"step": 1000, "validation": {"loss": chance.random(), "accuracy": 97 + chance.random()}}
    measured = {**quality, "test": {"loss": chance.random(), "accuracy": 97 + chance.random()}}
    metrics = {
        "status": "trained",
        "steps": 1000,
        "weights": {"total": 266_200, "kept": int(266_200 * 0.9**node.level)},
        "layers": {f"layer{n}.weight": {"total": 88_000, "kept": int(88_000 * 0.9**node.level)} for n in range(3)},
        "parameters": 266_610,
        "metrics": [
            {"name": "loss", "higher_is_better": False, "unit": "", "decimals": 4},
            {"name": "accuracy", "higher_is_better": True, "unit": "%", "decimals": 2},
        ],
        "flops": {"forward": 532_400, "training": 10**9},
        "final": measured,
        "early_stop": measured,
    }
    rows = [f"{10 * n},{chance.random()!r},{chance.random()!r},{97 + chance.random()!r}" for n in range(POINTS)]
    files = {
        "spec.json": to_json(node.spec.canonical),
        "metrics.json": to_json(metrics),
        "curve.csv": "\n".join(["step,train_loss,validation_loss,validation_accuracy", *rows, ""]).encode(),
        "environment.json": to_json({"ticketsmith": __version__, "torch": "2", "cpu": "synthetic"}),
        "mask.safetensors": chance.randbytes(WEIGHTS // 32),
        "model.safetensors": chance.randbytes(WEIGHTS),
    }
    return {**files, MANIFEST: manifest_of(node.key, "trained", files)}


def fill(place: str, plan: Plan) -> None:
    store = open_store(place)
    store.put("large/plan.json", plan.to_bytes())

    def make(node: PlannedRun) -> None:
        folder = node.folder("large")
        store.put(cost_path(str(folder)), to_json(run_cost(node.key, str(folder), 60.0, "cpu")))
        store.publish(folder, files_of(node, random.Random(node.key)))

    for _ in each(make, plan.by_key.values()):
        pass


@dataclass
class Row:
    name: str
    seconds: list[float]
    requests: int


def read(place: str) -> int:
    store = open_store(place)
    plan = collect.read_plan(store, "large")
    view = collect.view(store, "large")
    collect.read_environment(view, plan)
    return len(collect.read_results(view, plan))


def measured(name: str, rounds: int, before: Callable[[], None], place: str, azurite: Azurite) -> Row:
    seconds = []
    read(place)
    for _ in range(rounds):
        before()
        began = time.perf_counter()
        read(place)
        seconds.append(time.perf_counter() - began)
    with FaultyProxy(azurite.port) as proxy:
        os.environ[CONNECTION_STRING] = connection_string(proxy.port)
        read(place)  # to the cache the proxy is another server
        proxy.forget()
        before()
        read(place)
        os.environ[CONNECTION_STRING] = azurite.connection_string
    return Row(name, seconds, len(proxy.requests))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="store-benchmark-"))
    local, remote = str(scratch / "runs"), "az://benchmark/runs"
    plan = plan_of(options.runs)
    azurite = Azurite(scratch / "azurite").start()
    os.environ[CONNECTION_STRING] = azurite.connection_string
    fresh = iter(range(10**6))

    def cold() -> None:
        os.environ[VARIABLE] = str(scratch / f"cache{next(fresh)}")

    def as_it_is() -> None:
        pass

    try:
        fill(local, plan)
        todo = what_to_move(open_store(local), open_store(remote), "large")
        began = time.perf_counter()
        move(open_store(local), open_store(remote), todo)
        pushed = time.perf_counter() - began
        rows = [
            measured("folder", options.rounds, as_it_is, local, azurite),
            measured("blob, cold", options.rounds, cold, remote, azurite),
            measured("blob, warm", options.rounds, as_it_is, remote, azurite),
        ]
    finally:
        azurite.stop()
    print(f"command: {' '.join(['python', *sys.argv])}")
    print(f"machine: {cpu_name()}, {os.cpu_count()} cores, {platform.system()}; Python {platform.python_version()}")
    print(f"versions: ticketsmith {__version__}, azure-storage-blob {VERSION}, azurite {_azurite()}")
    print(f"{len(plan.by_key)} runs, {len(plan.by_key) * 8} files, {todo.bytes / 1e6:.0f} MB; pushed in {pushed:.1f} s")
    slowest = statistics.median(rows[1].seconds)
    print(f"{'read all results from':<24}{'median':>9}{'min':>9}{'max':>9}{'requests':>10}{'against cold':>14}")
    for row in rows:
        middle = statistics.median(row.seconds)
        print(
            f"{row.name:<24}{middle:>7.2f} s{min(row.seconds):>7.2f} s{max(row.seconds):>7.2f} s{row.requests:>10}"
            f"{slowest / middle:>13.1f}x"
        )


def _azurite() -> str:
    package = Path(__file__).resolve().parents[1] / "tests/tools/package.json"
    return str(json.loads(package.read_text())["dependencies"]["azurite"])


if __name__ == "__main__":
    main()
