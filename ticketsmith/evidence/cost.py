"""What the evidence cost: time, arithmetic and money, of all runs, of finding the ticket, of the controls."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ticketsmith.evidence.results import Bill, Result
from ticketsmith.evidence.summarise import grouped
from ticketsmith.evidence.variants import DENSE, TICKET, is_control, ordered


@dataclass(frozen=True)
class Spend:
    """A sum over runs. ``seconds`` adds the times of single runs, which may have run side by side: it is compute time, not
    waiting time. It is None when no run knows its time; ``untimed`` counts the runs that do not. ``machine_seconds`` is
    their part of the machines' time.

    ``price`` is None when no run has one, and when they are in several ``currencies``, which cannot be added;
    ``unpriced`` counts the runs without one. What nodes cost that idled after the work, before they were scaled down, is
    ``idle_price`` and no part of ``price``.
    """

    runs: int
    seconds: float | None
    untimed: int
    flops: float
    machine_seconds: float | None = None
    gpu_seconds: float = 0.0
    price: float | None = None
    unpriced: int = 0
    currencies: tuple[str, ...] = ()
    idle_seconds: float = 0.0
    idle_price: float = 0.0

    @property
    def timed(self) -> bool:
        """Whether every run knows its time: a sum over some compares what cannot be compared."""
        return self.seconds is not None and self.untimed == 0

    @property
    def priced(self) -> bool:
        """Whether every run has a price, all in one currency."""
        return self.price is not None and self.unpriced == 0

    @property
    def money(self) -> float | None:
        """What the runs cost with the idle tails after them; None where ``price`` is."""
        return None if self.price is None else self.price + self.idle_price

    @property
    def currency(self) -> str:
        """The one currency of all prices, else empty."""
        return self.currencies[0] if len(self.currencies) == 1 else ""


@dataclass(frozen=True)
class Machine:
    """A machine that runs were made on, what its hour cost, and who says so."""

    name: str
    per_hour: float
    currency: str
    spot: bool
    source: str
    dated: str


@dataclass(frozen=True)
class Cost:
    """``finding`` is the dense baseline and the levels of the method up to the one that ended the search: without that one
    nobody would know where the sweet spot is. It is all levels when there is none. ``ratio`` relates its arithmetic to
    training the same seeds densely once, None when that is not known. ``devices`` are those that the runs of ``finding``
    were made on, as far as they are known.
    """

    total: Spend
    dense: Spend
    finding: Spend
    controls: Spend
    ratio: float | None
    by_variant: Mapping[str, Spend]
    by_level: tuple[tuple[str, int, Spend], ...]
    machines: tuple[Machine, ...] = ()
    devices: tuple[str, ...] = ()


def cost(results: Sequence[Result], last_level: int | None, variant: str = TICKET) -> Cost:
    """The cost of everything that was trained; ``last_level`` of ``variant`` ended the search, None: all were needed."""
    dense = [run for run in results if run.variant == DENSE]
    levels = [run for run in results if run.variant == variant and (last_level is None or run.level <= last_level)]
    baseline, finding = spend(dense), spend(dense + levels)
    by_level = grouped(results)
    return Cost(
        total=spend(results),
        dense=baseline,
        finding=finding,
        controls=spend([run for run in results if is_control(run.variant, variant)]),
        ratio=finding.flops / baseline.flops if baseline.flops > 0 else None,
        by_variant={
            name: spend([run for (variant, _), runs in by_level.items() if variant == name for run in runs])
            for name in ordered(run.variant for run in results)
        },
        by_level=tuple((name, level, spend(runs)) for (name, level), runs in by_level.items()),
        machines=tuple(dict.fromkeys(_machine(bill) for bill in _priced(results))),
        devices=tuple(sorted({run.bill.device for run in dense + levels if run.bill and run.bill.device})),
    )


def spend(runs: Sequence[Result]) -> Spend:
    """The sum over some runs; one that two variants share was trained, and is paid for, once."""
    runs = list({run.key: run for run in runs}.values())
    timed = [run for run in runs if run.seconds is not None]
    shares = [run.bill.machine_seconds if run.bill else run.seconds or 0.0 for run in timed]
    priced = _priced(runs)
    currencies = tuple(sorted({bill.currency for bill in priced}))
    addable = len(currencies) == 1
    return Spend(
        runs=len(runs),
        seconds=math.fsum(run.seconds or 0.0 for run in timed) if timed else None,
        untimed=len(runs) - len(timed),
        flops=math.fsum(run.training_flops for run in runs),
        machine_seconds=math.fsum(shares) if timed else None,
        gpu_seconds=math.fsum(run.bill.gpu_seconds for run in runs if run.bill),
        price=math.fsum(bill.price or 0.0 for bill in priced) if addable else None,
        unpriced=len(runs) - len(priced),
        currencies=currencies,
        idle_seconds=math.fsum(bill.idle_seconds for bill in priced),
        idle_price=math.fsum(bill.idle_price for bill in priced) if addable else 0.0,
    )


def _priced(runs: Sequence[Result]) -> list[Bill]:
    return [run.bill for run in runs if run.bill is not None and run.bill.price is not None]


def _machine(bill: Bill) -> Machine:
    return Machine(bill.machine, bill.price_per_hour or 0.0, bill.currency, bill.spot, bill.source, bill.dated)
