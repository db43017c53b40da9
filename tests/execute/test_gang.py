"""A run of two ranks, by real torchrun: when one is killed all end, and the same command goes on to the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests import warm
from tests.execute.kubernetes.experiments import target_of
from tests.training import pair
from tests.training.runs import ROOT
from ticketsmith import api
from ticketsmith.config import load_recipe
from ticketsmith.errors import Exit
from ticketsmith.execute.kubernetes.jobs import Assignment, Share
from ticketsmith.execute.kubernetes.records import Records
from ticketsmith.store.directory import DirectoryStore

CPUS = ("connection_secret=null", "train.gpus=0", "train.cpu=2", "limits.checkpoint_every=1s")
_MARK = "TICKETSMITH_TEST_STORE"


def start(store: Path, *words: str | Path) -> subprocess.Popen[str]:
    """A command in a session of its own."""
    return warm.start(
        ["-m", "tests.plain", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT), "JOB_COMPLETION_INDEX": "0", _MARK: str(store)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def of_the_gang(store: Path) -> dict[str, int]:
    """Processes by rank, and torchrun's as ``agent``, that work for this store."""
    pids = {}
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            variables = dict(one.split("=", 1) for one in (place / "environ").read_text().split("\0") if "=" in one)
            if variables.get(_MARK) == str(store):
                words = (place / "cmdline").read_text().split("\0")
                if "ticketsmith.execute.rank" in words:
                    pids[variables["RANK"]] = int(place.name)
                elif "ticketsmith.execute.gang_agent" in words:
                    pids["agent"] = int(place.name)
    return pids


def in_training(process: subprocess.Popen[str], store: Path) -> None:
    """Waits until a checkpoint is written."""
    began, deadline = time.time(), time.monotonic() + 200
    while process.poll() is None and time.monotonic() < deadline:
        for path in (store / ".work").glob("*.checkpoint"):
            with suppress(FileNotFoundError):
                if path.stat().st_mtime > began:
                    return
        time.sleep(0.01)
    raise AssertionError(process.communicate(timeout=5)[0])


def ended(process: subprocess.Popen[str], store: Path) -> tuple[int, str]:
    """Status and output of a command; nothing that it has begun is left a moment later."""
    output, _ = process.communicate(timeout=200)
    deadline = time.monotonic() + 20
    while (left := of_the_gang(store)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left, output
    assert "Traceback" not in output
    return process.returncode, output


def two_ranks(recipe_file: Callable[..., Path], steps: int) -> Path:
    """A recipe of runs that take long enough to be met in the middle."""
    return recipe_file(
        ("duration: 120it", f"duration: {steps}it"),
        ("evaluate_every: 30it", f"evaluate_every: {steps // 6}it\n  ranks: 2"),
        ("replicates: 2", "replicates: 1"),
    )


def test_a_lost_rank_ends_the_run_and_the_same_command_goes_on(
    tmp_path: Path, recipe_file: Callable[..., Path]
) -> None:
    recipe, store = two_ranks(recipe_file, 600), tmp_path / "runs"
    command = ["train", "--config", recipe, "--store", store, "--checkpoint-every", "0.01"]
    process = start(store, *command)
    in_training(process, store)
    os.kill(of_the_gang(store)["1"], signal.SIGKILL)
    status, output = ended(process, store)
    assert status == Exit.INCOMPLETE, output
    assert "rank 1 of 2 was killed (out of memory?), so all ranks have ended" in output
    assert not list(store.rglob("manifest.json"))

    status, output = ended(start(store, *command), store)
    assert status == Exit.OK, output
    assert pair.run(recipe, tmp_path / "whole", variant="dense") == ["", ""]
    for name in ("model.safetensors", "mask.safetensors", "metrics.json", "curve.csv", "spec.json"):
        (ours,), (theirs,) = store.rglob(name), (tmp_path / "whole").rglob(name)
        assert ours.read_bytes() == theirs.read_bytes(), name


def test_a_pod_makes_a_run_by_ranks_and_ends_with_all_of_them(tmp_path: Path, recipe_file: Callable[..., Path]) -> None:
    """Asked to end, with a checkpoint; and killed, with nothing left behind."""
    store = tmp_path / "runs"
    prepared = api.prepare(load_recipe(two_ranks(recipe_file, 600_000)))
    dense = prepared.plan.only(["dense"])
    terms = {
        "task": prepared.recipe.task_component,
        "recipe_sha256": prepared.recipe.sha256,
        "target": target_of(f"store={store}", *CPUS).to_bytes().decode(),
    }
    assignment = Assignment("digits", "dense", (Share(0, tuple(dense.by_key)),))
    digest = Records(DirectoryStore(store), "digits").assign("job", assignment.to_bytes(dense, terms))
    command = ["work", "--store", store, "--experiment", "digits", "--job", "job", "--sha256", digest]
    process = start(store, *command)
    in_training(process, store)
    os.kill(process.pid, signal.SIGTERM)
    status, output = ended(process, store)
    assert status == Exit.INTERRUPTED, output
    assert list((store / ".work").glob("*.checkpoint"))

    process = start(store, *command)
    in_training(process, store)
    os.kill(process.pid, signal.SIGKILL)
    ended(process, store)
