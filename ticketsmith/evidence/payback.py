"""After how many served requests has finding the ticket paid for itself? From measured times, never from theory.

A request that the ticket serves instead of dense saves ``dense time x (1 - 1 / speed-up)``. What must be earned back is
what finding cost beyond training dense, which would have been trained anyway. Both are machine time times a price; where
one machine does both, the price cancels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from ticketsmith.evidence.cost import Cost
from ticketsmith.evidence.scorecard import Scorecard
from ticketsmith.evidence.speed import Speed, fastest
from ticketsmith.evidence.variants import DENSE

Outcome = Literal["pays", "unclear", "never"]
Obstacle = Literal["", "currencies", "times", "devices"]
"""Why cost and savings cannot be compared: two currencies, runs without a time, trained on one device and served on another."""


@dataclass(frozen=True)
class Span:
    """A number of requests, with the interval that the measured speed-up leaves."""

    middle: float
    low: float
    high: float


@dataclass(frozen=True)
class Payback:
    """One batch size: the best deployable choice on its fastest runtime against dense on its own, ``dense_runtime``.

    ``dense_seconds`` and ``ticket_seconds`` are a request's, at this batch size; ``speedup`` with ``low`` and ``high`` is
    their ratio. A machine serves ``streams`` requests side by side: one a core, or one a GPU. ``currency`` is empty where
    the reckoning is in machine time. ``extra`` and ``finding`` (money, or seconds of the machine) are what finding cost
    without and with training dense; None where that is not known, or not comparable with what serving costs, by its
    ``obstacle``. ``requests`` earn back ``extra``, ``requests_with_dense`` earn back ``finding``; None unless the
    ticket is surely faster.
    """

    unit: str
    batch_size: int
    runtime: str
    dense_runtime: str
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
    obstacle: Obstacle = ""

    @property
    def outcome(self) -> Outcome:
        """``pays``: surely faster than dense; ``never``: surely not; ``unclear``: the interval holds 1."""
        return "pays" if self.low > 1.0 else "never" if self.high < 1.0 else "unclear"

    def saved(self, speedup: float) -> float:
        """What a request saves, in the terms of ``extra``: money, or seconds of the machine."""
        seconds = self.dense_seconds * (1.0 - 1.0 / speedup) / self.streams
        return seconds * self.per_hour / 3600 if self.currency and self.per_hour is not None else seconds


def paybacks(cost: Cost, card: Scorecard | None) -> list[Payback]:
    """One for each batch size that was measured, smallest first, in the cell that leads it.

    Compared is the best deployable choice, with the dense model on whichever runtime is surely fastest for it, one that
    skips zeros included: what the runtime alone gives was there without finding a ticket. None of rounded weights alone,
    which nobody judged.
    """
    if card is None or card.lead is None or not card.lead.judged:
        return []
    lead = card.lead.cell
    by_size: dict[int, Payback] = {}
    for group in card.groups:
        if (group.cell.phase, group.cell.precision) != (lead.phase, lead.precision) or group.cell.batch_size in by_size:
            continue
        if group.candidate is None or group.dense is None:
            continue
        models = fastest(point for point in group.points if point.variant == DENSE and point.low > 1.0)
        by_size[group.cell.batch_size] = _payback(cost, card, group.dense, models or group.dense, group.candidate)
    return [by_size[size] for size in sorted(by_size)]


def _payback(cost: Cost, card: Scorecard, reference: Speed, dense: Speed, ticket: Speed) -> Payback:
    """``reference`` is what both speed-ups are relative to; ``dense`` is what the ticket is compared with."""
    rate = card.rate
    extra, finding, currency, obstacle = _terms(cost, card)
    bare = Payback(
        unit=f"{card.unit}s",
        batch_size=ticket.batch_size,
        runtime=ticket.runtime,
        dense_runtime=dense.runtime,
        device=card.device,
        dense_seconds=reference.seconds / dense.speedup,
        ticket_seconds=reference.seconds / ticket.speedup,
        speedup=ticket.speedup / dense.speedup,
        low=ticket.low / (1.0 if dense is reference else dense.high),
        high=ticket.high / (1.0 if dense is reference else dense.low),
        streams=card.streams(ticket.threads),
        machine=rate.machine if rate else "",
        per_hour=rate.per_hour if rate else None,
        currency=currency,
        extra=extra,
        finding=finding,
        obstacle=obstacle,
    )
    if bare.outcome != "pays" or extra is None or finding is None:
        return bare
    return replace(bare, requests=_span(bare, extra), requests_with_dense=_span(bare, finding))


def _span(payback: Payback, amount: float) -> Span:
    middle, low, high = (amount / payback.saved(speedup) for speedup in (payback.speedup, payback.high, payback.low))
    return Span(middle, low, high)


def _terms(cost: Cost, card: Scorecard) -> tuple[float | None, float | None, str, Obstacle]:
    """What finding cost without and with dense, in which currency (empty: machine seconds), or the obstacle."""
    rate, finding, dense = card.rate, cost.finding, cost.dense
    if rate is not None and rate.per_hour > 0 and finding.priced and dense.priced:
        if rate.currency != finding.currency:
            return None, None, "", "currencies"
        assert finding.money is not None
        assert dense.money is not None
        return finding.money - dense.money, finding.money, rate.currency, ""
    if not finding.timed or finding.machine_seconds is None or dense.machine_seconds is None:
        return None, None, "", "times"
    if any(device != card.device_kind for device in cost.devices):
        return None, None, "", "devices"
    return finding.machine_seconds - dense.machine_seconds, finding.machine_seconds, "", ""
