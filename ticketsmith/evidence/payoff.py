"""What each choice costs to find, and after how many units it has paid for itself.

Rounding dense is held against dense in float32, pruning against the fastest dense candidate of any precision that passes.
Pruning costs the training beyond dense. Every kind costs the writing and judging of all its candidates, of which nobody knew
beforehand which would do: they count whole, for every replicate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ticketsmith.evidence.choice import KINDS, Choice, Kind, Time
from ticketsmith.evidence.cost import Cost
from ticketsmith.evidence.payback import Span
from ticketsmith.evidence.rounds import Ratio


@dataclass(frozen=True)
class Payoff:
    """The fastest that passes of one kind in the setting that leads.

    ``speedup`` is against ``base``. ``trying_seconds`` were spent on writing and judging candidates of the kind,
    ``training_seconds`` of the machine on training beyond dense, None where that is not known. ``cost`` is both, in ``currency``
    or, where that is empty, in seconds of the machine. ``units`` is after how many served it is earned back; None where it
    is not surely faster, or the cost is not known.
    """

    kind: Kind
    time: Time
    base: Time
    speedup: Ratio
    trying_seconds: float
    training_seconds: float | None
    cost: float | None
    currency: str
    units: Span | None


def payoffs(choice: Choice, cost: Cost) -> list[Payoff]:
    """One for each kind that has a candidate that passes, and something dense to be held against."""
    lead, tries = choice.lead, _tries(choice)
    bases = {kind: lead.best.get("neither") if kind == "quantise" else lead.rival for kind in KINDS[1:]}
    return [
        _payoff(choice, cost, kind, base, lead.best[kind], tries[kind])
        for kind, base in bases.items()
        if base is not None and kind in lead.best
    ]


def _tries(choice: Choice) -> Mapping[Kind, float]:
    """Seconds of writing and judging by kind; a pruned and rounded network is found by way of all the others."""
    seconds: dict[Kind, float] = dict.fromkeys(KINDS, 0.0)
    for candidate in choice.candidates:
        for one in candidate.judgements:
            seconds[candidate.kind] += one.making_seconds + one.judging_seconds
    return {**seconds, "both": seconds["quantise"] + seconds["prune"] + seconds["both"]}


def _payoff(choice: Choice, cost: Cost, kind: Kind, base: Time, time: Time, trying: float) -> Payoff:
    speedup = choice.lead.ratio(base, time)
    training: float | None = 0.0
    if kind in ("prune", "both"):
        training = _training(cost)
    amount = None if training is None else trying + training
    currency = ""
    rate = choice.rate if choice.rate is not None and choice.rate.per_hour > 0 else None
    money = 0.0 if kind == "quantise" else _money(cost, "" if rate is None else rate.currency)
    if rate is not None and money is not None:
        amount, currency = rate.price(trying) + money, rate.currency
    units = None
    if amount is not None and speedup.low > 1.0:
        one = choice.seconds(choice.lead, base.median_ms)
        value = one if not currency or choice.rate is None else choice.rate.price(one)
        units = Span(*(amount / (value * (1 - 1 / bound)) for bound in (speedup.median, speedup.high, speedup.low)))
    return Payoff(kind, time, base, speedup, trying, training, amount, currency, units)


def _money(cost: Cost, currency: str) -> float | None:
    """What training beyond dense cost; None where a run has no price, or one in another currency."""
    finding, dense = cost.finding, cost.dense
    if not (finding.priced and dense.priced) or {finding.currency, dense.currency} != {currency}:
        return None
    return (finding.money or 0.0) - (dense.money or 0.0)


def _training(cost: Cost) -> float | None:
    """Seconds of the machine beyond dense; None where a run does not know its time, or was made on another device."""
    finding, dense = cost.finding, cost.dense
    if not finding.timed or finding.machine_seconds is None or dense.machine_seconds is None:
        return None
    if any(device != "cpu" for device in cost.devices):
        return None
    return finding.machine_seconds - dense.machine_seconds
