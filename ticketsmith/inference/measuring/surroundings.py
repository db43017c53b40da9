"""The machine around a benchmark: its facts, its peaks, what else it did meanwhile, and the state in which calls are timed."""

from __future__ import annotations

import gc
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from ticketsmith.evidence.serving import Peaks
from ticketsmith.inference.measuring import facts, peaks
from ticketsmith.race import Stopwatch
from ticketsmith.units import percent

_OTHERS = 0.1
_STEAL = 0.01
_FREQUENCY = 0.05
_LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class State:
    """Seconds that this process has computed so far, and what the kernel has counted; None where it does not tell.

    ``cores`` are seconds over all cores: busy, stolen by the host of a virtual machine, and in total.
    """

    own: float
    cores: tuple[float, float, float] | None = None
    megahertz: float | None = None


def signs(before: State, after: State) -> list[str]:
    """In words, what of the time between two states other processes, or the host of a virtual machine, have taken."""
    changes = []
    if before.cores and after.cores and after.cores[2] > before.cores[2]:
        busy, stolen, total = (late - early for early, late in zip(before.cores, after.cores, strict=True))
        others, stolen = (busy - (after.own - before.own)) / total, stolen / total
        if others > _OTHERS:
            changes.append(f"other processes used {percent(round(others, 2))} of the machine's cores")
        if stolen > _STEAL:
            changes.append(f"the host of this virtual machine took {percent(round(stolen, 2))} of its cores' time away")
    if before.megahertz and after.megahertz:
        change = after.megahertz / before.megahertz - 1
        if abs(change) > _FREQUENCY:
            kind = "higher" if change > 0 else "lower"
            changes.append(f"the cores' clock rate was {percent(round(abs(change), 2))} {kind} at the end")
    return changes


class Surroundings:
    """This machine. Tests bring one of their own."""

    clock: Callable[[], float] = staticmethod(time.perf_counter)
    """Seconds, from anywhere."""

    def describe(self, device: torch.device) -> dict[str, str]:
        """Facts for a reader, in order."""
        return facts.of_machine(device)

    def peaks(self, threads: int) -> Peaks | None:
        """What the CPU can do at most on so many threads."""
        return peaks.measure(threads)

    def state(self) -> State:
        """The counters now."""
        times = os.times()
        own = times.user + times.system
        try:
            fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
            user, nice, system, idle, wait, interrupt, soft, stolen = (int(one) for one in fields[:8])
        except (OSError, ValueError):
            return State(own)
        tick = float(os.sysconf("SC_CLK_TCK"))
        busy = user + nice + system + interrupt + soft
        total = busy + idle + wait + stolen
        return State(own, (busy / tick, stolen / tick, total / tick), _megahertz())


def _megahertz() -> float | None:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        rates = [float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")]
    except (OSError, ValueError):
        return None
    return max(rates, default=None)


@contextmanager
def pinned(threads: int) -> Iterator[tuple[int, ...]]:
    """This thread on ``threads`` cores of those that it may use, the idlest ones: gives them.

    Threads that are made meanwhile stay there too. Where the system cannot do this, gives nothing.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield ()
        return
    allowed = os.sched_getaffinity(0)
    idle = _idle(_LOOK_SECONDS if len(allowed) > threads else 0.0)
    cores = tuple(sorted(sorted(allowed, key=lambda core: (-idle.get(core, 0), core))[:threads]))
    try:
        os.sched_setaffinity(0, cores)
    except OSError:  # a container that forbids it
        yield ()
        return
    try:
        yield cores
    finally:
        os.sched_setaffinity(0, allowed)


def _idle(seconds: float) -> dict[int, int]:
    """Ticks that each core was idle in the next ``seconds``."""

    def counted() -> dict[int, int]:
        try:
            lines = [line.split() for line in Path("/proc/stat").read_text().splitlines()]
            return {int(line[0][3:]): int(line[4]) for line in lines if re.fullmatch(r"cpu\d+", line[0])}
        except (OSError, ValueError, IndexError):
            return {}

    before = counted()
    time.sleep(seconds)
    return {core: ticks - before.get(core, ticks) for core, ticks in counted().items()}


def stopwatch_for(device: torch.device, clock: Callable[[], float]) -> Stopwatch:
    """The stopwatch for calls that compute on ``device``: a GPU's queue must be empty when it is read."""
    if device.type == "cuda":
        return Stopwatch(clock, lambda: torch.cuda.synchronize(device))
    return Stopwatch(clock)


@contextmanager
def quiet(threads: int) -> Iterator[None]:
    """The state in which everything is timed: ``threads`` CPU threads, no garbage collector, no deterministic kernels.

    Training's deterministic mode also fills fresh memory before use, which no server does. All is put back afterwards.
    """
    threads_before, mode = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        torch.set_num_threads(threads)
        torch.set_deterministic_debug_mode("default")
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
        torch.set_num_threads(threads_before)
        if collecting:
            gc.enable()
