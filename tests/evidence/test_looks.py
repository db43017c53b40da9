"""Looks: what each may err by, which were declared, and that all together keep what they promise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from ticketsmith.evidence.gates import judge
from ticketsmith.evidence.looks import Record, later_error, nominal_error, promise, schedule, with_history
from ticketsmith.evidence.results import Result
from ticketsmith.evidence.verdicts import Gate, GatePolicy, Status, Verdict

from .synthetic import result

POLICY = GatePolicy((Gate("accuracy", max_drop=2.0),))


def only(drops: list[float | None], policy: GatePolicy = POLICY, planned: int | None = None) -> Verdict:
    runs: list[Result] = []
    for seed, drop in enumerate(drops):
        runs += [result("dense", 0, seed, 90.0), result("ticket", 1, seed, None if drop is None else 90.0 - drop)]
    places = (
        None if planned is None else [(v, lv, s, 0) for s in range(planned) for v, lv in (("dense", 0), ("ticket", 1))]
    )
    (verdict,) = judge(runs, policy, "test", places)
    return verdict


@pytest.mark.parametrize("looks", [(2, 3), (3, 5, 8), (3, 4, 5, 6, 8), (3, 5, 10, 20)])
def test_declared_looks_pass_at_the_margin_as_often_as_promised(looks: tuple[int, ...]) -> None:
    error = nominal_error(looks, 0.05)
    samples = np.random.default_rng(len(looks)).standard_normal((200_000, looks[-1]))
    passes = np.zeros(len(samples), bool)
    for n in looks:
        first = samples[:, :n]
        passes |= first.mean(1) / first.std(1, ddof=1) * np.sqrt(n) <= stats.t.ppf(error, n - 1)
    assert 0.0485 < passes.mean() < 0.0515  # three standard errors of the simulation


def test_an_error_is_shared_by_what_is_declared_and_kept_apart_for_what_is_not() -> None:
    assert [look.error for look in schedule(5, 0.05)] == [0.05], "one look has all of it"
    assert len({look.error for look in schedule(8, 0.05, (3, 5, 8))}) == 1
    late = schedule(6, 0.05, (3,), (3, 4, 5))
    assert [(look.replicates, look.declared) for look in late] == [(3, True), (4, False), (5, False), (6, False)]
    assert sum(look.error for look in late[1:]) < 0.01, "of however many follow"
    assert promise(0.95, declared=False) == pytest.approx(0.94)
    assert later_error(4, 3, 0.05, (3, 5)) is None, "another look is declared to come first"
    for wrong in ((5, 3), (3, 3), (1, 2), ()):
        with pytest.raises(ValueError, match="increasing"):
            nominal_error(wrong, 0.05)


def test_the_earliest_look_that_decides_counts() -> None:
    declared = replace(POLICY, looks=(3, 5))
    early = only([0.1, 0.2, 0.15, 1.9, 1.5], declared)
    assert (early.status, early.look, early.replicates, early.estimate) == (Status.PASS, 0, 3, pytest.approx(0.15))
    late = only([0.1, 1.9, 0.2, 0.1, 0.15], declared)
    assert (late.status, late.look, late.looks) == (Status.PASS, 1, (3, 5))
    assert late.error < 0.05
    waiting = only([0.1, 1.9, 0.2], declared, planned=5)
    assert (waiting.status, waiting.look) == (Status.INCONCLUSIVE, 0)
    assert waiting.replicates_needed == 5


def test_a_pass_does_not_outlive_what_speaks_against_it() -> None:
    declared = replace(POLICY, looks=(3, 5))
    assert only([0.1, 0.2, 0.15, 9.0, 9.5], declared).status is Status.INCONCLUSIVE, "the mean of all is beyond"
    assert only([0.1, 0.2, 0.15, None, 0.1], declared).status is Status.FAIL, "a seed diverged"


def test_a_look_that_was_not_declared_costs_power_and_says_so() -> None:
    drops = [0.4, 1.9, 0.3, 0.5, 0.4]
    fresh = only(drops)
    assert (fresh.status, fresh.error) == (Status.PASS, pytest.approx(0.05))
    peeked = only(drops, replace(POLICY, looks=(3,), shown=(3,)))
    assert (peeked.status, peeked.declared, peeked.look) == (Status.INCONCLUSIVE, False, 1)
    assert peeked.error == pytest.approx(0.005)
    assert only(drops + [0.4] * 6, replace(POLICY, looks=(3,), shown=(3, 5))).error == pytest.approx(0.01 / 6)


def test_what_a_store_remembers_is_about_the_same_networks() -> None:
    records = [Record(3, (3,), ("a", "b", "c")), Record(5, (3,), ("a", "b", "c", "d", "e"))]

    def looks(key: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        policy = with_history(replace(POLICY, looks=(4, 6)), records, [replace(result("dense", 0, 0, 90.0), key=key)])
        return policy.looks, policy.shown

    assert looks("a") == ((3,), (3, 5)), "what is declared later declares nothing"
    assert looks("x") == ((4, 6), ()), "another experiment of the same name"


@pytest.mark.parametrize("extensions", [(3, 4, 5, 6), (2, 3, 4, 5, 6, 7, 8)])
def test_peeking_until_it_passes_keeps_what_it_says(extensions: tuple[int, ...]) -> None:
    """At the margin, with the product's own schedule, by its arithmetic."""
    error = {look.replicates: look.error for look in schedule(extensions[-1], 0.05, extensions[:1], extensions)}
    samples = np.random.default_rng(7).standard_normal((100_000, extensions[-1]))
    passes = np.zeros(len(samples), bool)
    for n in extensions:
        first = samples[:, :n]
        passes |= first.mean(1) / first.std(1, ddof=1) * np.sqrt(n) <= stats.t.ppf(error[n], n - 1)
    assert passes.mean() < 1 - promise(0.95, declared=False) + 0.0023  # three standard errors of the simulation
