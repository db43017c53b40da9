"""The local executor: runs that are ready are made side by side, one single-threaded process each. Stateless."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait

from ticketsmith.errors import Exit
from ticketsmith.execute.executor import Event
from ticketsmith.execute.processes import Process, Starter
from ticketsmith.execute.schedule import BUSY_WAIT, Scheduled
from ticketsmith.execute.worker import Ended, WorkerSettings
from ticketsmith.machine import usable_cores
from ticketsmith.plan import PlannedRun
from ticketsmith.store.contract import Store
from ticketsmith.store.index import Index
from ticketsmith.training.job import Job

_MAX_CRASHES = 2  # of one run, before it is given up


@dataclass
class _Worker:
    process: Process
    pipe: Connection
    run: PlannedRun | None = None


def default_workers(device: str) -> int:
    """One process a core; one in all on a GPU."""
    return 1 if device.startswith("cuda") else usable_cores()


class LocalExecutor(Scheduled):
    """Processes of this machine, ``workers`` at most.

    On Ctrl-C or SIGTERM every worker saves a checkpoint and ends; the same call goes on from there.
    """

    def __init__(
        self,
        store: Store,
        job_of: Callable[[PlannedRun], Job],
        settings: WorkerSettings,
        workers: int,
        on_event: Callable[[Event], None],
        index: Index | None = None,
    ) -> None:
        super().__init__(store, job_of, settings, on_event, index)
        self.count, self.workers, self.crashes = workers, list[_Worker](), dict[str, int]()

    def wait(self) -> Exit:
        """Trains until nothing more can be made."""
        todo = self.schedule.todo
        if not todo:
            return self.outcome.exit_status
        count = min(self.count, len(todo))
        settings = replace(self.settings, side_by_side=count)
        self.starter = Starter(settings, self.job_of(next(iter(todo.values()))))
        with _SigtermInterrupts():
            try:
                for _ in range(count):
                    self.workers.append(_Worker(*self.starter.start()))
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
        ready = self.schedule.ready({worker.run.key for worker in self.workers if worker.run})
        for worker, run in zip([w for w in self.workers if w.run is None], ready, strict=False):
            job = self.job_of(run).located(self.index)
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
        code, run = worker.process.exitcode, worker.run
        self.workers[self.workers.index(worker)] = _Worker(*self.starter.start())
        if run is None:
            return
        self.crashes[run.key] = self.crashes.get(run.key, 0) + 1
        if self.crashes[run.key] > _MAX_CRASHES:
            killed = os.name == "posix" and code == -signal.SIGKILL  # what the system does when memory runs out
            why = "was killed (out of memory?)" if killed else "ended" if code is None else f"ended with status {code}"
            status = Exit.OUT_OF_MEMORY if killed else Exit.INCOMPLETE
            event = Ended(run.key, "failed", 0.0, f"its process {why} {self.crashes[run.key]} times", status)
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
        self.starter.close()


class _SigtermInterrupts:
    """SIGTERM does what Ctrl-C does, while inside. (Only the main thread can ask for that.)"""

    def __enter__(self) -> None:
        try:
            self._before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        except ValueError:
            self._before = None

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
