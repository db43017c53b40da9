"""The process that workers are forked from: it loads torch and the task once, and trains nothing itself."""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import traceback
from contextlib import suppress
from multiprocessing import reduction
from multiprocessing.connection import Connection
from pathlib import Path

from ticketsmith.execute.worker import WorkerSettings, settle, work
from ticketsmith.training.job import Job

_PROBE = 30  # seconds that a forked process may take for a step of arithmetic


def serve(control: Connection, settings: WorkerSettings, job: Job) -> None:
    """Answers ``None`` and a pipe's end with the number of a new worker, and a worker's number with its exit status.

    It says once whether it can be forked, and ends when it cannot. It ends with its parent.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        settle(settings)
        _load(job)
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


def _load(job: Job) -> None:
    from ticketsmith.training.device import prepare
    from ticketsmith.training.environment import git_commit
    from ticketsmith.training.produce import prepared

    prepare("cpu")
    git_commit()
    with suppress(Exception):  # a worker meets the same, and tells it of its run
        prepared(json.dumps(job.task, sort_keys=True), job.base, json.dumps(job.spec.task, sort_keys=True))


def _can_be_forked() -> bool:
    """Not with other threads (of a user's module, say), whose locks would stay locked; and only if a child can train."""
    if len(list(Path("/proc/self/task").iterdir())) > 1:
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
