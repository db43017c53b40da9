"""A benchmark as text for a terminal, and as one line for a program. Measured numbers only. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ticketsmith.evidence.serving import Benchmark, LayerSpeed, LoadTest, Peaks, Timing, with_precision
from ticketsmith.units import percent, plural, share, size, three_figures

COLUMNS = (
    "variant", "level", "sparsity", "runtime", "p50 ms", "p90 ms", "p99 ms", "per second", "speed-up", "roofline",
    "outputs differ by",
)  # fmt: skip
MEMORY_COLUMNS = ("variant", "level", "runtime", "load ms", "first call ms", "resident", "peak", "file")
LOAD_COLUMNS = ("variant", "level", "runtime", "target", "highest rate", "its p50 ms", "its tail ms")


def cells(benchmark: Benchmark) -> dict[str, list[Timing]]:
    """Timings by the title of their cell; in each, dense runtimes on the dense model first, the fastest leading."""
    by_cell: dict[str, list[Timing]] = {}
    for timing in benchmark.timings:
        by_cell.setdefault(title(timing), []).append(timing)
    return {name: sorted(rows, key=lambda row: _place(row, benchmark)) for name, rows in by_cell.items()}


def title(timing: Timing) -> str:
    """``batch size 1, 1 thread, float32``."""
    phase = f"{timing.phase}, " if timing.phase else ""
    return f"{phase}batch size {timing.batch_size}, {plural(timing.threads, 'thread')}, {timing.precision}"


def strongest(benchmark: Benchmark, timing: Timing, precision: str = "float32") -> Timing | None:
    """The fastest dense runtime on the dense model, at a timing's batch size and threads but in ``precision``."""
    place = (timing.phase, precision, timing.batch_size, timing.threads)
    dense = [one for one in benchmark.timings if one.dense and one.key == benchmark.reference_key]
    return min((one for one in dense if one.cell == place), key=lambda one: one.median_ms, default=None)


def rows(timings: Sequence[Timing]) -> list[tuple[str, ...]]:
    """One row a timing, in the order of ``COLUMNS``."""
    return [
        (
            timing.variant,
            str(timing.level),
            share(timing.sparsity),
            timing.runs_on,
            three_figures(timing.median_ms),
            three_figures(timing.p90_ms),
            "" if timing.p99_ms is None else three_figures(timing.p99_ms),
            f"{timing.throughput:,.0f}" if timing.throughput >= 10 else three_figures(timing.throughput),
            _speedup(timing),
            "" if timing.roofline is None else percent(round(timing.roofline, 2)),
            _difference(timing),
        )
        for timing in timings
    ]


def memory_rows(benchmark: Benchmark) -> list[tuple[str, ...]]:
    """What was measured in processes of their own, in the order of ``MEMORY_COLUMNS``; a dense runtime once."""
    shown: dict[tuple[str, ...], tuple[str, ...]] = {}
    for timing in benchmark.timings:
        if timing.load_ms is None or timing.first_call_ms is None:
            continue
        name = with_precision(timing.runtime, timing.precision)
        key = (name,) if timing.dense else (name, timing.variant, str(timing.level), str(timing.seed))
        times = three_figures(timing.load_ms), three_figures(timing.first_call_ms)
        counts = timing.resident_bytes, timing.peak_bytes, timing.file_bytes
        sizes = ("" if count is None else size(count) for count in counts)
        shown.setdefault(key, (timing.variant, str(timing.level), name, *times, *sizes))
    return list(shown.values())


def layer_rows(layers: Sequence[LayerSpeed]) -> list[dict[str, str]]:
    """One row a layer, with a column for each sparsity."""
    shown: dict[tuple[str, str], dict[str, str]] = {}
    for one in layers:
        row = shown.setdefault((one.kind, one.shape), {"layer": one.kind, "shape": one.shape})
        sure = not one.speedup_low <= 1.0 <= one.speedup_high
        row[share(one.sparsity)] = f"{one.speedup:.2f}x" if sure else f"~{one.speedup:.2f}x"
    return list(shown.values())


def load_rows(loads: Sequence[LoadTest]) -> list[tuple[str, ...]]:
    """One row a load test, in the order of ``LOAD_COLUMNS``."""
    shown: list[tuple[str, ...]] = []
    for load in loads:
        best = max((step for step in load.steps if step.kept), key=lambda step: step.rate, default=None)
        shown.append(
            (
                load.variant,
                str(load.level),
                with_precision(load.runtime, load.precision),
                f"{100 * load.percentile:g} % within {three_figures(load.target_ms)} ms",
                f"{load.highest_rate:,.0f} a second" if best else "none that was tried",
                three_figures(best.median_ms) if best else "",
                three_figures(best.percentile_ms) if best else "",
            )
        )
    return shown


def peak_lines(peaks: Sequence[Peaks]) -> list[str]:
    """The machine's peaks in words."""
    return [
        f"{peak.flops / 1e9:,.0f} GFLOP/s and {peak.bytes / 1e9:,.1f} GB/s from memory"
        + (f" ({max(rate for _, rate in peak.reads) / 1e9:,.0f} GB/s from caches)" if peak.reads else "")
        + f" on {plural(peak.threads, 'thread')}"
        for peak in peaks
    ]


def refusal_lines(benchmark: Benchmark) -> list[str]:
    """What could not be run, and why: the same reason once, with the models and batch sizes that it holds for."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for refusal in benchmark.refusals:
        models = reasons.setdefault((refusal.runtime, refusal.reason), [])
        model = f"{refusal.variant} {refusal.level}"
        if model not in models:
            models.append(model)
    return [f"{runtime}: {_some(models)}: {reason}" for (runtime, reason), models in reasons.items()]


def summary(benchmark: Benchmark) -> dict[str, Any]:
    """For a program: the fastest runtime of each model in each cell, and whether its gain is sure."""
    best: dict[tuple[Any, ...], Timing] = {}
    for timing in benchmark.timings:
        key = (timing.cell, timing.variant, timing.level, timing.seed)
        if key not in best or timing.median_ms < best[key].median_ms:
            best[key] = timing
    return {
        "unit": benchmark.unit,
        "quiet": "noise" not in benchmark.machine,
        "refused": len(benchmark.refusals),
        "best": [
            {
                "variant": timing.variant,
                "level": timing.level,
                "phase": timing.phase,
                "sparsity": round(timing.sparsity, 4),
                "batch_size": timing.batch_size,
                "threads": timing.threads,
                "precision": timing.precision,
                "runtime": timing.runtime,
                "handed_to": timing.handed_to,
                "median_ms": float(f"{timing.median_ms:.4g}"),
                "per_second": float(f"{timing.throughput:.4g}"),
                "against": timing.against,
                "speedup": round(timing.speedup, 3),
                "low": round(timing.speedup_low, 3),
                "high": round(timing.speedup_high, 3),
                "claimed": timing.claimed,
                "compared_with": timing.compared_with,
                "over_float32_dense": _over_float32(benchmark, timing),
            }
            for timing in best.values()
        ],
    }


def _over_float32(benchmark: Benchmark, timing: Timing) -> float | None:
    plain = strongest(benchmark, timing)
    return None if plain is None else float(f"{plain.median_ms / timing.median_ms:.3g}")


def _place(timing: Timing, benchmark: Benchmark) -> tuple[Any, ...]:
    rival = timing.dense and timing.key == benchmark.reference_key
    order = timing.median_ms if rival else 0.0
    return not rival, order, timing.variant != "ticket", timing.variant, timing.level, timing.median_ms


def _speedup(timing: Timing) -> str:
    if not timing.against:
        return "nothing to compare with"
    if timing.dense and timing.runtime == timing.against and timing.speedup_low == timing.speedup_high == 1.0:
        return "1 (the one to beat)"
    interval = f"{timing.speedup_low:.2f}\u2013{timing.speedup_high:.2f}"
    if not timing.claimed:
        return f"not distinguishable from 1.0x ({interval})"
    return f"{timing.speedup:.2f}x ({interval})"


def _difference(timing: Timing) -> str:
    same = "" if timing.agreement is None else f", {share(timing.agreement)} same class"
    return f"{timing.max_error:.1g}{same}"


def _some(models: Sequence[str], most: int = 4) -> str:
    shown = ", ".join(models[:most])
    return shown if len(models) <= most else f"{shown} and {len(models) - most} more"
