"""A race: rivals timed in turn, round by round, in an order that is shuffled anew. NumPy only.

Whatever the machine does to a round (heat, neighbours, clock rates) it does to all of them. So rivals are compared by the
ratios of each round, or by medians over rounds, and not by totals.
"""

from __future__ import annotations

import math
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FEWEST_ROUNDS = 10
"""A time budget ends no race before this many rounds: an interval needs them."""

SAMPLE_SECONDS = 2e-4
"""A sample is as many calls as take about this long: hundreds of times the clock's own noise, and its cost."""

REST = 0.05
"""Seconds after which the threads of dense libraries no longer wait for work at full speed, which takes a core from others."""

_MOST_CALLS = 10_000
_MOST_WARM_UP_SAMPLES = 30
_WARM_UP_SECONDS = 0.1
_WARM_UP_SHARE = 0.25
_STABLE = 1.1
_CLOCK_TICK = 1e-9
_TRIAL_ROUNDS = 2
"""After which rivals that have no hope are left out."""


@dataclass(frozen=True, eq=False)
class Runner:
    """What is timed: a function, on inputs of its own kind."""

    run: Callable[[Any], Any]
    inputs: Any


@dataclass(frozen=True)
class Warm:
    """``calls`` make a sample of ``SAMPLE_SECONDS``, at least 1; ``seconds`` is what one took, at best."""

    calls: int
    seconds: float


@dataclass(frozen=True)
class Stopwatch:
    """A clock in seconds, and what happens around each sample, untimed.

    ``synchronise`` waits until a queue (a GPU's) is empty. ``prepare`` comes before a sample: a rest, or other contents for
    the caches; then come ``first`` calls, since the rivals in between have taken this one's place in the caches.
    """

    clock: Callable[[], float] = time.perf_counter
    synchronise: Callable[[], object] = lambda: None
    prepare: Callable[[], object] = lambda: None
    first: int = 1

    def sample(self, runner: Runner, calls: int) -> float:
        """Seconds a call, the mean of ``calls`` calls in a row."""
        run, inputs = runner.run, runner.inputs
        self.prepare()
        for _ in range(self.first):
            run(inputs)
        self.synchronise()
        start = self.clock()
        for _ in range(calls):
            run(inputs)
        self.synchronise()
        return max(self.clock() - start, _CLOCK_TICK) / calls

    def calls(self, runner: Runner, seconds: float, most: int = 1000) -> int:
        """How many calls take about ``seconds``, 1 at least, by what the next one takes."""
        start = self.clock()
        runner.run(runner.inputs)
        return max(1, min(most, int(seconds / max(self.clock() - start, 1e-7))))

    def warm_up(self, runner: Runner, allowance: float) -> Warm:
        """Samples until three in a row agree within 10 %, or ``allowance`` seconds are over."""
        begin, calls = self.clock(), 1
        latest: deque[float] = deque(maxlen=3)
        for _ in range(_MOST_WARM_UP_SAMPLES):
            latest.append(self.sample(runner, calls))
            calls = min(_MOST_CALLS, math.ceil(SAMPLE_SECONDS / min(latest)))
            stable = len(latest) == latest.maxlen and max(latest) <= _STABLE * min(latest)
            if stable or self.clock() - begin > allowance:
                break
        return Warm(calls, min(latest))


def warm_up(runners: Sequence[Runner], stopwatch: Stopwatch, allowance: float | None) -> list[Warm]:
    """Each runner until it is stable; ``allowance`` is the time in seconds for all of them."""
    each = _WARM_UP_SECONDS
    if allowance is not None:
        each = min(each, _WARM_UP_SHARE * allowance / max(1, len(runners)))
    return [stopwatch.warm_up(runner, each) for runner in runners]


def race(
    runners: Sequence[Runner],
    calls: Sequence[int],
    stopwatch: Stopwatch,
    *,
    rounds: int,
    seconds: float = 0.0,
    allowance: float | None = None,
    hopeless: float = math.inf,
    progress: Callable[[int], None] = lambda count: None,
) -> NDArray[np.float64]:
    """Seconds a call, ``[rounds, runners]``; ``calls`` is how many make a sample of each.

    At least ``rounds`` rounds and ``seconds`` seconds. Fewer when ``allowance`` seconds are over, but no fewer than
    ``FEWEST_ROUNDS``. Whoever is more than ``hopeless`` times slower than the fastest in the first two rounds, and not the
    first runner, is left out from then on: its seconds become NaN. ``progress(count)`` is called after each round.
    """
    begin = stopwatch.clock()
    shuffler, order = random.Random(0), list(range(len(runners)))
    latencies: list[NDArray[np.float64]] = []
    while len(latencies) < rounds or stopwatch.clock() - begin < seconds:
        if allowance is not None and len(latencies) >= FEWEST_ROUNDS and stopwatch.clock() - begin > allowance:
            break
        shuffler.shuffle(order)
        row = np.full(len(runners), np.nan)
        for column in order:
            row[column] = stopwatch.sample(runners[column], calls[column])
        latencies.append(row)
        if len(latencies) == _TRIAL_ROUNDS:
            best = np.min(latencies, axis=0)
            order = [column for column in order if column == 0 or best[column] <= hopeless * best.min()]
        progress(len(latencies))
    return np.array(latencies)
