"""Real processes: side by side, killed, interrupted, two at once; the store ends with the same bytes."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests import warm
from tests.conftest import DIGITS

ROOT = Path(__file__).resolve().parents[2]
Write = Callable[..., Path]
SMALL = DIGITS.replace("levels: 2", "levels: 1").replace("target_sparsity: 0.4", "target_sparsity: 0.3")
"""Ten runs of two replicates: enough to be met in the middle of one."""


def start(
    recipe: Path, store: Path | str, *more: str, module: str = "tests.plain", afresh: bool = False
) -> subprocess.Popen[str]:
    """A command in a session of its own. ``afresh``: by ``exec``, so that the system shows its own command line; and so are
    the processes that it spawns."""
    command = ["-m", module, "prune", "--config", str(recipe), "--store", str(store), "--no-benchmark", *more]
    settings: dict[str, Any] = {
        "env": {**os.environ, "PYTHONPATH": str(ROOT)},
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "start_new_session": True,
    }
    if afresh:
        return subprocess.Popen([sys.executable, *command], text=True, **settings)
    return warm.start(command, **settings)


def finish(recipe: Path, store: Path, *more: str, module: str = "tests.plain") -> tuple[int, str]:
    process = start(recipe, store, *more, module=module)
    out, err = process.communicate(timeout=300)
    return process.returncode, out + err


def sealed(store: Path) -> dict[str, str]:
    """SHA-256 of every file of every sealed run: all that the store promises to be the same."""
    return {
        path.relative_to(store).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in store.glob("*/*/seed-*/level-*")
        for path in folder.iterdir()
    }


@dataclass(frozen=True)
class Reference:
    """A recipe, and an undisturbed execution of it with one worker."""

    recipe: Path
    store: Path
    bytes: dict[str, str]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    folder = tmp_path_factory.mktemp("reference")
    recipe = folder / "recipe.yaml"
    recipe.write_text(SMALL)
    code, output = finish(recipe, folder / "runs", "--workers", "1")
    assert code in (0, 3, 6), output
    return Reference(recipe, folder / "runs", sealed(folder / "runs"))


def test_nothing_is_trained_twice(tmp_path: Path, reference: Reference) -> None:
    store = tmp_path / "runs"
    shutil.copytree(reference.store, store)
    before = {path: path.stat().st_mtime_ns for path in store.rglob("manifest.json")}
    code, output = finish(reference.recipe, store, "--set", "pruning.levels=2")
    assert code in (0, 3, 6), output
    assert "6 trained, 10 cached" in output
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert reference.bytes.items() <= sealed(store).items()


def test_ended_at_random_moments_it_goes_on_to_the_same_bytes(tmp_path: Path, reference: Reference) -> None:
    """By Ctrl-C as it begins, by SIGTERM and by SIGKILL in the middle of its work."""
    store, chance = tmp_path / "broken", random.Random(9)
    for how in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        began = time.time()
        process = start(reference.recipe, store, "--checkpoint-every", "0.05")
        # Counted from a sign of life, as a slow machine spends long on its start alone.
        at_work = how is not signal.SIGINT
        _wait(process, 60, partial(_works, store, began) if at_work else partial(_listens, process.pid))
        _wait(process, chance.uniform(0.0, 1.0))
        if process.poll() is None:
            target = os.getpgid(process.pid)
            os.kill(process.pid, how) if how is signal.SIGKILL else os.killpg(target, how)
        out, err = process.communicate(timeout=60)
        assert "Traceback" not in out + err
        if how is not signal.SIGKILL and process.returncode != 0 and "report:" not in out:
            assert process.returncode == 130, (process.returncode, out, err)
    code, output = finish(reference.recipe, store)
    assert code in (0, 3, 6), output
    assert sealed(store) == reference.bytes


def _listens(pid: int) -> bool:
    """Whether the process has come so far as to have a handler for SIGTERM."""
    caught = int(Path(f"/proc/{pid}/status").read_text().split("SigCgt:")[1].split()[0], 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)


def _works(store: Path, since: float) -> bool:
    """Whether a run was claimed or a checkpoint saved; files of earlier executions do not count."""
    for path in (store / ".work").rglob("*"):
        with suppress(FileNotFoundError):
            if path.stat().st_mtime > since:
                return True
    return False


def _wait(process: subprocess.Popen[str], seconds: float, until: Callable[[], bool] = lambda: False) -> None:
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline and not until():
        time.sleep(0.01)


def test_workers_end_with_their_parent(tmp_path: Path, recipe_file: Write) -> None:
    recipe = recipe_file(("duration: 120it", "duration: 100000it"), ("evaluate_every: 30it", "evaluate_every: 1000it"))
    process = start(recipe, tmp_path / "runs", afresh=True)
    group = os.getpgid(process.pid)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "runs" / ".work").glob("locks/*")) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    os.killpg(group, signal.SIGKILL)
    pytest.fail("a worker went on after its parent was killed")


def test_a_killed_worker_is_replaced(tmp_path: Path, reference: Reference) -> None:
    """Also when what workers are forked from was killed before it; two workers give the bytes of one."""
    recipe, expected = reference.recipe, reference.bytes
    process = start(recipe, tmp_path / "runs", "--workers", "2", afresh=True)
    victims = [_workers, _children, _workers]
    while process.poll() is None and victims:
        time.sleep(0.05)  # all of it takes a second where nothing else runs
        if (pids := victims[0](process.pid)) and list((tmp_path / "runs" / ".work").glob("locks/*")):
            os.kill(pids[0], signal.SIGKILL)
            victims.pop(0)
    out, err = process.communicate(timeout=200)
    assert len(victims) < 2, "nothing was killed"
    assert process.returncode in (0, 3, 6), out + err
    assert sealed(tmp_path / "runs") == expected


def _workers(pid: int) -> list[int]:
    """Those that were forked from the child that has the data, and those that were spawned where it had gone."""
    return [worker for child in _children(pid) for worker in _children(child)]


def _children(parent: int) -> list[int]:
    """Copies of a process, and what it spawned."""
    own, children = b"", []
    with suppress(OSError):
        own = Path(f"/proc/{parent}/cmdline").read_bytes()
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rsplit(")", 1)[1].split()
            command_line = (entry.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[1]) == parent and (command_line == own or b"spawn_main" in command_line):
            children.append(int(entry.parent.name))
    return children


def test_two_executions_at_once_share_the_work(tmp_path: Path, reference: Reference) -> None:
    recipe, expected = reference.recipe, reference.bytes
    both = [start(recipe, tmp_path / "shared", "--workers", "1") for _ in range(2)]
    outputs = [process.communicate(timeout=300) for process in both]
    assert [process.returncode in (0, 3, 6) for process in both] == [True, True], outputs
    assert sealed(tmp_path / "shared") == expected
    trained = [int(err.split(" trained, ")[0].splitlines()[-1]) for _, err in outputs]
    assert sum(trained) == len({name.rsplit("/", 1)[0] for name in expected})


def test_a_run_that_is_alone_has_all_cores_and_the_same_bytes(tmp_path: Path, recipe_file: Write) -> None:
    recipe = recipe_file(("widths: [32, 16]", "widths: [256, 64]"), ("levels: 2", "levels: 1"))
    native = ("--set", "training.kernels=native", "--set", "replicates=1")
    for workers in ("1", "3"):
        code, output = finish(recipe, tmp_path / workers, *native, "--workers", workers)
        assert code in (0, 3, 6), output
    assert sealed(tmp_path / "1") == sealed(tmp_path / "3")
    costs = [json.loads(path.read_text()) for path in (tmp_path / "3").glob("*/ledger/**/*.json")]
    assert {cost["side_by_side"] for cost in costs if "/dense/" in cost["run"]} == {1}, (
        "it is charged the whole machine"
    )


def test_one_diverged_run_fails_its_gate_and_the_others_go_on(tmp_path: Path, recipe_file: Write) -> None:
    recipe = recipe_file(
        ("optimizer: adam\n  lr: 0.003", "optimizer: sgd\n  lr: 0.05"),
        ("replicates: 2", "replicates: 2\nvariants: {finetune: {lr: 1.0e+30, duration: 60it}}"),
    )
    code, output = finish(recipe, tmp_path / "runs", module="ticketsmith")
    assert code == 4, output
    assert "diverged: finetune level 1 seed 0" in output
    assert "Traceback" not in output
    gates = json.loads((tmp_path / "runs/digits/gates.json").read_text())
    verdicts = {(v["variant"], v["level"]): v["status"] for v in gates["test"]}
    assert verdicts["finetune", 1] == "FAIL"
    assert ("ticket", 2) in verdicts
    assert "diverge" in (tmp_path / "runs/digits/report/report.md").read_text().lower()


def test_a_store_that_fails_stops_the_experiment_at_once(tmp_path: Path, recipe_file: Write) -> None:
    """Training on what cannot be kept would only waste hours."""
    (tmp_path / "runs/digits").mkdir(parents=True)
    (tmp_path / "runs/digits/dense").write_text("a file where a folder must be")
    code, output = finish(recipe_file(), tmp_path / "runs", "--workers", "1")
    assert code == 5
    assert output.count("failed: dense level 0") == 1
    assert "cannot write" in output
    assert "the same command goes on" in output
    assert "Traceback" not in output
    (tmp_path / "runs/digits/dense").unlink()
    code, output = finish(recipe_file(), tmp_path / "runs")
    assert code in (0, 3, 6), output


def test_a_fault_in_the_users_own_code_is_theirs_and_is_placed(tmp_path: Path, recipe_file: Write) -> None:
    (tmp_path / "fragile.py").write_text(
        "import torch\n\n\nclass Net(torch.nn.Module):\n"
        "    def __init__(self, classes: int) -> None:\n"
        "        super().__init__()\n"
        "        self.output = torch.nn.Linear(64, classes)\n"
        "        self.calls = 0\n\n"
        "    def forward(self, x):\n"
        "        self.calls += 1\n"
        "        if self.calls > 20:\n"
        "            raise KeyError('worn out')\n"
        "        return self.output(x.flatten(1))\n"
    )
    recipe = recipe_file(("model: {name: mlp, widths: [32, 16]}", "model: 'fragile:Net'"))
    code, output = finish(recipe, tmp_path / "runs", "--workers", "1")
    assert code == 2, output
    assert "KeyError: 'worn out' (in forward," in output
    assert "fragile.py:13)" in output
    assert "Traceback" not in output
