"""A command forked from a server does what the same command does in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import warm
from tests.cluster.container import MARK
from tests.cluster.kubelet import processes_of
from tests.conftest import DIGITS, ROOT

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
PRUNE = ("-m", "tests.plain", "prune", "--config", "recipe.yaml", "--no-benchmark")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    few = DIGITS.replace("levels: 2", "levels: 1").replace("0.4", "0.3").replace("replicates: 2", "replicates: 1")
    (tmp_path / "recipe.yaml").write_text(few)
    return tmp_path


def sealed(store: Path) -> dict[str, bytes]:
    runs = store.glob("*/*/seed-*/level-*/*")
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in runs if path.parts[-5] != "ledger"}


def test_its_workers_seal_the_same_bytes_and_it_says_the_same(folder: Path) -> None:
    forked = warm.run([*PRUNE, "--store", "forked"], cwd=folder, env=ENVIRONMENT, timeout=300)
    fresh = subprocess.run(
        [sys.executable, *PRUNE, "--store", "fresh"], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert forked.returncode == fresh.returncode, forked.stderr
    assert forked.stdout.replace("forked/", "fresh/") == fresh.stdout
    assert forked.stderr.splitlines()[-2:] == fresh.stderr.splitlines()[-2:]
    assert len(sealed(folder / "fresh")) == 5 * 7 + 4, "files of five runs, and outcomes of all but the rewind point"
    assert sealed(folder / "forked") == sealed(folder / "fresh")


def test_its_mistakes_signals_and_variables_are_its_own(folder: Path) -> None:
    wrong = warm.run(["-m", "ticketsmith", "status", "--runs-prefix", "absent"], cwd=folder, env=ENVIRONMENT)
    assert (wrong.returncode, wrong.stdout, wrong.stderr.splitlines()) == (2, "", [wrong.stderr.strip()])
    assert "no runs here" in wrong.stderr
    endless = [*PRUNE, "--set", "replicates=1000"]  # whatever a run takes, the signal comes before the last
    for number, status in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 130)):
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        process = warm.start(endless, cwd=folder, env=ENVIRONMENT, start_new_session=True, **pipes)
        assert process.stderr is not None
        assert any("trained in" in line for line in process.stderr), "it never came so far"
        assert os.getpgid(process.pid) == process.pid != os.getpgid(0)
        process.send_signal(number)
        process.communicate(timeout=60)
        assert process.returncode == status
    with pytest.raises(subprocess.TimeoutExpired):
        warm.run([*PRUNE, "--store", "never"], cwd=folder, env=ENVIRONMENT, timeout=0.01)
    table = {**ENVIRONMENT, "TICKETSMITH_PRICES": str(folder / "absent.yaml")}
    told = warm.run(["-m", "ticketsmith", "prices", "list"], cwd=folder, env=table)
    assert "absent.yaml: no such file" in told.stderr, told


def test_its_server_does_not_end_with_a_pod_that_asked_first() -> None:
    asked = {**ENVIRONMENT, "NOBODY_ELSE_HAS": "this", MARK: "a-pod"}  # of a server of its own
    assert warm.run(["-m", "ticketsmith", "--version"], env=asked).returncode == 0
    assert list(processes_of("a-pod")) == []


def test_variables_that_are_read_at_imports_get_a_server_of_their_own() -> None:
    for name, same in (("HOME", True), ("TICKETSMITH_CACHE", True), ("TICKETSMITH_ISA", False), ("LC_ALL", False)):
        changed = warm._read_at_import({**ENVIRONMENT, name: "another"})
        assert (changed == warm._read_at_import(ENVIRONMENT)) == same, name
