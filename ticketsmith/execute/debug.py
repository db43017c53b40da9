"""The debug executor: one run after another in this very process, so that breakpoints and prints in your own code work."""

from __future__ import annotations

import time

from ticketsmith.errors import Exit
from ticketsmith.execute.schedule import BUSY_WAIT, Scheduled
from ticketsmith.execute.worker import Maker


class DebugExecutor(Scheduled):
    """The same bytes as from processes. What your own code raises is raised here, with its traceback, and ends everything."""

    def wait(self) -> Exit:
        """Trains until nothing more can be made."""
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
