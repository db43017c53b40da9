"""A race: rivals timed in turn, round by round, in an order that is shuffled anew.

Whatever the machine does to a round (heat, neighbours, clock rates) it does to all of them. So rivals are compared by the
ratios of each round, not by totals.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ticketsmith.inference.runtimes import ArrayCall, Call
from ticketsmith.inference.stopwatch import Stopwatch, Warm

FEWEST_ROUNDS = 10
"""A time budget ends no race before this many rounds: an interval needs them."""

_WARM_UP_SECONDS = 0.1
_WARM_UP_SHARE = 0.25


@dataclass(frozen=True, eq=False)
class Runner:
    """What is timed: a runtime's own function, on inputs of its own kind."""

    run: Callable[[Any], Any]
    inputs: Any

    @classmethod
    def of(cls, call: Call, inputs: Tensor) -> Runner:
        """A call's innermost function, and inputs that are converted already."""
        return cls(call.arrays, call.given(inputs)) if isinstance(call, ArrayCall) else cls(call, inputs)


def warm_up(runners: Sequence[Runner], stopwatch: Stopwatch, allowance: float | None) -> list[Warm]:
    """Each runner until it is stable; ``allowance`` is the time in seconds for all of them."""
    each = _WARM_UP_SECONDS
    if allowance is not None:
        each = min(each, _WARM_UP_SHARE * allowance / max(1, len(runners)))
    return [stopwatch.warm_up(runner.run, runner.inputs, each) for runner in runners]


def race(
    runners: Sequence[Runner],
    calls: Sequence[int],
    stopwatch: Stopwatch,
    *,
    rounds: int,
    seconds: float = 0.0,
    allowance: float | None = None,
    told: Callable[[int], None] = lambda done: None,
) -> NDArray[np.float64]:
    """Seconds a call, ``[rounds, runners]``; ``calls`` is how many make a sample of each.

    At least ``rounds`` rounds and ``seconds`` seconds. Fewer when ``allowance`` seconds are over, but no fewer than
    ``FEWEST_ROUNDS``. ``told(done)`` is called after each round.
    """
    begin = stopwatch.clock()
    shuffler, order = random.Random(0), list(range(len(runners)))
    latencies: list[NDArray[np.float64]] = []
    while len(latencies) < rounds or stopwatch.clock() - begin < seconds:
        if allowance is not None and len(latencies) >= FEWEST_ROUNDS and stopwatch.clock() - begin > allowance:
            break
        shuffler.shuffle(order)
        row = np.empty(len(runners))
        for column in order:
            runner = runners[column]
            row[column] = stopwatch.sample(runner.run, runner.inputs, calls[column])
        latencies.append(row)
        told(len(latencies))
    return np.array(latencies)
