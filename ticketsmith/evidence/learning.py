"""How fast each level learns: the iteration of its lowest validation loss, against dense.

The early-stop iteration, found after the run was trained in full, is the measure of learning speed of Frankle & Carbin
(ICLR 2019, section 1): a ticket that reaches its lowest validation loss earlier learns faster.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ticketsmith.evidence.results import Result
from ticketsmith.evidence.statistics import Interval, mean, t_interval
from ticketsmith.evidence.summarise import distinct, grouped
from ticketsmith.evidence.variants import DENSE


@dataclass(frozen=True)
class EarlyStop:
    """Early-stop iterations of one level of one variant, draws averaged within a replicate first.

    ``faster`` is the dense iteration over this one, paired by seed: 2.0 learns in half the iterations. It is a
    geometric mean, over the draws of a seed and then over seeds, with the t interval of the logarithms, so that twice as
    fast and half as fast weigh the same. None for dense itself, or when no seed has both.

    ``censored`` counts the runs whose lowest validation loss is that of their last iteration: longer training might have
    found a lower one, so that their iteration is a lower bound. ``dense_censored`` counts those of the dense runs that they
    are compared with. ``runs`` counts all.
    """

    variant: str
    level: int
    sparsity: float
    step: Interval
    faster: Interval | None
    runs: int = 0
    censored: int = 0
    dense_censored: int = 0


def early_stops(results: Sequence[Result], confidence: float = 0.95) -> list[EarlyStop]:
    """One entry for each level of each variant with at least one run that has an early-stop iteration.

    What was pruned after training and not trained again has learned nothing, and has none.
    """
    levels = {pair: _trained(runs) for pair, runs in grouped(results).items()}
    dense = levels.get((DENSE, 0), [])
    entries = []
    for (variant, level), runs in levels.items():
        if not runs:
            continue
        steps = _by_seed(runs, _step)
        seeds = [seed for seed in distinct(runs) if seed in steps]
        entries.append(
            EarlyStop(
                variant=variant,
                level=level,
                sparsity=mean([run.sparsity for run in runs]),
                step=t_interval([steps[seed] for seed in seeds], confidence, _spacing(runs)),
                faster=None if variant == DENSE else ratio(dense, runs, confidence),
                runs=len(runs),
                censored=sum(map(_censored, runs)),
                dense_censored=0 if variant == DENSE else sum(map(_censored, dense)),
            )
        )
    return entries


def ratio(one: Sequence[Result], other: Sequence[Result], confidence: float = 0.95) -> Interval | None:
    """How many times as many iterations ``one`` needs to its early stop as ``other``, paired by seed; None without a pair.

    A geometric mean with the t interval of the logarithms, which are averaged over the draws of a seed first. Their spread
    is at least that of one evaluation: between two of them nobody looked.
    """
    runs = [[run for run in _trained(group) if _step(run) > 0] for group in (one, other)]
    mine, theirs = (_by_seed(group, lambda run: math.log(_step(run))) for group in runs)
    logs = [mine[seed] - theirs[seed] for seed in distinct(*runs)] if all(runs) else []
    if not logs:
        return None
    steps = [_step(run) for group in runs for run in group]
    finest = max(map(_spacing, runs)) / mean(steps)
    return _exponential(t_interval(logs, confidence, finest))


def censored(runs: Sequence[Result]) -> int:
    """Of how many runs the lowest validation loss is that of the last iteration, so that it may lie beyond."""
    return sum(map(_censored, _trained(runs)))


def _trained(runs: Sequence[Result]) -> list[Result]:
    return [run for run in runs if run.steps > 0 and not run.diverged and run.early_stop is not None]


def _step(run: Result) -> float:
    assert run.early_stop is not None
    return float(run.early_stop.step)


def _censored(run: Result) -> bool:
    return _step(run) >= run.steps


def _spacing(runs: Sequence[Result]) -> float:
    """Iterations between evaluations: an early stop is known no better. One where no curve was kept.

    Runs of one level are evaluated alike, so one of them tells it.
    """
    return next((float(run.curve[1].step - run.curve[0].step) for run in runs if len(run.curve) > 1), 1.0)


def _by_seed(runs: Sequence[Result], measure: Callable[[Result], float]) -> dict[int, float]:
    draws: dict[int, list[float]] = {}
    for run in runs:
        draws.setdefault(run.seed, []).append(measure(run))
    return {seed: mean(values) for seed, values in draws.items()}


def _exponential(logs: Interval) -> Interval:
    """Two wildly different replicates can have an interval beyond any float; infinity then says so."""

    def exp(power: float) -> float:
        return math.exp(power) if power < 700 else math.inf

    low, high = (None if bound is None else exp(bound) for bound in (logs.low, logs.high))
    return Interval(exp(logs.mean), low, high, logs.n)
