"""An open-loop load test: requests come when they come, whether or not the earlier ones were answered.

A closed loop, which sends a request when it has the answer to the last one, never sees a queue: it leaves out the very
requests that would have waited ("coordinated omission"). Here arrivals are a Poisson process, drawn before, and a
request's latency counts from its arrival.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ticketsmith.evidence.serving import LoadStep

STEP_SECONDS = 1.5
FEWEST_REQUESTS = 200
_MOST_REQUESTS = 20_000
_FIRST_SHARE = 0.25
_RISE = 1.4
_HALVINGS = 4
_MOST_STEPS = 20
_SLEEP_ABOVE = 2e-3
_BEHIND = 0.9


def arrivals(rate: float, requests: int, seed: int) -> NDArray[np.float64]:
    """``[requests]`` times in seconds from the start: a Poisson process of ``rate`` a second."""
    return np.cumsum(np.random.default_rng(seed).exponential(1 / rate, requests))


@dataclass(frozen=True)
class Server:
    """One worker that answers in order of arrival. ``call`` answers one request; ``clock`` gives seconds."""

    call: Callable[[], object]
    clock: Callable[[], float] = time.perf_counter
    sleep: Callable[[float], None] = time.sleep

    def serve(self, due: NDArray[np.float64]) -> NDArray[np.float64]:
        """``[requests]`` latencies in seconds, from the time that each was due to its answer."""
        begin, latencies = self.clock(), np.empty(len(due))
        for index, moment in enumerate(due):
            self._wait(begin + moment)
            self.call()
            latencies[index] = self.clock() - begin - moment
        return latencies

    def _wait(self, moment: float) -> None:
        """Sleeps while there is much time, since a sleep ends late, and looks at the clock for the rest."""
        while (left := moment - self.clock()) > 0:
            self.sleep(left - _SLEEP_ABOVE if left > _SLEEP_ABOVE else 0.0)


def step(server: Server, rate: float, target: float, percentile: float, seed: int) -> LoadStep:
    """Requests at ``rate`` a second, and whether ``percentile`` (0..1) of them are answered within ``target`` seconds."""
    requests = int(min(_MOST_REQUESTS, max(FEWEST_REQUESTS, rate * STEP_SECONDS)))
    due = arrivals(rate, requests, seed)
    latencies = server.serve(due)
    finished = float((due + latencies).max())
    answered, offered = requests / finished, requests / float(due[-1])
    median, tail = (float(value) for value in np.quantile(latencies, (0.5, percentile)))
    in_time = tail <= target and answered >= _BEHIND * offered
    return LoadStep(rate, answered, requests, 1e3 * median, 1e3 * tail, in_time)


def highest_rate(attempt: Callable[[float], LoadStep], capacity: float) -> tuple[float, tuple[LoadStep, ...]]:
    """The highest rate that ``attempt`` keeps, 0 when none is kept, and all steps in their order.

    Rates rise from a quarter of ``capacity`` (requests a second of a worker that never waits) until one is not kept
    twice, since one bad moment of the machine is not the model's; then the gap is halved.
    """
    steps: list[LoadStep] = []

    def keeps(rate: float) -> bool:
        for _ in range(2):
            steps.append(attempt(rate))
            if steps[-1].kept:
                return True
        return False

    low, high = 0.0, _FIRST_SHARE * capacity
    while len(steps) < _MOST_STEPS and keeps(high):
        low, high = high, high * _RISE
    if low == 0.0:  # even the first was too much
        for _ in range(_HALVINGS):
            high /= 4
            if keeps(high):
                low, high = high, 4 * high
                break
        else:
            return 0.0, tuple(steps)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if keeps(middle):
            low = middle
        else:
            high = middle
    return low, tuple(steps)
