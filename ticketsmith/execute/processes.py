"""Processes for workers: forked from one that has torch and the data loaded, where that is safe; else spawned.

A spawned worker loads torch and the data by itself: seconds, and hundreds of MiB. A forked one has them at once, and shares
their memory with the others until it writes there. Forking is safe on Linux, without CUDA, and from a process of one thread.
What they are forked from is itself a copy of this process, if that has loaded the task and is of one thread; else it is
spawned.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing import reduction, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Protocol

from ticketsmith.execute.gang import Gang
from ticketsmith.execute.server import Loaded, serve, threads
from ticketsmith.execute.worker import WorkerSettings, work
from ticketsmith.training.job import Job

_SPAWN = multiprocessing.get_context("spawn")
_FORK = multiprocessing.get_context("fork") if hasattr(os, "fork") else None


class Process(Protocol):
    """What is asked of a worker's process, as of ``multiprocessing.Process``."""

    @property
    def exitcode(self) -> int | None:
        """Negative: the signal that ended it. None while it lives, and when nobody knows."""
        ...

    def is_alive(self) -> bool:
        """Whether it has not ended yet."""
        ...

    def join(self, timeout: float | None = None) -> None:
        """Waits until it has ended."""
        ...

    def terminate(self) -> None:
        """Sends SIGTERM."""
        ...


class Starter:
    """Starts the workers of one execution, which train on the task of ``job``. ``close`` it when they have ended.

    ``loaded``: that task, where what they are forked from may be a copy of this process.
    """

    def __init__(self, settings: WorkerSettings, job: Job, loaded: Loaded | None = None) -> None:
        self.settings, self._job, self._loaded = settings, job, loaded
        self._server: _Server | None = None
        self._tries = 2 if sys.platform == "linux" and settings.device == "cpu" and hasattr(os, "pidfd_open") else 0

    def start(self, slot: int = 0) -> tuple[Process, Connection]:
        """A new worker, number ``slot``, and our end of the pipe to it. Raises GangError where ranks cannot be started."""
        settings = replace(self.settings, slot=slot)
        if settings.ranks > 1:
            gang = Gang(settings)
            return gang, gang.pipe
        while self._server is not None or self._tries:
            if self._server is None:
                self._tries -= 1
                loaded, self._loaded = self._loaded, None  # once: a later copy would hold the pipes to workers open
                self._server = _Server(self.settings, self._job, loaded)
            try:
                return self._server.fork()
            except _CannotBeForkedError:  # another one could not be either
                self._tries = 0
                self.close()
            except (EOFError, OSError):  # it was killed
                self.close()
        ours, theirs = _SPAWN.Pipe()
        process = _SPAWN.Process(target=work, args=(theirs, settings), daemon=True)
        _begin(process)
        theirs.close()
        return process, ours

    def close(self) -> None:
        """Ends what workers are forked from."""
        server, self._server = self._server, None
        if server is not None:
            server.close()


class _CannotBeForkedError(Exception):
    """A process has threads of its own, or its children cannot train."""


class _Server:
    """Our side of ``server.serve``."""

    def __init__(self, settings: WorkerSettings, job: Job, loaded: Loaded | None) -> None:
        self._control, theirs = _SPAWN.Pipe()
        self._process: BaseProcess
        if _FORK is not None and loaded is not None and threads() == 1:
            ours = self._control
            self._process = _FORK.Process(target=serve, args=(theirs, settings, job, loaded, ours), daemon=True)
        else:
            self._process = _SPAWN.Process(target=serve, args=(theirs, settings, job), daemon=True)
        _begin(self._process)
        theirs.close()
        self._ready = False

    def fork(self) -> tuple[Process, Connection]:
        """Raises _CannotBeForkedError, and EOFError or OSError when it has ended for another reason."""
        if not self._ready:
            self._ready = bool(self._control.recv())  # it has loaded everything
            if not self._ready:
                raise _CannotBeForkedError
        ours, theirs = _SPAWN.Pipe()
        with theirs:
            self._control.send(None)
            assert self._process.pid is not None
            reduction.send_handle(self._control, theirs.fileno(), self._process.pid)
            pid: int = self._control.recv()
        return _Forked(pid, self), ours

    def exitcode(self, pid: int) -> int | None:
        """Of a worker that has ended, once; None when the server has ended before it.

        A server that was killed: then its worker was too, as far as anybody knows. Memory that runs out ends both.
        """
        try:
            self._control.send(pid)
            return int(self._control.recv())
        except (EOFError, OSError):
            self._process.join(5)
            return -signal.SIGKILL if self._process.exitcode == -signal.SIGKILL else None

    def close(self) -> None:
        self._control.close()
        if not self._ready:  # it is loading, or has threads, and would not end for a while
            self._process.kill()
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


class _Forked:
    """A worker that is not our own child: its pidfd is ours all the same, whatever becomes of the number."""

    def __init__(self, pid: int, server: _Server) -> None:
        self._pid, self._server = pid, server
        self._fd = os.pidfd_open(pid)
        self._exitcode: int | None = None

    def __del__(self) -> None:
        with suppress(OSError, AttributeError):
            os.close(self._fd)

    @property
    def exitcode(self) -> int | None:
        if self._exitcode is None and not self.is_alive():
            self._exitcode = self._server.exitcode(self._pid)
        return self._exitcode

    def is_alive(self) -> bool:
        return not wait([self._fd], timeout=0)

    def join(self, timeout: float | None = None) -> None:
        wait([self._fd], timeout)

    def terminate(self) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._fd, signal.SIGTERM)


def _begin(process: BaseProcess) -> None:
    if os.name == "posix":  # elsewhere there is none
        # Started now, since it lets Ctrl-C through again: the process below must not see one before it can ignore it.
        resource_tracker.ensure_running()
    with _without_main(), _without_interrupts():
        process.start()


@contextmanager
def _without_main() -> Iterator[None]:
    """Keeps a spawned process from running the user's script again: a worker needs nothing of it."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """An interruption waits until what is inside is done: half begun, a process would complain of its end.

    What is started inside never sees Ctrl-C, not even before it can say that it ignores it.
    """
    came: list[int] = []
    # Blocking is not enough for ourselves: another thread (of a library) may be given the signal, and we are told of it.
    handlers = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if callable(signal.getsignal(number)):
                handlers[number] = signal.signal(number, lambda number, _: came.append(number))
    blocked = {signal.SIGINT} if hasattr(signal, "pthread_sigmask") else set()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked) if blocked else set()
    try:
        yield
    finally:
        if blocked:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for arrived in came:
            signal.raise_signal(arrived)
