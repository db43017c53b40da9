"""What every executor promises: local processes, this very process, and a cluster; and which runs of a plan come next.

A new executor is a class with two methods. What is sealed already is never made again, so that any of them goes on where
another one has stopped.
"""

from __future__ import annotations

import time
from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol, Self

from ticketsmith.errors import Exit, TicketSmithError, gravest
from ticketsmith.execute.worker import Ended, Noted, Stepped, WorkerSettings
from ticketsmith.plan import Plan, PlannedRun
from ticketsmith.store.contract import SCRATCH, Store, checkpoint_path
from ticketsmith.store.index import Index
from ticketsmith.training.job import Job

Event = Stepped | Noted | Ended
BUSY_WAIT = 1.0
"""Seconds before asking again for a run that another process is making."""


class Executor(Protocol):
    """Makes what is missing of a plan, in dependency order."""

    def submit(self, plan: Plan) -> None:
        """Takes a plan. Raises TicketSmithError when it cannot be made."""
        ...

    def wait(self) -> Exit:
        """Returns when nothing more can be made; the gravest of what happened."""
        ...


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


class Schedule:
    """The runs of a plan: ``todo`` and sealed. Runs that most others wait for (the winning tickets) go first.

    Raises TicketSmithError when a missing run cannot be made under this version of the science.
    """

    def __init__(self, plan: Plan, store: Store, index: Index) -> None:
        self.plan, self.index, self.outcome = plan, index, Outcome()
        sealed = index.statuses(plan.by_key, plan.experiment)
        self.outcome.cached = len(sealed)
        self.outcome.diverged = [key for key, status in sealed.items() if status == "diverged"]
        for key in _with_checkpoint(store, sealed):
            store.delete(checkpoint_path(key))  # of a process that was killed between sealing and clearing up
        self.todo = {key: run for key, run in plan.by_key.items() if key not in sealed}
        if any(run.outdated for run in self.todo.values()):
            raise TicketSmithError(
                f"{plan.experiment}: its plan was made under another version of the science, which this version of TicketSmith "
                "cannot train. What is sealed stays. Give the recipe again (`prune` or `submit`): all runs are planned anew."
            )
        followers, self._not_before = _followers(plan), dict[str, float]()
        self._ranks = {key: (-followers[key], index, key) for index, key in enumerate(plan.by_key)}
        self._needs = {key: {one for one in run.spec.parents if one not in sealed} for key, run in self.todo.items()}
        self._children: dict[str, list[str]] = {}
        for key, parents in self._needs.items():
            for parent in parents:
                self._children.setdefault(parent, []).append(key)
        self._ready = sorted(self._ranks[key] for key, parents in self._needs.items() if not parents)

    def ready(self, running: Collection[str] = (), most: int | None = None) -> list[PlannedRun]:
        """Runs whose parents are sealed, but for those under way; the first of them where so many are enough."""
        now = time.monotonic()
        keys = (key for *_, key in self._ready if key not in running and self._not_before.get(key, 0.0) <= now)
        return [self.todo[key] for key in islice(keys, most)]

    def begin(self, run: PlannedRun) -> None:
        """A run is under way."""
        self._not_before.pop(run.key, None)

    @property
    def is_waiting(self) -> bool:
        """Whether another process is making one of these runs."""
        return bool(self._not_before)

    def settle(self, event: Ended) -> None:
        """Notes what came of a run."""
        key, outcome = event.key, self.outcome
        if event.outcome == "busy":
            self._not_before[key] = time.monotonic() + BUSY_WAIT
            self.index.expect_elsewhere(key)
            return
        if event.outcome == "interrupted":
            return
        self._drop(key)
        if event.outcome == "failed":
            outcome.fail(key, event.message, event.exit_status)
            outcome.fatal |= event.fatal
            self._block_what_needs(key)
        elif event.outcome == "blocked":
            outcome.blocked.append(key)
            self._block_what_needs(key)
        else:
            for child in self._children.get(key, ()):
                self._needs[child].discard(key)
                if not self._needs[child] and child in self.todo:
                    insort(self._ready, self._ranks[child])
            self.index.add(key, self.plan.by_key[key].folder(self.plan.experiment))
            outcome.trained += event.outcome in ("trained", "diverged")
            outcome.cached += event.outcome == "reused"
            if event.outcome == "diverged":
                outcome.diverged.append(key)

    def _drop(self, key: str) -> None:
        if self.todo.pop(key, None) is not None and not self._needs[key]:
            del self._ready[bisect_left(self._ready, self._ranks[key])]

    def _block_what_needs(self, key: str) -> None:
        """What waits for a run that is lost, directly or not, is not made."""
        lost = [key]
        while lost:
            for child in self._children.get(lost.pop(), ()):
                if child in self.todo:
                    self._drop(child)
                    self.outcome.blocked.append(child)
                    lost.append(child)


@dataclass
class Scheduled(Executor):
    """What executors of this machine have in common; they ``wait`` in different ways. ``index`` is of the whole store."""

    store: Store
    job_of: Callable[[PlannedRun], Job]
    settings: WorkerSettings
    on_event: Callable[[Event], None]
    index: Index
    schedule: Schedule = field(init=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Lets go of what was there for the next plan."""

    @property
    def outcome(self) -> Outcome:
        """What came of the plan that was submitted."""
        return self.schedule.outcome

    def submit(self, plan: Plan) -> None:
        """Takes a plan. Raises TicketSmithError when one of its runs cannot be made any more."""
        self.schedule = Schedule(plan, self.store, self.index)


def statuses(plan: Plan, store: Store, index: Index) -> Mapping[str, str]:
    """Status by key: ``trained``, ``diverged``, ``in part`` (a checkpoint is there) or ``missing``."""
    sealed = index.statuses(plan.by_key, plan.experiment)
    missing = [key for key in plan.by_key if key not in sealed]
    partial = _with_checkpoint(store, missing)
    return {key: sealed.get(key, "in part" if key in partial else "missing") for key in plan.by_key}


def _with_checkpoint(store: Store, keys: Collection[str]) -> set[str]:
    """Those of these runs that have a checkpoint, by one listing."""
    paths = {file.path for file in store.files(SCRATCH)} if keys else set()
    return {key for key in keys if checkpoint_path(key) in paths}


def _followers(plan: Plan) -> dict[str, int]:
    """How many runs wait for each, directly or not."""
    waiting: dict[str, set[str]] = {key: set() for key in plan.by_key}
    for key, run in reversed(plan.by_key.items()):
        for parent in run.spec.parents:
            if parent in waiting:
                waiting[parent] |= {key, *waiting[key]}
    return {key: len(runs) for key, runs in waiting.items()}
