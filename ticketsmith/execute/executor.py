"""What every executor promises: local processes, this very process, and a cluster.

A new executor is a class with these two methods. What is sealed already is never made again, so that any of them goes on
where another one has stopped.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from ticketsmith.errors import Exit, gravest
from ticketsmith.execute.worker import Ended, Noted, Stepped
from ticketsmith.plan import Plan

Event = Stepped | Noted | Ended


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
