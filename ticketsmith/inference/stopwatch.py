"""The timing of one call: samples long enough for the clock, warm-up until they are stable."""

from __future__ import annotations

import gc
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

SAMPLE_SECONDS = 2e-4
"""A sample is as many calls as take about this long: hundreds of times the clock's own noise, and its cost."""

_MOST_CALLS = 10_000
_MOST_WARM_UP_SAMPLES = 30
_STABLE = 1.1
_CLOCK_TICK = 1e-9


@dataclass(frozen=True)
class Warm:
    """``calls`` make a sample of ``SAMPLE_SECONDS``, at least 1; ``seconds`` is what one took, at best."""

    calls: int
    seconds: float


@dataclass(frozen=True)
class Stopwatch:
    """A clock in seconds, and what to wait for before it is read (a GPU's queue)."""

    clock: Callable[[], float] = time.perf_counter
    synchronise: Callable[[], None] = lambda: None

    @classmethod
    def of(cls, device: torch.device, clock: Callable[[], float]) -> Stopwatch:
        """The stopwatch for calls that compute on ``device``."""
        if device.type == "cuda":
            return cls(clock, lambda: torch.cuda.synchronize(device))
        return cls(clock)

    def sample(self, call: Callable[[Any], Any], inputs: Any, calls: int) -> float:
        """Seconds a call, the mean of ``calls`` calls in a row."""
        call(inputs)  # untimed: the rivals in between have taken this one's place in the caches
        self.synchronise()
        start = self.clock()
        for _ in range(calls):
            call(inputs)
        self.synchronise()
        return max(self.clock() - start, _CLOCK_TICK) / calls

    def warm_up(self, call: Callable[[Any], Any], inputs: Any, allowance: float) -> Warm:
        """Samples until three in a row agree within 10 %, or ``allowance`` seconds are over."""
        begin, calls = self.clock(), 1
        latest: deque[float] = deque(maxlen=3)
        for _ in range(_MOST_WARM_UP_SAMPLES):
            latest.append(self.sample(call, inputs, calls))
            calls = min(_MOST_CALLS, math.ceil(SAMPLE_SECONDS / min(latest)))
            stable = len(latest) == latest.maxlen and max(latest) <= _STABLE * min(latest)
            if stable or self.clock() - begin > allowance:
                break
        return Warm(calls, min(latest))


@contextmanager
def quiet(threads: int) -> Iterator[None]:
    """The state in which everything is timed: ``threads`` CPU threads, no garbage collector, no deterministic kernels.

    Training's deterministic mode also fills fresh memory before use, which no server does. All is put back afterwards.
    """
    threads_before = torch.get_num_threads()
    strict, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(False)
        yield
    finally:
        torch.use_deterministic_algorithms(strict, warn_only=warn_only)
        torch.set_num_threads(threads_before)
        if collecting:
            gc.enable()
