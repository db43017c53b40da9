"""Processes that run tests, one of which may die: then the run ends soon, says which test it was, and leaves nothing behind.

Kept by ``--max-worker-restart=0`` in pyproject.toml, without which xdist gives the same test to one new process after
another, and by what is here: what a test started may outlive its process and hold the pipe by which xdist would hear of its
death, and the pipe of whoever waits for the output of the run. Both then wait for ever.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from ticketsmith.memory import available

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_LEAST = 8 * 2**30
"""Bytes that any test may have: stacks of threads and arenas that are hardly written to count too."""
_nodes: dict[int, Any] = {}
"""Of the process that hands tests out: its workers by process id."""
_before: set[str] = set()
"""What the kernel had to say before the first test."""


def pytest_configure(config: pytest.Config) -> None:
    _bound_memory()
    if hasattr(config, "workerinput") and os.name == "posix":
        os.setpgid(0, 0)  # what it starts can be ended with it


def _bound_memory() -> None:
    """No test takes the machine down: what a process may write to is bounded, so that asking for more is an error.

    ``RLIMIT_DATA`` counts private writable memory. ``RLIMIT_AS`` would count what browsers and torch only reserve.
    """
    free = available()
    if resource is None or free is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    bound = max(free * 9 // 10, _LEAST)
    most = min((limit for limit in (soft, hard, bound) if limit != resource.RLIM_INFINITY), default=soft)
    with contextlib.suppress(OSError, ValueError):  # a system that knows no such limit
        resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodeready(node: Any) -> None:
    first = not _nodes
    if first:
        _before.update(_faults())
    _nodes[node.gateway._rinfo().pid] = node
    if first and hasattr(os, "waitid"):
        threading.Thread(target=_watch, daemon=True).start()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    if error:
        pid = node.gateway._rinfo().pid
        print(f"\n{node.gateway.id}: its process {_end_of(pid)}; free memory: {available()} bytes", flush=True)
        print(*(_faults() - _before), sep="\n", flush=True)
        for other in _nodes.values():
            other.shutdown()  # after the tests that it has: the one that killed this process goes to no other


def _watch() -> None:
    """Ends what a worker started, once the worker itself has ended."""
    while _nodes:
        time.sleep(0.5)
        for pid, node in list(_nodes.items()):
            if _has_ended(pid):
                _end_what_is_left_of(pid, node.workerinput)
                del _nodes[pid]


def _end_of(pid: int) -> str:
    """How a process ended, in words."""
    for _ in range(20):
        with contextlib.suppress(ChildProcessError, AttributeError):  # reaped by another; no waitid on this system
            if end := os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                exited = end.si_code == os.CLD_EXITED
                return (
                    f"exited with {end.si_status}" if exited else f"was ended by {signal.Signals(end.si_status).name}"
                )
        time.sleep(0.1)
    return "ended; nobody knows how"


def _faults() -> set[str]:
    """What the kernel's log says of processes that crashed: address, library and place in it.

    Python's own words fail where a thread has no stack left to say them on.
    """
    try:
        log = subprocess.run(["dmesg"], capture_output=True, text=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError):
        return set()
    return {line for line in log.splitlines() if re.search(r"segfault|general protection|trap ", line)}


def _has_ended(pid: int) -> bool:
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _end_what_is_left_of(pid: int, worker: dict[str, Any]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    names = {"PYTEST_XDIST_WORKER": "workerid", "PYTEST_XDIST_TESTRUNUID": "testrunuid"}
    marks = {f"{name}={worker[key]}".encode() for name, key in names.items()}
    for process in Path("/proc").glob("[0-9]*"):  # servers in sessions of their own
        with contextlib.suppress(OSError):
            if marks <= set((process / "environ").read_bytes().split(b"\0")):
                os.kill(int(process.name), signal.SIGKILL)
