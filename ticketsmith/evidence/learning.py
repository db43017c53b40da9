"""How fast each level learns: the iteration of its lowest validation loss, against dense.

The early-stop iteration, found after the run was trained in full, is the measure of learning speed of Frankle & Carbin
(ICLR 2019, section 1): a ticket that reaches its lowest validation loss earlier learns faster.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ticketsmith.evidence.results import Result
from ticketsmith.evidence.statistics import Interval, mean, t_interval
from ticketsmith.evidence.summarise import groups
from ticketsmith.evidence.variants import DENSE


@dataclass(frozen=True)
class EarlyStop:
    """Early-stop iterations of one level of one variant, draws averaged within a replicate first.

    ``faster`` is the dense iteration over this one, paired by seed: 2.0 learns in half the iterations. It is a
    geometric mean with the t interval of its logarithms, so that twice as fast and half as fast weigh the same.
    None for dense itself, or when no seed has both.
    """

    variant: str
    level: int
    sparsity: float
    step: Interval
    faster: Interval | None


def early_stops(results: Sequence[Result], confidence: float = 0.95) -> list[EarlyStop]:
    """One entry for each level of each variant with at least one run that has an early-stop iteration.

    What was pruned after training and not trained again has learned nothing, and has none.
    """
    dense = _steps([run for run in results if run.variant == DENSE])
    entries = []
    for variant, level in groups(results):
        runs = [run for run in results if (run.variant, run.level) == (variant, level)]
        steps = _steps(runs)
        if not steps:
            continue
        logs = [
            math.log(dense[seed] / step)
            for seed, step in sorted(steps.items())
            if variant != DENSE and step > 0 and dense.get(seed, 0) > 0
        ]
        entries.append(
            EarlyStop(
                variant=variant,
                level=level,
                sparsity=mean([run.sparsity for run in runs]),
                step=t_interval([steps[seed] for seed in sorted(steps)], confidence),
                faster=_exponential(t_interval(logs, confidence)) if logs else None,
            )
        )
    return entries


def _steps(runs: Sequence[Result]) -> dict[int, float]:
    draws: dict[int, list[float]] = {}
    for run in runs:
        if run.steps > 0 and not run.diverged and run.early_stop is not None:
            draws.setdefault(run.seed, []).append(float(run.early_stop.step))
    return {seed: mean(steps) for seed, steps in draws.items()}


def _exponential(interval: Interval) -> Interval:
    low = None if interval.low is None else _exp(interval.low)
    high = None if interval.high is None else _exp(interval.high)
    return Interval(_exp(interval.mean), low, high, interval.n)


def _exp(power: float) -> float:
    """Two wildly different replicates can have an interval beyond any float; infinity then says so."""
    return math.exp(power) if power < 700 else math.inf
