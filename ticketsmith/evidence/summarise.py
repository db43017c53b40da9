"""Which seeds are replicates, and means over them with their confidence intervals, one for each variant, level and metric."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from ticketsmith.evidence.resolution import resolution
from ticketsmith.evidence.results import At, Result, Split
from ticketsmith.evidence.statistics import deviation, mean, t_interval
from ticketsmith.evidence.variants import ordered
from ticketsmith.evidence.verdicts import Summary


def summarise(
    results: Sequence[Result], metrics: Iterable[str], split: Split, at: At, confidence: float = 0.95
) -> list[Summary]:
    """One summary for each variant, level and metric that at least one replicate measured.

    The draws of one replicate (several controls of one ticket) share its seed and are not independent: they are
    averaged first, and the interval counts replicates. Diverged runs and values that are not finite are left out, and
    seeds whose networks are equal are one replicate.
    """
    names = list(metrics)
    metrics_of_runs = {name: metric for run in results for name, metric in run.metrics.items()}
    finest = {name: resolution(results, metrics_of_runs[name], split) for name in names if name in metrics_of_runs}
    summaries = []
    for (variant, level), runs in grouped(results).items():
        differing = distinct(runs)
        for metric in names:
            by_seed = replicate_values(runs, metric, split, at)
            if not by_seed:
                continue
            values = tuple(by_seed[seed] for seed in differing if seed in by_seed)
            floor = finest[metric].floor(values, max(map(abs, values), default=0.0))
            interval = t_interval(values, confidence, floor)
            summaries.append(
                Summary(
                    variant=variant,
                    level=level,
                    sparsity=mean([run.sparsity for run in runs]),
                    metric=metric,
                    split=split,
                    at=at,
                    mean=interval.mean,
                    low=interval.low,
                    high=interval.high,
                    replicates=interval.n,
                    values=values,
                    seeds=len(by_seed),
                    floor=finest[metric] if len(values) > 1 and deviation(values) < floor else None,
                )
            )
    return summaries


def grouped(results: Iterable[Result]) -> dict[tuple[str, int], list[Result]]:
    """The runs of every (variant, level), in the order of the story."""
    groups: dict[tuple[str, int], list[Result]] = {}
    for run in results:
        groups.setdefault((run.variant, run.level), []).append(run)
    place = {variant: index for index, variant in enumerate(ordered(variant for variant, _ in groups))}
    return {pair: groups[pair] for pair in sorted(groups, key=lambda pair: (place[pair[0]], pair[1]))}


def measured_value(run: Result, metric: str, split: Split, at: At) -> float | None:
    """What one run scored; None when it diverged, does not measure this, or the value is not finite."""
    state = run.scores(at)
    value = None if run.diverged or state is None else state.on(split).get(metric)
    return value if value is not None and math.isfinite(value) else None


def replicate_values(runs: Iterable[Result], metric: str, split: Split, at: At) -> dict[int, float]:
    """One value for each seed: the mean of its draws."""
    draws: dict[int, list[float]] = {}
    for run in runs:
        value = measured_value(run, metric, split, at)
        if value is not None:
            draws.setdefault(run.seed, []).append(value)
    return {seed: mean(values) for seed, values in draws.items()}


def distinct(*groups: Sequence[Result]) -> tuple[int, ...]:
    """The seeds that every group has a sound run of; of seeds whose runs are equal in every group, the first alone.

    Fixed weights that are not trained give the same network for every seed: it says nothing of how much seeds differ. Runs
    are equal when their trained weights are. Where those are not known, seeds are taken for equal only when all of them
    measured the same.
    """
    by_seed = [_by_seed(group) for group in groups]
    seeds = sorted(set.intersection(*(set(runs) for runs in by_seed)))
    if all(run.weights for runs in by_seed for seed in seeds for run in runs[seed]):
        first: dict[tuple[tuple[str, ...], ...], int] = {}
        for seed in seeds:
            first.setdefault(tuple(tuple(run.weights for run in runs[seed]) for runs in by_seed), seed)
        return tuple(first.values())
    measured = [
        [[(run.final, run.early_stop, tuple(run.curve)) for run in runs[seed]] for runs in by_seed] for seed in seeds
    ]
    return tuple(seeds[:1] if all(one == measured[0] for one in measured) else seeds)


def _by_seed(group: Sequence[Result]) -> dict[int, list[Result]]:
    seeds: dict[int, list[Result]] = {}
    for run in sorted(group, key=lambda run: run.draw):
        if not run.diverged:
            seeds.setdefault(run.seed, []).append(run)
    return seeds
