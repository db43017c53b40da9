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
from collections.abc import Mapping
from dataclasses import dataclass, replace
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal

from ticketsmith.errors import DamagedRunError, DivergedError, Exit, StoreError, TicketSmithError
from ticketsmith.prices.rate import Rate
from ticketsmith.training.job import Job


@dataclass(frozen=True)
class Settings:
    """What is the same for all jobs of a worker. ``rate``: the machine's price, shared by workers ``side_by_side``."""

    store: str | Mapping[str, Any]
    device: str
    checkpoint_every: float
    import_from: tuple[str, ...]
    rate: Rate | None = None
    side_by_side: int = 1


@dataclass(frozen=True)
class Stepped:
    """A run is under way."""

    key: str
    step: int
    steps: int
    loss: float


@dataclass(frozen=True)
class Noted:
    """What a person should know of a run that goes on, or of why it ended."""

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


def work(pipe: Connection, settings: Settings) -> None:
    """The body of the process. It ends with its parent: nothing goes on unseen."""
    try:
        _serve(pipe, settings)
    except (EOFError, ConnectionError):
        os._exit(1)  # the parent has gone; there is nobody to tell


def settle(settings: Settings) -> None:
    """What a process needs before it imports torch and a user's own modules."""
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ[f"{library}_NUM_THREADS"] = "1"  # read when they are imported
    # pyarrow, which pandas and scikit-learn bring along, begins a thread at its import: then nothing could be forked.
    os.environ.setdefault("JE_ARROW_MALLOC_CONF", "background_thread:false")
    for place in settings.import_from:
        if place not in sys.path:
            sys.path.append(place)


def _serve(pipe: Connection, settings: Settings) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    stopping: list[int] = []  # not an Event: its lock is not reentrant, and the group and the parent may both send one
    signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))
    threading.Thread(target=_die_with_parent, daemon=True).start()
    settle(settings)

    from ticketsmith.store import open_store
    from ticketsmith.training.device import prepare
    from ticketsmith.training.produce import Hooks, Interrupted, produce

    try:
        store = open_store(settings.store)
        device = prepare(settings.device)
    except TicketSmithError as error:
        pipe.send(Ended("", "failed", 0.0, f"a worker cannot start: {error}", int(error.exit_status), fatal=True))
        return
    rate = settings.rate
    while True:
        job: Job | None = pipe.recv()
        if job is None:
            return
        key = job.spec.key

        def report(step: int, steps: int, loss: float, key: str = key) -> None:
            pipe.send(Stepped(key, step, steps, loss))

        def note(text: str, key: str = key) -> None:
            pipe.send(Noted(key, text))

        began = time.monotonic()
        message, exit_status, fatal = "", 0, False
        outcome: str
        try:
            hooks = Hooks(report, note, lambda: bool(stopping), settings.checkpoint_every, rate, settings.side_by_side)
            outcome = produce(job, store, device, hooks)
            if rate is not None and outcome in ("trained", "diverged"):
                rate = replace(rate, idle_tail=0.0)  # a node idles once after a pod: the pod's first run bears it
        except Interrupted:
            outcome = "interrupted"
        except DivergedError as error:
            outcome, message, exit_status = "blocked", str(error), int(error.exit_status)
        except TicketSmithError as error:
            outcome, message, exit_status = "failed", str(error), int(error.exit_status)
            fatal = isinstance(error, StoreError) and not isinstance(error, DamagedRunError)
        except Exception as error:  # a fault in a user's component or in ours: this run fails, the others go on
            where = traceback.extract_tb(error.__traceback__)[-1]
            message = f"{type(error).__name__}: {error} (in {where.name}, {where.filename}:{where.lineno})"
            outcome, exit_status = "failed", int(_whose_fault(error))
            if isinstance(error, MemoryError) or re.search(
                "out of memory|not enough memory", str(error), re.IGNORECASE
            ):
                message, exit_status = (
                    "out of memory: use fewer --workers or a smaller batch_size.",
                    int(Exit.OUT_OF_MEMORY),
                )
        seconds = time.monotonic() - began
        pipe.send(Ended(key, outcome, seconds, message, exit_status, fatal))  # type: ignore[arg-type]
        if outcome == "interrupted":
            return


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
