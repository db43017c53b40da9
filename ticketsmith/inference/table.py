"""A benchmark as rows of text for a terminal. Measured numbers only. Needs no torch."""

from __future__ import annotations

from ticketsmith.evidence.serving import Benchmark, Timing
from ticketsmith.evidence.words import share

COLUMNS = ("variant", "level", "sparsity", "runtime", "batch", "median ms", "p10-p90 ms", "per second", "speed-up")


def rows(benchmark: Benchmark) -> list[tuple[str, ...]]:
    """One row a timing, in the order of ``COLUMNS`` and of the benchmark."""
    return [
        (
            timing.variant,
            str(timing.level),
            share(timing.sparsity),
            timing.runtime,
            str(timing.batch_size),
            _three_figures(timing.median_ms),
            f"{_three_figures(timing.p10_ms)}\u2013{_three_figures(timing.p90_ms)}",
            f"{timing.throughput:,.0f}" if timing.throughput >= 10 else _three_figures(timing.throughput),
            _speedup(timing, benchmark),
        )
        for timing in benchmark.timings
    ]


def _speedup(timing: Timing, benchmark: Benchmark) -> str:
    if (timing.key, timing.runtime) == (benchmark.reference_key, benchmark.reference):
        return "reference"
    interval = f"{timing.speedup_low:.2f}\u2013{timing.speedup_high:.2f}"
    if not timing.claimed:
        return f"not distinguishable from 1.0x ({interval})"
    return f"{timing.speedup:.2f}x ({interval})"


def _three_figures(value: float) -> str:
    return f"{value:#.3g}".rstrip(".") if 1e-4 <= value < 1000 else f"{value:.3g}" if value < 1 else f"{value:,.0f}"
