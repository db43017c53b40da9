"""What a run costs beside its training: the start of workers, and the fixed cost of a node.

    python benchmarks/train/node_cost.py

A grid of runs of one step each, on handwritten digits: so what is left of a run is its model, mask, evaluations and files. Runs
are made in this process as a worker makes them, into a fresh folder. Times are of the processor, which other work on the machine
changes less than the wall's; the wall's are beside them. Workers are started as a command starts them, each for one run; the
first one pays for what they are all forked from.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from ticketsmith import api
from ticketsmith.config.load import parse_recipe
from ticketsmith.execute.executor import Schedule
from ticketsmith.execute.processes import Starter
from ticketsmith.execute.server import Loaded
from ticketsmith.execute.worker import THREADS, Ended, Maker, WorkerSettings
from ticketsmith.machine import cpu_name
from ticketsmith.store import open_store
from ticketsmith.store.index import Index
from ticketsmith.training.device import prepare
from ticketsmith.version import __version__

RECIPE = """
experiment: nodes
task: {data: digits, model: mlp, validation: 300}
training: {optimizer: adam, lr: 0.001, batch_size: 60, duration: 1it, evaluate_every: 1it}
pruning: {levels: LEVELS, fraction: 0.2}
replicates: 3
"""


def prepared(place: str, levels: int) -> api.Prepared:
    return api.prepare(parse_recipe(f"{RECIPE.replace('LEVELS', str(levels))}store: {place}\n", "benchmark", Path()))


def nodes(grid: api.Prepared, settings: WorkerSettings) -> tuple[list[float], list[float]]:
    """Seconds of each run of the grid, of work and of the wall."""
    store = open_store(settings.store)
    schedule = Schedule(grid.plan, store, Index(store))
    maker = Maker(settings, store, prepare("cpu"), lambda event: None)
    work, wall = [], []
    while schedule.todo:
        for run in schedule.ready():
            job = api._job(grid.recipe, run).located(schedule.index)
            began = time.process_time(), time.perf_counter()
            event = maker.make(job)
            work.append(time.process_time() - began[0])
            wall.append(time.perf_counter() - began[1])
            assert event.outcome == "trained", event.message
            schedule.settle(event)
    return work, wall


def starts(grid: api.Prepared, settings: WorkerSettings, count: int, copies: bool) -> list[float]:
    """Seconds from asking for a worker to the end of its run, one after another. ``copies``: of this very process."""
    job = api._job(grid.recipe, next(iter(grid.plan.by_key.values())))
    loaded = Loaded(grid.facts.task, grid.facts.forward_flops) if copies else None
    starter, seconds = Starter(settings, job, loaded), []
    try:
        for _ in range(count):
            began = time.perf_counter()
            process, pipe = starter.start()
            pipe.send(job)
            while not isinstance(event := pipe.recv(), Ended):
                pass
            seconds.append(time.perf_counter() - began)
            assert event.outcome in ("trained", "reused"), event.message
            pipe.send(None)
            process.join()
    finally:
        starter.close()
    return seconds


def row(name: str, seconds: Sequence[float]) -> None:
    print(f"{name:<52}{statistics.median(seconds):>9.4f} s{min(seconds):>10.4f}{max(seconds):>9.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--levels", type=int, default=10)
    parser.add_argument("--workers", type=int, default=5)
    options = parser.parse_args()
    if not set(THREADS) <= set(os.environ):  # as a command sets them before it imports torch
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **dict.fromkeys(THREADS, "1")})
    with tempfile.TemporaryDirectory(prefix="node-cost-") as folder:
        began = time.process_time()
        grid = prepared(f"{folder}/runs", options.levels)
        loading = time.process_time() - began
        settings = WorkerSettings(f"{folder}/starts", "cpu", 30.0, ())
        copied = starts(grid, settings, options.workers, copies=True)
        spawned = starts(grid, settings, options.workers, copies=False)
        work, wall = nodes(grid, WorkerSettings(f"{folder}/runs", "cpu", 30.0, ()))
    print(f"command: python {' '.join(sys.argv)}")
    print(f"machine: {cpu_name()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {platform.system()}")
    print(f"versions: ticketsmith {__version__}, torch {torch.__version__}, Python {platform.python_version()}")
    print(f"{len(work)} runs of one step; preparing them took {loading:.2f} s of work, after imports\n")
    print(f"{'':<52}{'median':>11}{'least':>10}{'most':>9}")
    row("a node, work", work)
    row("a node, wall", wall)
    row("first worker and its run, copy of this process", copied[:1])
    row("first worker and its run, from a new process", spawned[:1])
    row("each worker after it, and its run", [*copied[1:], *spawned[1:]])


if __name__ == "__main__":
    main()
