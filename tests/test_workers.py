"""A run of tests whose process dies, by the project's own options."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

KILLS = """
import os, signal, subprocess, sys, time

def test_before(): pass

def test_that_kills():
    # What it started outlives it: a copy of the process, which holds its pipe, and a server in a session of its own.
    if os.fork() == 0:
        time.sleep(600)
        os._exit(0)
    server = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    open("server.pid", "w").write(str(server.pid))
    os.kill(os.getpid(), signal.SIGKILL)

def test_after(): pass
"""
FILLS = """
import numpy

def test_that_fills():
    numpy.zeros(2**42, numpy.uint8)
"""


def options(file: str) -> str:
    """The options of pytest in ``.ci/run`` and the Makefile."""
    found = re.search(r'PYTEST_ADDOPTS *\??="? ?(--.*?)"?$', (ROOT / file).read_text(), re.MULTILINE)
    assert found is not None
    return found[1].strip()


def run(folder: Path, addopts: str) -> tuple[int, str]:
    """Status and output of a small run in ``folder``; ended within two minutes, or the test fails."""
    (folder / "conftest.py").write_text('pytest_plugins = ["tests.workers"]\n')
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-c",
            str(ROOT / "pyproject.toml"),
            "--rootdir",
            ".",
            "-p",
            "no:cacheprovider",
            ".",
        ],
        cwd=folder,
        env=environment | {"PYTEST_ADDOPTS": addopts, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout


def test_make_and_ci_share_the_tests_among_processes() -> None:
    """Only then is there one left to tell which test ended the other."""
    for file in (".ci/run", "Makefile"):
        assert re.match(r"--numprocesses [2-9] --dist loadfile", options(file))


@pytest.mark.skipif(sys.platform != "linux", reason="processes are found by /proc, and other systems bound no memory")
def test_a_process_that_dies_ends_the_run_and_names_its_test(tmp_path: Path) -> None:
    (tmp_path / "test_kills.py").write_text(KILLS)
    (tmp_path / "test_fills.py").write_text(FILLS)
    status, output = run(tmp_path, options(".ci/run").removesuffix("--quiet"))
    assert status == 1
    assert "crashed while running 'test_kills.py::test_that_kills'" in output
    assert "its process was ended by SIGKILL" in output
    assert output.count("FAILED test_kills.py") == 1, "it is given to no second process"
    assert "Unable to allocate 4.00 TiB" in output, "what asks for more than there is fails alone"
    server = Path("/proc", (tmp_path / "server.pid").read_text())
    for _ in range(50):
        if not server.exists() or (server / "stat").read_text().rpartition(") ")[2].startswith("Z"):
            return
        time.sleep(0.1)
    pytest.fail("what the test had started is still there")
