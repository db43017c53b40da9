"""What Jobs may cost at most, and what is left of a budget. Pure arithmetic, meant to be checked by hand.

A Job's ceiling is pods at once x (deadline + grace) x price of an hour, plus the idle tail of as many nodes. Its deadline
counts from its start, waiting for nodes and every retry included, so no more time than this can be paid for. On spot
nodes the on-demand price is taken: that is the most that Azure asks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from ticketsmith.config.target import Pool, Target
from ticketsmith.errors import RecipeError
from ticketsmith.execute.kubernetes.jobs import Assignment
from ticketsmith.execute.kubernetes.manifests import CONDUCTOR_GRACE
from ticketsmith.prices import Rate, lookup

HOUR = 3600


@dataclass(frozen=True)
class Amount:
    """Money and hours of one GPU."""

    money: float = 0.0
    gpu_hours: float = 0.0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.money + other.money, self.gpu_hours + other.gpu_hours)


class Costly(Protocol):
    """Whatever has an amount."""

    @property
    def amount(self) -> Amount: ...


@dataclass(frozen=True)
class Ceiling:
    """The most that a Job can cost: its terms and the product. ``seconds`` is deadline and grace; ``rate`` is a pod's."""

    what: str
    pods: int
    seconds: int
    rate: Rate

    @property
    def amount(self) -> Amount:
        """The product."""
        hours = self.pods * (self.seconds + self.rate.idle_tail) / HOUR
        return Amount(hours * self.rate.ceiling_per_hour, self.pods * self.seconds / HOUR * self.rate.gpus)


@dataclass(frozen=True)
class Row:
    """A line of the plan table: one Job. ``runs`` counts all that it makes, ``cached`` those that are sealed already."""

    variant: str
    replicates: int
    runs: int
    cached: int
    ceiling: Ceiling


def rates(target: Target) -> dict[str, Rate]:
    """What an hour of a pod costs, by pool: ``train`` and ``cpu``. Raises RecipeError for a machine without a price."""
    return {name: _rate(getattr(target, name), target.region, f"{name}.machine") for name in ("train", "cpu")}


def _rate(pool: Pool, region: str | None, field: str) -> Rate:
    try:
        rate = lookup(pool.machine, region, pool.spot)
    except RecipeError as error:
        raise RecipeError(f"{field}: {error}") from error
    return replace(
        rate,
        per_hour=rate.per_hour * pool.share,
        on_demand=None if rate.on_demand is None else rate.on_demand * pool.share,
        gpus=pool.gpus,
        idle_tail=float(pool.idle_tail),
    )


def training_ceiling(variant: str, replicates: int, target: Target, rate: Rate) -> Ceiling:
    """Of the Job of one variant."""
    pods = min(replicates, target.train.parallelism)
    return Ceiling(variant, pods, target.limits.deadline + target.limits.grace, rate)


def report_ceiling(target: Target, rate: Rate) -> Ceiling:
    """Of the Job that writes the report."""
    return Ceiling("report", 1, target.limits.report_deadline + target.limits.grace, rate)


def conductor_ceiling(target: Target, rate: Rate) -> Ceiling:
    """Of the conductor."""
    return Ceiling("conductor", 1, target.limits.experiment + CONDUCTOR_GRACE, rate)


def table(assignments: Sequence[Assignment], sealed: Collection[str], target: Target) -> list[Row]:
    """One row a Job that is still to come, then the report and the conductor."""
    price = rates(target)
    rows = []
    for assignment in assignments:
        keys = [key for share in assignment.shares for key in share.keys]
        ceiling = training_ceiling(assignment.variant, len(assignment.shares), target, price["train"])
        cached = sum(key in sealed for key in keys)
        rows.append(Row(assignment.variant, len(assignment.shares), len(keys), cached, ceiling))
    rows.append(Row("report", 1, 0, 0, report_ceiling(target, price["cpu"])))
    rows.append(Row("conductor", 1, 0, 0, conductor_ceiling(target, price["cpu"])))
    return rows


def total(items: Iterable[Costly]) -> Amount:
    """The sum of ceilings, or of what pods took."""
    return sum((item.amount for item in items), Amount())


def exceeds(amount: Amount, target: Target, currency: str = "USD") -> str | None:
    """Which part of the budget an amount exceeds, in words; None when it keeps within."""
    budget = target.budget
    if budget.money is not None and amount.money > budget.money:
        return f"{amount.money:.2f} {currency} of a budget of {budget.money:.2f}"
    if budget.gpu_hours is not None and amount.gpu_hours > budget.gpu_hours:
        return f"{amount.gpu_hours:.1f} GPU hours of a budget of {budget.gpu_hours:g}"
    return None
