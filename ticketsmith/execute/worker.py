"""A worker process: takes jobs from a pipe, makes one run after another, tells what happens."""

from __future__ import annotations

import os
import re
import signal
import sys
import sysconfig
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ticketsmith.errors import DamagedRunError, DivergedError, Exit, StoreError, TicketSmithError
from ticketsmith.prices.rate import Rate
from ticketsmith.training.job import Job

if TYPE_CHECKING:
    import torch

    from ticketsmith.store.contract import Store
    from ticketsmith.training.ranks import Ranks


@dataclass(frozen=True)
class WorkerSettings:
    """What is the same for all jobs of a worker. ``rate``: the machine's price, shared by workers ``side_by_side``. ``ranks``:
    processes that make each run together. ``slot``: which of the workers this is, 0 and up.
    """

    store: str | Mapping[str, Any]
    device: str
    checkpoint_every: float
    import_from: tuple[str, ...]
    rate: Rate | None = None
    side_by_side: int = 1
    ranks: int = 1
    slot: int = 0


@dataclass(frozen=True)
class Stepped:
    """A run is under way."""

    key: str
    step: int
    steps: int
    loss: float


@dataclass(frozen=True)
class Noted:
    """What a person should know of a run that goes on, or of why it ended; of all runs, where ``key`` is empty."""

    key: str
    message: str


@dataclass(frozen=True)
class Ended:
    """A run has ended. ``blocked``: one that it needs diverged. ``failed``: ``message`` says why, ``exit_status`` how bad.

    ``fatal``: no other run could be made or kept either.
    """

    key: str
    outcome: Literal["trained", "diverged", "reused", "busy", "interrupted", "blocked", "failed"]
    seconds: float
    message: str = ""
    exit_status: int = 0
    fatal: bool = False


THREADS = tuple(f"{library}_NUM_THREADS" for library in ("OMP", "OPENBLAS", "MKL"))
"""Variables that libraries read when they are imported."""


def work(pipe: Connection, settings: WorkerSettings) -> None:
    """The body of the process. It ends with its parent: nothing goes on unseen."""
    try:
        _serve(pipe, settings)
    except (EOFError, ConnectionError):
        os._exit(1)  # the parent has gone; there is nobody to tell


def settle(settings: WorkerSettings) -> None:
    """What a process needs before it imports torch and a user's own modules."""
    for name in THREADS:
        os.environ[name] = "1"
    # pyarrow, which pandas and scikit-learn bring along, begins a thread at its import: then nothing could be forked.
    os.environ.setdefault("JE_ARROW_MALLOC_CONF", "background_thread:false")
    for place in settings.import_from:
        if place not in sys.path:
            sys.path.append(place)


def _serve(pipe: Connection, settings: WorkerSettings) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    stopping: list[int] = []  # not an Event: its lock is not reentrant, and the group and the parent may both send one
    signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))
    threading.Thread(target=_die_with_parent, daemon=True).start()
    settle(settings)

    from ticketsmith.store import open_store  # these import torch, which takes seconds, and reads what `settle` has set
    from ticketsmith.training.device import device_of, prepare

    try:
        store = open_store(settings.store)
        device = prepare(device_of(settings.device, settings.slot))
    except TicketSmithError as error:
        pipe.send(Ended("", "failed", 0.0, f"a worker cannot start: {error}", int(error.exit_status), fatal=True))
        return
    maker = Maker(settings, store, device, pipe.send, lambda: bool(stopping))
    while True:
        job: Job | None = pipe.recv()
        if job is None:
            return
        began = time.monotonic()
        try:
            event = maker.make(job)
        except Exception as error:  # a fault in a user's component or in ours: this run fails, the others go on
            event = fault(job.spec.key, time.monotonic() - began, error)
        pipe.send(event)
        if event.outcome == "interrupted":
            return


class Maker:
    """Makes one run after another. ``tell`` hears what happens meanwhile; ``stop`` True interrupts a run."""

    def __init__(
        self,
        settings: WorkerSettings,
        store: Store,
        device: torch.device,
        tell: Callable[[Any], None],
        stop: Callable[[], bool] = lambda: False,
        ranks: Ranks | None = None,
    ) -> None:
        self._ranks = ranks
        self._settings, self._store, self._device, self._tell, self._stop = settings, store, device, tell, stop
        self._rate = settings.rate

    def make(self, job: Job) -> Ended:
        """What came of it. Raises what a user's own code raises."""
        from ticketsmith.training.produce import Hooks, Interrupted, produce

        key, began = job.spec.key, time.monotonic()

        def ended(outcome: Any, error: TicketSmithError | None = None, fatal: bool = False) -> Ended:
            message, status = ("", 0) if error is None else (str(error), int(error.exit_status))
            return Ended(key, outcome, time.monotonic() - began, message, status, fatal)

        hooks = Hooks(
            lambda step, steps, loss: self._tell(Stepped(key, step, steps, loss)),
            lambda text: self._tell(Noted(key, text)),
            lambda text: self._tell(Noted("", text)),
            self._stop,
            self._settings.checkpoint_every,
            self._rate,
            self._settings.side_by_side,
        )
        try:
            outcome = produce(job, self._store, self._device, hooks, self._ranks)
        except Interrupted:
            return ended("interrupted")
        except DivergedError as error:
            return ended("blocked", error)
        except TicketSmithError as error:
            return ended("failed", error, isinstance(error, StoreError) and not isinstance(error, DamagedRunError))
        if self._rate is not None and outcome in ("trained", "diverged"):
            self._rate = replace(self._rate, idle_tail=0.0)  # a node idles once after a pod: its first run bears it
        return ended(outcome)


def fault(key: str, seconds: float, error: Exception) -> Ended:
    """What came of a run whose code, a user's or ours, raised ``error``: where, and whose fault it is."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    message = f"{type(error).__name__}: {error} (in {where.name}, {where.filename}:{where.lineno})"
    status = _whose_fault(error)
    if isinstance(error, MemoryError) or re.search("out of memory|not enough memory", str(error), re.IGNORECASE):
        message, status = "out of memory: use fewer --workers or a smaller batch_size.", Exit.OUT_OF_MEMORY
    return Ended(key, "failed", seconds, message, int(status))


def _whose_fault(error: Exception) -> Exit:
    """Bad input when a user's own code took part, else a fault of ours."""
    others = (
        str(Path(__file__).resolve().parents[1]),
        sysconfig.get_paths()["stdlib"],
        sysconfig.get_paths()["purelib"],
    )
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(others)]
    return Exit.BAD_INPUT if own else Exit.INTERNAL


def _die_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)  # the parent was killed; a checkpoint and the claims of this process take care of themselves
