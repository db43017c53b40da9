"""Measured speed-ups over the best dense runtime, gathered over seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ticketsmith.evidence.serving import Benchmark, Timing
from ticketsmith.evidence.statistics import mean
from ticketsmith.evidence.variants import DENSE


class Cell(NamedTuple):
    """What is compared with each other: one phase, precision, batch size and number of threads."""

    phase: str
    precision: str
    batch_size: int
    threads: int


# Of a model that generates, a reader asks first for the time of every token, then of the first one; else for a call's.
_PHASES = ("decode", "prefill", "")
_SKIP_ZEROS = ("torch_csr", "sparse")  # the runtimes of format 1 that were not dense; it did not tell them apart
_PRECISIONS = ("float32", "bfloat16", "int8")


@dataclass(frozen=True)
class Speed:
    """One level of one variant on one runtime in one cell.

    ``speedup`` is the geometric mean over seeds of the measured ratios to ``against``: the dense model on the strongest
    dense runtime of the cell. ``low`` and ``high`` are the outermost bounds of the seeds' own bootstrap intervals, so
    that they never claim more than any seed does. ``dense`` tells a runtime that multiplies zeros like any other number.
    Latencies are milliseconds a call and ``throughput`` units a second, as in Timing; all are means over seeds, None
    where a seed does not know them. How outputs agreed with the reference before timing, ``max_error`` and ``agreement``,
    is that of the seed that agreed least; ``tolerance`` is what was allowed.
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
    p10_ms: float
    p90_ms: float
    throughput: float
    phase: str = ""
    precision: str = "float32"
    against: str = ""
    dense: bool = True
    p99_ms: float | None = None
    roofline: float | None = None
    resident_bytes: float | None = None
    peak_bytes: float | None = None
    file_bytes: float | None = None
    max_error: float = 0.0
    tolerance: float | None = None
    agreement: float | None = None

    @property
    def claimed(self) -> bool:
        """Whether the interval excludes "as fast as dense"."""
        return not self.low <= 1.0 <= self.high

    @property
    def cell(self) -> Cell:
        return Cell(self.phase, self.precision, self.batch_size, self.threads)

    @property
    def seconds(self) -> float:
        """What one unit (request, image, token) takes."""
        return 1.0 / self.throughput


def speeds(benchmark: Benchmark | None) -> list[Speed]:
    """Every measured point, by cell (see ``order``), runtime and sparsity.

    A cell in which no dense runtime ran the dense model has no rival, so that nothing can be said of it: it is left out. A
    document of format 1 does not name the strongest dense runtime of a cell: there it is the fastest that ran the dense
    model, if it is surely faster than the reference, else the reference. Runtimes that are known to skip zeros are none.
    """
    if benchmark is None:
        return []
    cells: dict[Cell, list[Timing]] = {}
    for timing in benchmark.timings:
        # else nothing was measured
        if min(timing.median_ms, timing.throughput, timing.speedup, timing.speedup_low) > 0:
            cells.setdefault(Cell(*timing.cell), []).append(timing)
    points = []
    for timings in cells.values():
        groups: dict[tuple[str, str, int], list[Timing]] = {}
        for timing in timings:
            groups.setdefault((timing.runtime, timing.variant, timing.level), []).append(timing)
        here = [_speed(group) for group in groups.values()]
        if any(timing.against for timing in timings):
            points += here
        elif all(timing.tolerance is None for timing in timings):  # format 1 did not tell what was allowed
            points += _against_strongest(here, benchmark.reference)
    return sorted(points, key=lambda p: (order(p.cell), p.runtime, p.sparsity, p.variant, p.level))


def order(cell: Cell) -> tuple[int, str, int, str, int, int]:
    """A sort key: the cell that leads comes first: decoding, or one call, in float32 at the smallest batch on fewest threads."""
    return *_place(cell.phase, _PHASES), *_place(cell.precision, _PRECISIONS), cell.batch_size, cell.threads


def lead(points: Iterable[Speed], batch_size: int | None = None) -> Cell | None:
    """The cell that leads, of all or of one batch size; None when nothing was measured there."""
    cells = {point.cell for point in points if batch_size in (None, point.batch_size)}
    return min(cells, key=order, default=None)


def best(points: Sequence[Speed], variant: str, level: int, batch_size: int = 1) -> Speed | None:
    """The fastest runtime of those measured for this level in the cell that leads this batch size; None without any."""
    cell = lead(points, batch_size)
    return fastest(point for point in points if (point.variant, point.level, point.cell) == (variant, level, cell))


def fastest(points: Iterable[Speed]) -> Speed | None:
    """The point with the highest speed-up, of those that are surely faster than dense if there are any; None of none."""
    return max(points, key=lambda point: (point.low > 1.0, point.speedup, point.sparsity, point.runtime), default=None)


def rival(points: Iterable[Speed], cell: Cell | None) -> Speed | None:
    """What a cell's speed-ups are against: the dense model on the strongest dense runtime; None when it is not there."""
    here = (point for point in points if (point.variant, point.cell, point.runtime) == (DENSE, cell, point.against))
    return next(here, None)


def _against_strongest(points: Sequence[Speed], reference: str) -> list[Speed]:
    """The points of one cell of an older document, relative to the dense model on the runtime that is fastest for it."""
    models = [point for point in points if point.variant == DENSE and point.runtime not in _SKIP_ZEROS]
    strongest = max(models, key=lambda point: (point.speedup, point.runtime), default=None)
    if strongest is None or strongest.low <= 1.0 or strongest.runtime == reference:
        return [replace(point, against=reference, dense=point.runtime == reference) for point in points]
    return [
        replace(
            point,
            against=strongest.runtime,
            dense=point.runtime in (reference, strongest.runtime),
            speedup=point.speedup / strongest.speedup,
            low=1.0 if point is strongest else point.low / strongest.high,
            high=1.0 if point is strongest else point.high / strongest.low,
        )
        for point in points
    ]


def _speed(timings: Sequence[Timing]) -> Speed:
    first = timings[0]

    def over(name: str, gather: Callable[[Sequence[float]], float] = mean) -> Any:
        values = [value for timing in timings if (value := getattr(timing, name)) is not None]
        return gather(values) if len(values) == len(timings) else None

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
        p10_ms=mean([timing.p10_ms for timing in timings]),
        p90_ms=mean([timing.p90_ms for timing in timings]),
        throughput=mean([timing.throughput for timing in timings]),
        phase=first.phase,
        precision=first.precision,
        against=first.against,
        dense=first.dense,
        **{name: over(name) for name in ("p99_ms", "roofline", "resident_bytes", "peak_bytes", "file_bytes")},
        max_error=max(timing.max_error for timing in timings),
        tolerance=first.tolerance,
        agreement=over("agreement", min),
    )


def _place(name: str, order: Sequence[str]) -> tuple[int, str]:
    return (order.index(name), "") if name in order else (len(order), name)
