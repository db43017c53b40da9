"""The executors of this machine: runs side by side, one single-threaded process each; or one after another, right here."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from typing import Any, Self

from ticketsmith.errors import Exit
from ticketsmith.execute.executor import BUSY_WAIT, Event, Scheduled
from ticketsmith.execute.gang import Gang
from ticketsmith.execute.processes import Process, Starter
from ticketsmith.execute.server import Loaded
from ticketsmith.execute.worker import Ended, Maker
from ticketsmith.machine import usable_cores
from ticketsmith.plan import PlannedRun

_MAX_CRASHES = 2  # of one run, before it is given up


@dataclass
class _Worker:
    process: Process
    pipe: Connection
    slot: int
    run: PlannedRun | None = None


def default_workers(device: str) -> int:
    """One process a core; one in all on a GPU."""
    return 1 if device.startswith("cuda") else usable_cores()


@dataclass
class LocalExecutor(Scheduled):
    """Processes of this machine, ``count`` at most. ``loaded``: the task, where they may begin as copies of this process.

    On Ctrl-C or SIGTERM every worker saves a checkpoint and ends; the same call goes on from there. Within ``with``, what
    workers are forked from stays for the next plan.
    """

    count: int
    loaded: Loaded | None = None
    workers: list[_Worker] = field(default_factory=list, init=False)
    crashes: dict[str, int] = field(default_factory=dict, init=False)
    starter: Starter | None = field(default=None, init=False)
    lasting: bool = field(default=False, init=False)

    def __enter__(self) -> Self:
        self.lasting = True
        return self

    def __exit__(self, *_: object) -> None:
        self.lasting = False
        self._close()

    def wait(self) -> Exit:
        """Trains until nothing more can be made."""
        todo = self.schedule.todo
        if not todo:
            return self.outcome.exit_status
        ranks = max(run.spec.training.ranks for run in todo.values())
        count = min(max(1, self.count // ranks), len(todo))  # a rank takes the place of a worker
        settings = replace(self.settings, side_by_side=count, ranks=ranks)
        if self.starter is None or settings != self.starter.settings:
            self._close()
            self.starter = Starter(settings, self.job_of(next(iter(todo.values()))), self.loaded)
        with _signals([signal.SIGTERM], signal.default_int_handler):
            try:
                for slot in range(count):
                    self.workers.append(_Worker(*self.starter.start(slot), slot))
                while todo and not self.outcome.fatal:
                    self._assign()
                    if not any(worker.run for worker in self.workers) and not self.schedule.is_waiting:
                        break
                    self._listen()
            except KeyboardInterrupt:
                self.outcome.interrupted = True
            finally:
                self._end()
        return self.outcome.exit_status

    def _assign(self) -> None:
        idle = [worker for worker in self.workers if worker.run is None]
        if not idle:
            return
        ready = self.schedule.ready({worker.run.key for worker in self.workers if worker.run}, len(idle))
        under_way = [worker.run for worker in self.workers if worker.run] + ready
        busy = max(1, sum(run.spec.stop_after != run.spec.begin for run in under_way))  # the others only copy weights
        for worker, run in zip(idle, ready, strict=False):
            job = replace(self.job_of(run).located(self.index), threads=max(1, self.count // busy))
            self.schedule.begin(run)
            worker.run = run
            try:
                worker.pipe.send(job)
            except OSError:
                self._replace(worker)

    def _listen(self) -> None:
        pipes = {worker.pipe: worker for worker in self.workers}
        for pipe in wait(list(pipes), timeout=BUSY_WAIT):
            worker = pipes[pipe]  # type: ignore[index]
            try:
                event: Event = worker.pipe.recv()
            except (EOFError, ConnectionResetError):
                self._replace(worker)
                continue
            if isinstance(event, Ended):
                worker.run = None
                self.schedule.settle(event)
            self.on_event(event)

    def _replace(self, worker: _Worker) -> None:
        """A worker died: killed by hand, or by the system when memory ran out. Its run is tried again, twice at most."""
        worker.process.join()
        process, run = worker.process, worker.run
        code = process.exitcode
        if isinstance(process, Gang) and run is not None:
            why = f"{process.fault}, so all ranks have ended. The same command goes on from the last checkpoint"
            self._give_up(run, why, Exit.INCOMPLETE)
            if not self.schedule.todo:
                self.workers.remove(worker)
                return
            run = None
        assert self.starter is not None
        self.workers[self.workers.index(worker)] = _Worker(*self.starter.start(worker.slot), worker.slot)
        if run is None:
            return
        self.crashes[run.key] = self.crashes.get(run.key, 0) + 1
        if self.crashes[run.key] > _MAX_CRASHES:
            killed = os.name == "posix" and code == -signal.SIGKILL  # what the system does when memory runs out
            why = "was killed (out of memory?)" if killed else "ended" if code is None else f"ended with status {code}"
            status = Exit.OUT_OF_MEMORY if killed else Exit.INCOMPLETE
            self._give_up(run, f"its process {why} {self.crashes[run.key]} times", status)

    def _give_up(self, run: PlannedRun, why: str, status: Exit) -> None:
        event = Ended(run.key, "failed", 0.0, why, status)
        self.schedule.settle(event)
        self.on_event(event)

    def _end(self) -> None:
        """Idle workers end; working ones are asked to save a checkpoint, and waited for."""
        for worker in self.workers:
            if worker.run is not None:
                worker.process.terminate()
            with suppress(OSError):
                worker.pipe.send(None)  # to busy ones too: they may just have become idle
        for worker in self.workers:
            while worker.process.is_alive():
                try:
                    if worker.pipe.poll(0.1):
                        worker.pipe.recv()
                except (EOFError, OSError):
                    worker.process.join(5)
        self.workers.clear()
        if not self.lasting:
            self._close()

    def _close(self) -> None:
        if self.starter is not None:
            self.starter.close()
            self.starter = None


class DebugExecutor(Scheduled):
    """One run after another in this very process, so that breakpoints and prints in your own code work: the same bytes.

    What your own code raises is raised here, with its traceback, and ends everything. On Ctrl-C or SIGTERM the run saves a
    checkpoint after its step, and all ends; a second one does not wait for that.
    """

    def wait(self) -> Exit:
        """Trains until nothing more can be made."""
        from ticketsmith.training.device import prepared  # torch, which takes seconds

        outcome = self.outcome

        def stop(number: int, frame: Any) -> None:
            if outcome.interrupted:
                signal.default_int_handler(number, frame)
            outcome.interrupted = True

        numbers = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) is not signal.SIG_IGN]
        with _signals(numbers, stop), suppress(KeyboardInterrupt), prepared(self.settings.device) as device:
            maker = Maker(self.settings, self.store, device, self.on_event, lambda: outcome.interrupted)
            while self.schedule.todo and not (outcome.fatal or outcome.interrupted):
                if ready := self.schedule.ready(most=1):
                    self.schedule.begin(ready[0])
                    event = maker.make(self.job_of(ready[0]).located(self.index))
                    self.schedule.settle(event)
                    self.on_event(event)
                elif self.schedule.is_waiting:
                    time.sleep(BUSY_WAIT)
                else:
                    break
        return outcome.exit_status


@contextmanager
def _signals(numbers: Iterable[int], handler: Callable[[int, Any], Any]) -> Iterator[None]:
    """Gives these signals to ``handler`` while inside. (Only the main thread can ask for that.)"""
    before: dict[int, Any] = {}
    with suppress(ValueError):
        before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, former in before.items():
            if former is not None:  # it was not Python's
                signal.signal(number, former)
