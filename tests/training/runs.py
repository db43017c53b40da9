"""Runs as executors make them: at once, in parts, and in a process that is killed."""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import sys
import time
from pathlib import Path

import torch

from tests import warm
from ticketsmith import api
from ticketsmith.config import load_recipe
from ticketsmith.store.contract import Store
from ticketsmith.store.directory import DirectoryStore
from ticketsmith.training.device import prepare
from ticketsmith.training.job import Job
from ticketsmith.training.produce import Hooks, Interrupted, produce

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[2]


def jobs(recipe_path: Path, *overrides: str) -> dict[tuple[str, int, int], Job]:
    """The runs of a recipe by variant, level and seed."""
    prepared = api.prepare(load_recipe(recipe_path, overrides))
    return {
        (node.variant, node.level, node.seed): Job(
            node.spec, node.folder("x"), prepared.recipe.task_component, prepared.recipe.base, "hash"
        )
        for node in prepared.plan.nodes
    }


def sealed_bytes(root: Path) -> dict[str, str]:
    """A hash of every file that is part of a run in the store ``root``."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and ".work" not in path.parts and "ledger" not in path.parts
    }


def in_parts(job: Job, store: Store, every: int) -> int:
    """Makes a run that is stopped after each ``every`` steps, and begun again; how often it was."""
    for interruptions in itertools.count():
        steps = itertools.count(1)
        try:
            produce(job, store, CPU, Hooks(stop=lambda c=steps: next(c) % every == 0))  # type: ignore[misc]
            return interruptions
        except Interrupted:
            continue
    raise AssertionError


def kill_after(steps: int, recipe: Path, store: Path, variant: str = "dense", level: int = 0, seed: int = 0) -> None:
    """Begins a run in a process of its own, and kills that (SIGKILL) in the middle of training."""
    command = ["-m", "tests.training.runs", recipe, store, variant, str(level), str(seed), str(steps)]
    process = warm.start(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        told = process.stdout.readline()
        process.kill()
    process.wait(60)
    assert told == "in training\n", "it ended before it could be killed"


def goes_on_to_the_same_bytes(
    recipe: Path, folder: Path, name: tuple[str, int, int] = ("dense", 0, 0), stretches: int = 12
) -> None:
    """A run that was killed after so many stretches of steps, of PyTorch's one each, goes on from the last but one, and ends as
    one that nothing disturbed."""
    kill_after(stretches, recipe, folder / "killed", *name)
    job, begun = jobs(recipe)[name], list[int]()
    hooks = Hooks(report=lambda step, of, loss: begun.append(step))
    assert produce(job, DirectoryStore(folder / "killed"), CPU, hooks) == "trained"
    assert begun[0] >= stretches - 1, "it did not go on from its last checkpoint"
    produce(job, DirectoryStore(folder / "whole"), CPU, Hooks())
    assert sealed_bytes(folder / "killed") == sealed_bytes(folder / "whole")


def _wait_to_be_killed(recipe: str, store: str, variant: str, level: str, seed: str, last: str) -> None:
    steps = itertools.count(1)

    def stop() -> bool:
        if next(steps) == int(last):
            print("in training", flush=True)
            time.sleep(600)
        return False

    job = jobs(Path(recipe))[variant, int(level), int(seed)]
    produce(job, DirectoryStore(Path(store)), prepare("cpu"), Hooks(stop=stop, checkpoint_every=0.0))


if __name__ == "__main__":
    _wait_to_be_killed(*sys.argv[1:])
