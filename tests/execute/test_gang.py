"""A run of two ranks, by real torchrun: one is killed, all are interrupted; the same command goes on to the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests import warm
from tests.training import pair
from tests.training.runs import ROOT

Write = Callable[..., Path]
_MARK = "TICKETSMITH_TEST_STORE"


def start(recipe: Path, store: Path) -> subprocess.Popen[str]:
    """Dense training, in a session of its own, with a checkpoint as often as may be."""
    command = ["-m", "tests.plain", "train", "--config", str(recipe), "--store", str(store)]
    return warm.start(
        [*command, "--checkpoint-every", "0.01"],
        env={**os.environ, "PYTHONPATH": str(ROOT), _MARK: str(store)},
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


def test_a_lost_rank_ends_the_run_and_the_same_command_goes_on(tmp_path: Path, recipe_file: Write) -> None:
    recipe = recipe_file(
        ("duration: 120it", "duration: 600it"),
        ("evaluate_every: 30it", "evaluate_every: 100it\n  ranks: 2"),
        ("replicates: 2", "replicates: 1"),
    )
    store = tmp_path / "runs"

    process = start(recipe, store)
    in_training(process, store)
    os.kill(of_the_gang(store)["1"], signal.SIGKILL)
    status, output = ended(process, store)
    assert status == 5, output
    assert "rank 1 of 2 was killed (out of memory?), so all ranks have ended" in output
    assert not list(store.rglob("manifest.json"))

    process = start(recipe, store)
    in_training(process, store)
    os.kill(process.pid, signal.SIGTERM)
    status, output = ended(process, store)
    assert status == 130, output

    process = start(recipe, store)
    in_training(process, store)
    os.kill(process.pid, signal.SIGKILL)
    ended(process, store)

    status, output = ended(start(recipe, store), store)
    assert status == 0, output
    assert pair.run(recipe, tmp_path / "whole", variant="dense") == ["", ""]
    for name in ("model.safetensors", "mask.safetensors", "metrics.json", "curve.csv", "spec.json"):
        (ours,), (theirs,) = store.rglob(name), (tmp_path / "whole").rglob(name)
        assert ours.read_bytes() == theirs.read_bytes(), name
