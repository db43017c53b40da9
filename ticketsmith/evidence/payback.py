"""After how many served requests has finding the ticket paid for itself? From measured times, never from theory.

A request that the ticket serves instead of dense saves ``dense time x (1 - 1 / speed-up)``. What must be earned back is
what finding cost beyond training dense, which would have been trained anyway. Both are machine time times a price; where
one machine does both, the price cancels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from ticketsmith.evidence.cost import Cost
from ticketsmith.evidence.serving import Benchmark
from ticketsmith.evidence.speed import Speed, best, speeds
from ticketsmith.evidence.variants import DENSE

Outcome = Literal["pays", "unclear", "never"]


@dataclass(frozen=True)
class Span:
    """A number of requests, with the interval that the measured speed-up leaves."""

    middle: float
    low: float
    high: float


@dataclass(frozen=True)
class Payback:
    """One batch size: the ticket on its fastest runtime against dense on its own.

    ``dense_seconds`` and ``ticket_seconds`` are a request's, at this batch size; ``speedup`` with ``low`` and ``high`` is
    their ratio. A machine serves ``streams`` requests side by side: one a core, or one a GPU. ``currency`` is empty where
    the reckoning is in machine time. ``extra`` and ``finding`` (money, or seconds of the machine) are what finding cost
    without and with training dense; None where that is not known, or not comparable with what serving costs: then
    ``why`` says so. ``requests`` earn back ``extra``, ``requests_with_dense`` earn back ``finding``; None unless the
    ticket is surely faster.
    """

    unit: str
    batch_size: int
    runtime: str
    device: str
    dense_seconds: float
    ticket_seconds: float
    speedup: float
    low: float
    high: float
    streams: int
    machine: str = ""
    per_hour: float | None = None
    currency: str = ""
    extra: float | None = None
    finding: float | None = None
    requests: Span | None = None
    requests_with_dense: Span | None = None
    why: str = ""

    @property
    def outcome(self) -> Outcome:
        """``pays``: surely faster than dense; ``never``: surely not; ``unclear``: the interval holds 1."""
        return "pays" if self.low > 1.0 else "never" if self.high < 1.0 else "unclear"

    def saved(self, speedup: float) -> float:
        """What a request saves, in the terms of ``extra``: money, or seconds of the machine."""
        seconds = self.dense_seconds * (1.0 - 1.0 / speedup) / self.streams
        return seconds * self.per_hour / 3600 if self.currency and self.per_hour is not None else seconds


def paybacks(
    cost: Cost, benchmark: Benchmark | None, variant: str, level: int | None, unit: str = "requests"
) -> list[Payback]:
    """One for each batch size that was measured, smallest first. ``level`` is the sweet spot's, None when there is none.

    ``unit`` names what one input of a batch is.
    """
    if benchmark is None or level is None:
        return []
    points = speeds(benchmark)
    found = []
    for batch_size in sorted({point.batch_size for point in points}):
        ticket = best(points, variant, level, batch_size)
        reference = next(
            (p for p in points if (p.variant, p.runtime, p.batch_size) == (DENSE, benchmark.reference, batch_size)),
            None,
        )
        if ticket is None or reference is None:
            continue
        rival = best(points, DENSE, 0, batch_size)
        if rival is None or rival.low <= 1.0:  # no other runtime is surely faster for dense
            rival = reference
        found.append(_payback(cost, benchmark, reference, rival, ticket, unit))
    return found


def _payback(cost: Cost, benchmark: Benchmark, reference: Speed, dense: Speed, ticket: Speed, unit: str) -> Payback:
    """``reference`` is what both speed-ups are relative to; ``dense`` is what the ticket is compared with."""
    request = reference.median_ms / 1000 / reference.batch_size
    rate = benchmark.machine_rate
    extra, finding, currency, why = _terms(cost, benchmark)
    ratio = ticket.speedup / dense.speedup
    bare = Payback(
        unit=unit,
        batch_size=ticket.batch_size,
        runtime=ticket.runtime,
        device=benchmark.device,
        dense_seconds=request / dense.speedup,
        ticket_seconds=request / ticket.speedup,
        speedup=ratio,
        low=ticket.low / (1.0 if dense is reference else dense.high),
        high=ticket.high / (1.0 if dense is reference else dense.low),
        streams=_streams(benchmark, ticket.threads),
        machine=rate.machine if rate else "",
        per_hour=rate.per_hour if rate else None,
        currency=currency,
        extra=extra,
        finding=finding,
        why=why,
    )
    if bare.outcome != "pays" or extra is None or finding is None:
        return bare
    return replace(bare, requests=_span(bare, extra), requests_with_dense=_span(bare, finding))


def _span(payback: Payback, amount: float) -> Span:
    middle, low, high = (amount / payback.saved(speedup) for speedup in (payback.speedup, payback.high, payback.low))
    return Span(middle, low, high)


def _terms(cost: Cost, benchmark: Benchmark) -> tuple[float | None, float | None, str, str]:
    """What finding cost without and with dense, in which currency (empty: machine seconds), or why it cannot be said."""
    rate, finding, dense = benchmark.machine_rate, cost.finding, cost.dense
    if rate is not None and rate.per_hour > 0 and finding.priced and dense.priced:
        if rate.currency == finding.currency:
            assert finding.money is not None
            assert dense.money is not None
            return finding.money - dense.money, finding.money, rate.currency, ""
        return (
            None,
            None,
            "",
            (f"training is priced in {finding.currency} and serving in {rate.currency}, which cannot be compared"),
        )
    if not finding.timed or finding.machine_seconds is None or dense.machine_seconds is None:
        return None, None, "", "not every run recorded its time"
    served = benchmark.device.partition(":")[0]
    if any(device != served for device in cost.devices):
        return (
            None,
            None,
            "",
            (
                f"it was trained on {' and '.join(_device(device) for device in cost.devices)} and measured on "
                f"{_device(served)}, and what an hour of both costs is not known (`--machine`)"
            ),
        )
    return finding.machine_seconds - dense.machine_seconds, finding.machine_seconds, "", ""


def _streams(benchmark: Benchmark, threads: int) -> int:
    """How many requests the machine serves side by side: a CPU one on every ``threads`` cores, as it trains."""
    cores = benchmark.machine.get("cores", "")
    if not benchmark.device.startswith("cpu") or not cores.isdigit():
        return 1
    return max(1, math.floor(int(cores) / threads))


def _device(kind: str) -> str:
    return {"cpu": "a CPU", "cuda": "a GPU"}.get(kind, kind)
