"""Measured inference speed, as evidence sees it. Plain data; the measuring is in ``ticketsmith.inference``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """One model on one runtime at one batch size, measured side by side with the dense reference.

    Latencies are milliseconds a call; ``speedup`` is the reference's latency over this one's (median of the ratios of
    interleaved rounds) with a bootstrap interval ``speedup_low .. speedup_high``. ``claimed`` is False when that
    interval holds 1.0.
    """

    variant: str
    level: int
    seed: int
    key: str
    sparsity: float
    runtime: str
    batch_size: int
    threads: int
    rounds: int
    median_ms: float
    p10_ms: float
    p90_ms: float
    throughput: float
    speedup: float
    speedup_low: float
    speedup_high: float
    max_error: float

    @property
    def claimed(self) -> bool:
        return not (self.speedup_low <= 1.0 <= self.speedup_high)


@dataclass(frozen=True)
class Benchmark:
    """A whole benchmark: where, how, and every timing. ``reference`` names the dense model's runtime."""

    machine: Mapping[str, str]
    reference: str
    device: str
    confidence: float
    timings: tuple[Timing, ...]
