"""The price ceiling, against arithmetic done by hand."""

from __future__ import annotations

import pytest

from tests.execute.kubernetes.experiments import dense_keys, plan_of, target_of
from ticketsmith.errors import RecipeError
from ticketsmith.execute.kubernetes import ceiling
from ticketsmith.execute.kubernetes.jobs import Known, expected


def rows(*overrides: str, sealed: frozenset[str] = frozenset()) -> dict[str, ceiling.Row]:
    plan, target = plan_of(), target_of(*overrides)
    return {row.variant: row for row in ceiling.table(expected(plan, Known(sealed)), sealed, target)}


def test_a_jobs_ceiling_is_pods_times_time_times_price() -> None:
    by_variant = rows()
    # 2 pods at once x (3600 s + 60 s grace + 360 s idle tail) x 2.00 an hour
    assert by_variant["dense"].ceiling.amount.money == pytest.approx(2 * (3660 + 360) / 3600 * 2.0)
    assert by_variant["dense"].ceiling.amount.gpu_hours == pytest.approx(2 * 3660 / 3600)
    # 1 pod x (1800 + 60 + 360) s x half of 0.40 an hour, no GPU
    assert by_variant["report"].ceiling.amount.money == pytest.approx(2220 / 3600 * 0.2)
    assert by_variant["report"].ceiling.amount.gpu_hours == 0
    assert by_variant["conductor"].ceiling.amount.money == pytest.approx((36000 + 30 + 360) / 3600 * 0.2)


def test_the_whole_is_the_sum() -> None:
    by_variant = rows()
    whole = ceiling.total([row.ceiling for row in by_variant.values()])
    assert whole.money == pytest.approx(4 * 4020 / 1800 * 2.0 + 2220 / 3600 * 0.2 + 36390 / 3600 * 0.2)
    assert whole.gpu_hours == pytest.approx(4 * 2 * 3660 / 3600)


def test_what_is_made_already_costs_nothing() -> None:
    sealed = frozenset(dense_keys(plan_of()))
    by_variant = rows(sealed=sealed)
    assert "dense" not in by_variant
    assert by_variant["ticket"].cached == 0


def test_fewer_replicates_than_slots_are_not_charged_for_the_slots() -> None:
    assert rows("train.parallelism=8")["dense"].ceiling.pods == 3


def test_spot_is_charged_on_demand_at_most() -> None:
    plain = rows("train.machine=Standard_NC4as_T4_v3", "region=eastus")["dense"].ceiling.amount.money
    spot = rows("train.machine=Standard_NC4as_T4_v3", "region=eastus", "train.spot=true")["dense"].ceiling.amount.money
    assert spot == pytest.approx(plain)


def test_a_machine_without_a_price_is_refused_with_the_field() -> None:
    with pytest.raises(RecipeError, match=r"train\.machine: .*Standard_NC4as_T4_v3"):
        rows("train.machine=Standard_NC4as_T4_v9")


def test_budgets_count_money_and_gpu_hours() -> None:
    target = target_of("budget={money: 10, gpu_hours: 4}")
    assert ceiling.exceeds(ceiling.Amount(10.0, 4.0), target) is None
    assert ceiling.exceeds(ceiling.Amount(10.01, 0.0), target) == "10.01 USD of a budget of 10.00"
    assert ceiling.exceeds(ceiling.Amount(1.0, 4.1), target) == "4.1 GPU hours of a budget of 4"
    assert ceiling.exceeds(ceiling.Amount(1e9, 1e9), target_of()) is None
