"""What a person sees while runs are made: a live view on a terminal, log lines elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)  # fmt: skip

from ticketsmith.execute.executor import Event
from ticketsmith.execute.worker import Ended, Noted, Stepped
from ticketsmith.units import size

if TYPE_CHECKING:
    from ticketsmith.api import Prepared
    from ticketsmith.plan import Plan


def note(text: str) -> None:
    """A line on standard error."""
    with suppress(OSError):  # whoever read it has gone; the work goes on
        print(text, file=sys.stderr, flush=True)


@contextmanager
def view(
    prepared: Prepared, plan: Plan, sealed: Mapping[str, str], lines: bool = False
) -> Iterator[Callable[[Event], None]]:
    """Gives a function that shows events: live when standard error is a terminal, unless ``lines`` are asked for."""
    if sys.stderr.isatty() and not lines:
        with _Live(prepared, plan, sealed) as live:
            yield live.show
    else:
        yield Log(plan, sealed, growing=prepared.recipe.search is not None).show


_TELL_EVERY = 30.0  # seconds


def name_of(plan: Plan, key: str) -> str:
    """``ticket level 3 seed 0``; no key stands for the execution as a whole."""
    node = plan.by_key.get(key)
    if node is None:
        return plan.experiment
    return f"{node.variant} level {node.level} seed {node.seed}" + (f" draw {node.draw}" if node.draw else "")


class _Notes:
    """Lines for notes; one on all runs is told once, whichever of them find it."""

    def __init__(self, plan: Plan) -> None:
        self._plan, self._told = plan, set[str]()

    def line(self, event: Noted) -> str | None:
        if not event.key and event.message in self._told:
            return None
        self._told.add(event.message)
        return f"{name_of(self._plan, event.key)}: {event.message}"


class Log:
    """One line a finished run, and now and then one of what is under way."""

    def __init__(self, plan: Plan, sealed: Mapping[str, str], growing: bool = False) -> None:
        self.plan, self.done, self.began = plan, len(sealed), time.monotonic()
        self.told: dict[str, float] = {}
        self.notes = _Notes(plan)
        self.of = "" if growing else f"/{len(plan.by_key)}"  # nobody knows how many a search takes
        note(f"{'a search: at most ' if growing else ''}{len(plan.by_key)} runs, {self.done} of them cached")

    def show(self, event: Event) -> None:
        if isinstance(event, Noted):
            if line := self.notes.line(event):
                note(line)
            return
        if not isinstance(event, Ended):
            self._under_way(event)
            return
        if event.outcome == "busy":
            return
        self.done += event.outcome in ("trained", "diverged", "reused")
        elapsed = time.monotonic() - self.began
        text = f"[{elapsed:6.1f} s] {self.done}{self.of} {name_of(self.plan, event.key)}: {event.outcome}"
        if event.outcome == "trained":
            text += f" in {event.seconds:.1f} s"
        note(f"{text}: {event.message}" if event.message else text)

    def _under_way(self, event: Stepped) -> None:
        now = time.monotonic()
        if now - self.told.get(event.key, self.began) > _TELL_EVERY and event.loss == event.loss:
            self.told[event.key] = now
            name = name_of(self.plan, event.key)
            note(f"[{now - self.began:6.1f} s] {name}: step {event.step:,} of {event.steps:,}, loss {event.loss:.4f}")


class _Live:
    """An overall bar in training steps, and one bar for each run that is under way.

    They appear when the first run begins: they take a thread, and workers are forked from a process that has none.
    """

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
        self.notes = _Notes(plan)
        self.growing = prepared.recipe.search is not None
        whole = None if self.growing else sum(steps.values())  # nobody knows how many a search takes
        self.total = self.runs.add_task("", total=whole, completed=sum(self.at.values()), loss="")
        self.tasks: dict[str, object] = {}

    def __enter__(self) -> _Live:
        return self

    def __exit__(self, *_: object) -> None:
        self.runs.stop()

    def show(self, event: Event) -> None:
        key = event.key
        if isinstance(event, Noted):
            if line := self.notes.line(event):
                self.runs.console.print(line, style="yellow", markup=False)
            return
        self.runs.start()
        if isinstance(event, Ended):
            if (task := self.tasks.pop(key, None)) is not None:
                self.runs.remove_task(task)  # type: ignore[arg-type]
            if event.outcome in ("trained", "diverged", "reused"):
                self.at[key] = self.steps[key]
                self.count += 1
            if event.message or event.outcome == "diverged":
                self.runs.console.print(f"{name_of(self.plan, key)}: {event.outcome}. {event.message}", style="red")
        else:
            loss = "" if event.loss != event.loss else f"loss {event.loss:.4f}"  # NaN: no step yet
            if key not in self.tasks:
                self.tasks[key] = self.runs.add_task(name_of(self.plan, key), total=event.steps, loss=loss)
            self.runs.update(self.tasks[key], completed=event.step, loss=loss)  # type: ignore[arg-type]
            self.at[key] = event.step - (event.steps - self.steps[key])  # a rewound run does not begin at step 0
        self._overall()

    def _overall(self) -> None:
        of = "" if self.growing else f"/{len(self.plan.by_key)}"
        text = f"{self.plan.experiment}: {self.count}{of} runs"
        self.runs.update(self.total, completed=sum(self.at.values()), description=text)


class OneLine:
    """All that an experiment does as one line: rewritten on a terminal, and told now and then elsewhere."""

    def __init__(self) -> None:
        self._live, self._lines = sys.stderr.isatty(), NowAndThen()
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TimeElapsedColumn())
        console = Console(stderr=True)
        self._bar = Progress(*columns, console=console, transient=True, disable=not self._live)
        self._task = self._bar.add_task("", total=None)

    def __enter__(self) -> OneLine:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def tell(self, text: str) -> None:
        """What is done now."""
        if self._live:
            self._bar.reset(self._task, description=text, total=None)
        else:
            note(text)

    @contextmanager
    def view(self, prepared: Prepared, plan: Plan, sealed: Mapping[str, str]) -> Iterator[Callable[[Event], None]]:
        """As ``view``, of all runs together."""
        steps = {node.key: prepared.steps(node) for node in plan.by_key.values()}
        at, ended = {key: steps[key] for key in sealed if key in steps}, set(sealed)
        whole = sum(steps.values())
        trained = {key for key, count in steps.items() if count}  # a start from the initial weights takes no step
        began = time.monotonic()

        def show(event: Event) -> None:
            if isinstance(event, Stepped):
                at[event.key] = event.step - (event.steps - steps[event.key])
            elif isinstance(event, Noted):
                self._bar.console.print(f"{name_of(plan, event.key)}: {event.message}", markup=False)
            elif event.outcome in ("trained", "diverged", "reused"):
                at[event.key] = steps[event.key]
                ended.add(event.key)
            text = f"{plan.experiment}: {len(ended & trained)} of {len(trained)} networks trained"
            if self._live:
                self._bar.update(self._task, description=text, completed=sum(at.values()), total=whole)
            else:
                self._lines.tell(lambda: f"[{time.monotonic() - began:6.1f} s] {text}")

        yield show


@contextmanager
def rounds() -> Iterator[Callable[[str, int, int], None]]:
    """Gives a function that shows what a benchmark does, and how far it is: a bar on a terminal, lines elsewhere."""
    if sys.stderr.isatty():
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("", total=None)
            yield lambda what, count, total: bar.update(task, description=what, completed=count, total=total)
        return
    began, lines = time.monotonic(), NowAndThen()

    def show(what: str, count: int, total: int) -> None:
        lines.tell(lambda: f"[{time.monotonic() - began:6.1f} s] {what} ({count} of {total})")

    yield show


@contextmanager
def moved(name: str, total: int) -> Iterator[Callable[[int], None]]:
    """Gives a function that shows how many bytes more were moved: a bar on a terminal, lines elsewhere."""
    if sys.stderr.isatty():
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn(compact=True))
        with Progress(*columns, console=Console(stderr=True)) as bars:
            task = bars.add_task(name, total=total)
            yield lambda count: bars.advance(task, count)
        return
    lines, so_far, lock = NowAndThen(), 0, threading.Lock()

    def add(count: int) -> None:
        nonlocal so_far
        with lock:
            so_far += count
            lines.tell(lambda: f"{name}: {size(so_far)} of {size(total)}")

    yield add


class NowAndThen:
    """Lines on standard error, one in ten seconds at most; none at the beginning."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def tell(self, text: Callable[[], str]) -> None:
        """The line that ``text`` gives, if it is time for one."""
        if time.monotonic() - self._last > _TELL_EVERY / 3:
            self._last = time.monotonic()
            note(text())
