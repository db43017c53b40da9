"""The local executor: runs that are ready are made side by side, one single-threaded process each. Stateless."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait

from ticketsmith.errors import Exit, TicketSmithError, gravest
from ticketsmith.execute.processes import Process, Starter
from ticketsmith.execute.worker import Ended, Noted, Settings, Stepped
from ticketsmith.machine import usable_cores
from ticketsmith.plan import Node, Plan
from ticketsmith.store.contract import SCRATCH, Store, checkpoint_path
from ticketsmith.store.index import Index
from ticketsmith.training.job import Job

Event = Stepped | Noted | Ended
_BUSY_WAIT = 1.0  # seconds before asking again for a run that another process is making
_MAX_CRASHES = 2  # of one run, before it is given up


@dataclass
class Outcome:
    """What came of an execution. ``failed``: message by key; ``worst``: the gravest status among them."""

    trained: int = 0
    cached: int = 0
    diverged: list[str] = field(default_factory=list)
    blocked: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    worst: Exit = Exit.OK
    interrupted: bool = False
    fatal: bool = False

    def fail(self, key: str, message: str, status: int) -> None:
        """Notes a run that could not be made."""
        self.failed[key] = message
        self.worst = gravest((self.worst, status or Exit.INCOMPLETE))

    @property
    def exit_status(self) -> Exit:
        """OK, or the gravest of what happened."""
        happened = [self.worst]
        if self.interrupted:
            happened.append(Exit.INTERRUPTED)
        if self.diverged:
            happened.append(Exit.DIVERGED)
        return gravest(happened)


@dataclass
class _Worker:
    process: Process
    pipe: Connection
    node: Node | None = None


def default_workers(device: str) -> int:
    """One process a core; one in all on a GPU."""
    if device.startswith("cuda"):
        return 1
    return usable_cores()


def execute(
    plan: Plan,
    store: Store,
    job_of: Callable[[Node], Job],
    settings: Settings,
    workers: int,
    on_event: Callable[[Event], None],
    index: Index | None = None,
) -> Outcome:
    """Makes what is missing of a plan, in dependency order; returns when nothing more can be made.

    Runs that most others wait for (the winning tickets) go first. On Ctrl-C or SIGTERM every worker saves a
    checkpoint and ends; the same call goes on from there. ``index``: one of the whole store, if there is one already. Raises
    TicketSmithError when a run of the plan that is missing cannot be made under this version of the science.
    """
    outcome = Outcome()
    index = index or Index(store)
    sealed = index.statuses(plan.by_key, plan.experiment)
    outcome.cached = len(sealed)
    outcome.diverged = [key for key, status in sealed.items() if status == "diverged"]
    for key in _with_checkpoint(store, sealed):
        store.delete(checkpoint_path(key))  # of a process that was killed between sealing and clearing up
    todo = {key: node for key, node in plan.by_key.items() if key not in sealed}
    if not todo:
        return outcome
    if any(node.outdated for node in todo.values()):
        raise TicketSmithError(
            f"{plan.experiment}: its plan was made under another version of the science, which this version of TicketSmith "
            "cannot train. What is sealed stays. Give the recipe again (`prune` or `submit`): all runs are planned anew."
        )
    count = min(workers, len(todo))
    settings = replace(settings, side_by_side=count)
    run = _Execution(plan, job_of, settings, on_event, outcome, todo, set(sealed), index)
    with _SigtermInterrupts():
        run.run(count)
    return outcome


class _Execution:
    def __init__(
        self,
        plan: Plan,
        job_of: Callable[[Node], Job],
        settings: Settings,
        on_event: Callable[[Event], None],
        outcome: Outcome,
        todo: dict[str, Node],
        done: set[str],
        index: Index,
    ) -> None:
        self.plan, self.job_of, self.on_event = plan, job_of, on_event
        self.outcome, self.todo, self.done, self.index = outcome, todo, done, index
        self.workers: list[_Worker] = []
        self.starter = Starter(settings, job_of(next(iter(todo.values()))))
        self.not_before: dict[str, float] = {}
        self.crashes: dict[str, int] = {}
        self.followers = _followers(plan)

    def run(self, count: int) -> None:
        try:
            for _ in range(count):
                self.workers.append(_Worker(*self.starter.start()))
            while self.todo and not self.outcome.fatal:
                self._block_children()
                self._assign()
                if not any(worker.node for worker in self.workers) and not self.not_before:
                    break
                self._listen()
        except KeyboardInterrupt:
            self.outcome.interrupted = True
        finally:
            self._end()

    def _assign(self) -> None:
        running = {worker.node.key for worker in self.workers if worker.node}
        now = time.monotonic()
        ready = [
            node
            for key, node in self.todo.items()
            if key not in running
            and self.not_before.get(key, 0.0) <= now
            and all(parent in self.done for parent in node.spec.parents)
        ]
        ready.sort(key=lambda node: self.followers[node.key], reverse=True)
        for worker, node in zip([w for w in self.workers if w.node is None], ready, strict=False):
            job = self.job_of(node).located(self.index)
            self.not_before.pop(node.key, None)
            worker.node = node
            try:
                worker.pipe.send(job)
            except OSError:
                self._replace(worker)

    def _block_children(self) -> None:
        lost = {*self.outcome.failed, *self.outcome.blocked}
        for key, node in list(self.todo.items()):
            if any(parent in lost for parent in node.spec.parents):
                del self.todo[key]
                lost.add(key)
                self.outcome.blocked.append(key)

    def _listen(self) -> None:
        pipes = {worker.pipe: worker for worker in self.workers}
        for pipe in wait(list(pipes), timeout=_BUSY_WAIT):
            worker = pipes[pipe]  # type: ignore[index]
            try:
                event: Event = worker.pipe.recv()
            except (EOFError, ConnectionResetError):
                self._replace(worker)
                continue
            if isinstance(event, Ended):
                worker.node = None
                self._settle(event)
            self.on_event(event)

    def _settle(self, event: Ended) -> None:
        key, outcome = event.key, self.outcome
        if event.outcome == "busy":
            self.not_before[key] = time.monotonic() + _BUSY_WAIT
            self.index.expect_elsewhere(key)
            return
        if event.outcome == "interrupted":
            return
        self.todo.pop(key, None)
        if event.outcome == "failed":
            outcome.fail(key, event.message, event.exit_status)
            outcome.fatal |= event.fatal
        elif event.outcome == "blocked":
            outcome.blocked.append(key)
        else:
            self.done.add(key)
            self.index.add(key, self.plan.by_key[key].folder(self.plan.experiment))
            outcome.trained += event.outcome in ("trained", "diverged")
            outcome.cached += event.outcome == "reused"
            if event.outcome == "diverged":
                outcome.diverged.append(key)

    def _replace(self, worker: _Worker) -> None:
        """A worker died: killed by hand, or by the system when memory ran out. Its run is tried again, twice at most."""
        worker.process.join()
        code, node = worker.process.exitcode, worker.node
        self.workers[self.workers.index(worker)] = _Worker(*self.starter.start())
        if node is None:
            return
        self.crashes[node.key] = self.crashes.get(node.key, 0) + 1
        if self.crashes[node.key] > _MAX_CRASHES:
            killed = os.name == "posix" and code == -signal.SIGKILL  # what the system does when memory runs out
            why = "was killed (out of memory?)" if killed else "ended" if code is None else f"ended with status {code}"
            status = Exit.OUT_OF_MEMORY if killed else Exit.INCOMPLETE
            event = Ended(node.key, "failed", 0.0, f"its process {why} {self.crashes[node.key]} times", status)
            self._settle(event)
            self.on_event(event)

    def _end(self) -> None:
        """Idle workers end; working ones are asked to save a checkpoint, and waited for."""
        for worker in self.workers:
            if worker.node is not None:
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
        self.starter.close()


def _followers(plan: Plan) -> dict[str, int]:
    """How many runs wait for each, directly or not: those with the most go first."""
    waiting: dict[str, set[str]] = {key: set() for key in plan.by_key}
    for key, node in reversed(plan.by_key.items()):
        for parent in node.spec.parents:
            if parent in waiting:
                waiting[parent] |= {key, *waiting[key]}
    return {key: len(found) for key, found in waiting.items()}


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


def statuses(plan: Plan, store: Store, index: Index) -> Mapping[str, str]:
    """Status by key: ``trained``, ``diverged``, ``in part`` (a checkpoint is there) or ``missing``."""
    sealed = index.statuses(plan.by_key, plan.experiment)
    missing = [key for key in plan.by_key if key not in sealed]
    partial = _with_checkpoint(store, missing)
    return {key: sealed.get(key, "in part" if key in partial else "missing") for key in plan.by_key}


def _with_checkpoint(store: Store, keys: Collection[str]) -> set[str]:
    """Those of these runs that have a checkpoint, by one listing."""
    there = {file.path for file in store.files(SCRATCH)} if keys else set()
    return {key for key in keys if checkpoint_path(key) in there}
