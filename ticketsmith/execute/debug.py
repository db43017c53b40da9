"""The debug executor: one run after another in this very process, so that breakpoints and prints in your own code work."""

from __future__ import annotations

import time
from collections.abc import Callable

from ticketsmith.errors import Exit
from ticketsmith.execute.executor import Event, Outcome
from ticketsmith.execute.schedule import BUSY_WAIT, Schedule
from ticketsmith.execute.worker import Maker, WorkerSettings
from ticketsmith.plan import Plan, PlannedRun
from ticketsmith.store.contract import Store
from ticketsmith.store.index import Index
from ticketsmith.training.job import Job


class DebugExecutor:
    """The same bytes as from processes. What your own code raises is raised here, with its traceback, and ends everything."""

    outcome: Outcome

    def __init__(
        self,
        store: Store,
        job_of: Callable[[PlannedRun], Job],
        settings: WorkerSettings,
        on_event: Callable[[Event], None],
        index: Index | None = None,
    ) -> None:
        self.store, self.job_of, self.settings, self.on_event = store, job_of, settings, on_event
        self.index = index or Index(store)

    def submit(self, plan: Plan) -> None:
        self.schedule = Schedule(plan, self.store, self.index)
        self.outcome = self.schedule.outcome

    def wait(self) -> Exit:
        from ticketsmith.training.device import prepared  # torch, which takes seconds

        with prepared(self.settings.device) as device:
            maker = Maker(self.settings, self.store, device, self.on_event)
            while self.schedule.todo and not self.outcome.fatal:
                ready = self.schedule.ready()
                if ready:
                    self.schedule.begin(ready[0])
                    event = maker.make(self.job_of(ready[0]).located(self.index))
                    self.schedule.settle(event)
                    self.on_event(event)
                elif self.schedule.is_waiting:
                    time.sleep(BUSY_WAIT)
                else:
                    break
        return self.outcome.exit_status
