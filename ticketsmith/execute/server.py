"""The process that workers are forked from: it loads torch and the task once, and trains nothing itself."""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import traceback
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import reduction
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from ticketsmith.execute.worker import WorkerSettings, settle, work
from ticketsmith.training.job import Job

if TYPE_CHECKING:
    from ticketsmith.tasks.task import Task

_PROBE = 30  # seconds that a forked process may take for a step of arithmetic


@dataclass(frozen=True)
class Loaded:
    """A task as this process has built it, and its forward FLOPs."""

    task: Task
    flops: int


def serve(
    control: Connection,
    settings: WorkerSettings,
    job: Job,
    loaded: Loaded | None = None,
    theirs: Connection | None = None,
) -> None:
    """Answers ``None`` and a pipe's end with the number of a new worker, and a worker's number with its exit status.

    It says once whether it can be forked, and ends when it cannot. It ends with its parent. A copy of that is given the task
    that is ``loaded``, and ``theirs``, the parent's end of the pipe, to close.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a copy has the parent's
    if theirs is not None:
        theirs.close()
    try:
        settle(settings)
        _load(job, loaded)
        gc.collect()
        gc.freeze()  # so that looking for garbage does not touch, and so copy, what is shared
        forkable = _can_be_forked()
        control.send(forkable)
        while forkable:
            request: int | None = control.recv()
            control.send(_fork(control, settings) if request is None else _exitcode(request))
    except (EOFError, OSError):  # the parent has gone, or has ended the execution
        pass
    finally:
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def threads() -> int:
    """Of this process. (Linux alone tells.)"""
    return len(list(Path("/proc/self/task").iterdir()))


def _load(job: Job, loaded: Loaded | None) -> None:
    from ticketsmith.training.device import prepare
    from ticketsmith.training.environment import git_commit
    from ticketsmith.training.produce import at_hand, prepared

    prepare("cpu")
    git_commit()
    what = json.dumps(job.task, sort_keys=True), job.base, json.dumps(job.spec.task, sort_keys=True)
    if loaded is not None:
        at_hand[what] = loaded.task, loaded.flops
    with suppress(Exception):  # a worker meets the same, and tells it of its run
        prepared(*what)


def _can_be_forked() -> bool:
    """Not with other threads (of a user's module, say), whose locks would stay locked; and only if a child can train."""
    if threads() > 1:
        return False
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.alarm(_PROBE)
            import torch

            torch.ones(2, requires_grad=True).sum().backward()  # type: ignore[no-untyped-call]
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1] == 0


def _fork(control: Connection, settings: WorkerSettings) -> int:
    handle = reduction.recv_handle(control)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        os.close(handle)
        return pid
    code = 1
    try:
        control.close()
        work(Connection(handle), settings)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _exitcode(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
