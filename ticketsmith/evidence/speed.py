"""Measured speed-ups, gathered over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ticketsmith.evidence.serving import Benchmark, Timing
from ticketsmith.evidence.statistics import mean


@dataclass(frozen=True)
class Speed:
    """One level of one variant on one runtime at one batch size.

    ``speedup`` is the geometric mean over seeds of the measured ratios to dense; ``low`` and ``high`` are the outermost
    bounds of the seeds' own bootstrap intervals, so that they never claim more than any seed does.
    """

    variant: str
    level: int
    sparsity: float
    runtime: str
    batch_size: int
    threads: int
    speedup: float
    low: float
    high: float
    median_ms: float
    seeds: int

    @property
    def claimed(self) -> bool:
        """Whether the interval excludes "as fast as dense"."""
        return not self.low <= 1.0 <= self.high


def speeds(benchmark: Benchmark | None) -> list[Speed]:
    """Every measured point, by runtime, batch size and sparsity."""
    if benchmark is None:
        return []
    groups: dict[tuple[str, int, int, str, int], list[Timing]] = {}
    for timing in benchmark.timings:
        place = (timing.runtime, timing.batch_size, timing.threads, timing.variant, timing.level)
        groups.setdefault(place, []).append(timing)
    points = [_speed(timings) for timings in groups.values()]
    return sorted(points, key=lambda p: (p.runtime, p.batch_size, p.threads, p.sparsity, p.variant, p.level))


def best(points: Sequence[Speed], variant: str, level: int, batch_size: int = 1) -> Speed | None:
    """The fastest runtime of those measured for this level at this batch size; None when none was."""
    here = [p for p in points if (p.variant, p.level, p.batch_size) == (variant, level, batch_size)]
    return max(here, key=lambda p: (p.speedup, p.runtime), default=None)


def _speed(timings: Sequence[Timing]) -> Speed:
    first = timings[0]
    return Speed(
        variant=first.variant,
        level=first.level,
        sparsity=mean([timing.sparsity for timing in timings]),
        runtime=first.runtime,
        batch_size=first.batch_size,
        threads=first.threads,
        speedup=math.exp(mean([math.log(timing.speedup) for timing in timings])),
        low=min(timing.speedup_low for timing in timings),
        high=max(timing.speedup_high for timing in timings),
        median_ms=mean([timing.median_ms for timing in timings]),
        seeds=len({timing.seed for timing in timings}),
    )
