"""What a person sees while runs are made: a live view on a terminal, log lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ticketsmith.execute.local import Event
from ticketsmith.execute.worker import Ended

if TYPE_CHECKING:
    from ticketsmith.api import Prepared
    from ticketsmith.plan import Node, Plan


def note(text: str) -> None:
    """A line on standard error."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def view(prepared: Prepared, plan: Plan, sealed: Mapping[str, str]) -> Iterator[Callable[[Event], None]]:
    """Gives a function that shows events: live when standard error is a terminal."""
    if sys.stderr.isatty():
        with _Live(prepared, plan, sealed) as live:
            yield live.show
    else:
        yield _Log(plan, sealed).show


def _name(node: Node) -> str:
    return f"{node.variant} level {node.level} seed {node.seed}" + (f" draw {node.draw}" if node.draw else "")


class _Log:
    """One line a finished run."""

    def __init__(self, plan: Plan, sealed: Mapping[str, str]) -> None:
        self.plan, self.done, self.began = plan, len(sealed), time.monotonic()
        note(f"{len(plan.by_key)} runs, {self.done} of them cached")

    def show(self, event: Event) -> None:
        if not isinstance(event, Ended) or event.outcome == "busy":
            return
        self.done += event.outcome in ("trained", "diverged", "reused")
        elapsed = time.monotonic() - self.began
        text = f"[{elapsed:6.1f} s] {self.done}/{len(self.plan.by_key)} {_name(self.plan.by_key[event.key])}: {event.outcome}"
        if event.outcome == "trained":
            text += f" in {event.seconds:.1f} s"
        note(f"{text}: {event.message}" if event.message else text)


class _Live:
    """An overall bar in training steps, and one bar for each run that is under way."""

    def __init__(self, prepared: Prepared, plan: Plan, sealed: Mapping[str, str]) -> None:
        self.prepared, self.plan = prepared, plan
        console = Console(stderr=True)
        self.runs = Progress(
            TextColumn("{task.description}", table_column=None),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}"),
            TimeRemainingColumn(compact=True),
            TimeElapsedColumn(),
            console=console,
        )
        steps = {node.key: prepared.steps(node) for node in plan.by_key.values()}
        self.steps, self.at = steps, {key: steps[key] for key in sealed if key in steps}
        self.count = len(self.at)
        self.total = self.runs.add_task("", total=sum(steps.values()), completed=sum(self.at.values()), loss="")
        self.tasks: dict[str, object] = {}

    def __enter__(self) -> _Live:
        self.runs.start()
        self._overall()
        return self

    def __exit__(self, *_: object) -> None:
        self.runs.stop()

    def show(self, event: Event) -> None:
        key = event.key
        if isinstance(event, Ended):
            if (task := self.tasks.pop(key, None)) is not None:
                self.runs.remove_task(task)  # type: ignore[arg-type]
            if event.outcome in ("trained", "diverged", "reused"):
                self.at[key] = self.steps[key]
                self.count += 1
            if event.message or event.outcome == "diverged":
                self.runs.console.print(
                    f"{_name(self.plan.by_key[key])}: {event.outcome}. {event.message}", style="red"
                )
        else:
            loss = "" if event.loss != event.loss else f"loss {event.loss:.4f}"  # NaN: no step yet
            if key not in self.tasks:
                self.tasks[key] = self.runs.add_task(_name(self.plan.by_key[key]), total=event.steps, loss=loss)
            self.runs.update(self.tasks[key], completed=event.step, loss=loss)  # type: ignore[arg-type]
            self.at[key] = event.step
        self._overall()

    def _overall(self) -> None:
        text = f"{self.plan.experiment}: {self.count}/{len(self.plan.by_key)} runs"
        self.runs.update(self.total, completed=sum(self.at.values()), description=text)
