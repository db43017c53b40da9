"""Means over replicates, learning speed, cost and controls: the sums by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from ticketsmith.evidence.controls import Regime, compare, regimes
from ticketsmith.evidence.cost import cost
from ticketsmith.evidence.gates import judge
from ticketsmith.evidence.learning import early_stops
from ticketsmith.evidence.results import CurvePoint
from ticketsmith.evidence.summarise import summarise
from ticketsmith.evidence.variants import ordered, subject
from ticketsmith.evidence.verdicts import Gate, GatePolicy, Status

from .synthetic import ACCURACY, STEPS, experiment, result


def test_draws_are_averaged_within_a_replicate_first() -> None:
    runs = [result("random_reinit", 1, 0, value, draw=draw) for draw, value in enumerate([90.0, 92.0, 94.0])]
    runs.append(result("random_reinit", 1, 1, 96.0))
    (summary,) = summarise(runs, ["accuracy"], "validation", "final")
    assert (summary.mean, summary.replicates, summary.values) == (94.0, 2, (92.0, 96.0))


def test_diverged_runs_have_no_mean() -> None:
    runs = [result("ticket", 1, 0, None), result("ticket", 1, 1, 97.0), result("ticket", 2, 0, None)]
    (summary,) = summarise(runs, ["accuracy"], "test", "final")
    assert (summary.level, summary.replicates, summary.low) == (1, 1, None)


def test_every_split_and_moment_is_its_own() -> None:
    runs = [result("dense", 0, seed, 98.0 + seed, test=90.0 + seed) for seed in range(3)]
    assert summarise(runs, ["accuracy"], "validation", "final")[0].mean == 99.0
    on_test = summarise(runs, ["accuracy", "loss"], "test", "early_stop")
    assert [summary.metric for summary in on_test] == ["accuracy", "loss"]
    assert on_test[0].mean == 91.0


def test_learning_speed_is_a_paired_geometric_mean() -> None:
    runs = [result("dense", 0, 0, 99.0, early=1000), result("dense", 0, 1, 99.0, early=800)]
    runs += [result("ticket", 1, 0, 99.0, early=500), result("ticket", 1, 1, 99.0, early=1600)]
    dense, ticket = early_stops(runs)
    assert (dense.faster, dense.step.mean) == (None, 900.0)
    assert ticket.faster is not None
    assert ticket.faster.low is not None
    assert ticket.faster.mean == pytest.approx(1.0)
    assert ticket.faster.low < 1.0


def test_the_draws_of_a_seed_are_averaged_as_logarithms_too() -> None:
    runs = [result("dense", 0, seed, 99.0, early=1000) for seed in range(2)]
    runs += [
        result("random_reinit", 1, seed, 99.0, draw=d, early=e) for seed in range(2) for d, e in enumerate((500, 2000))
    ]
    assert early_stops(runs)[1].faster.mean == pytest.approx(1.0)  # the mean of 500 and 2000 would say 0.8


def test_an_early_stop_at_the_last_iteration_is_censored() -> None:
    runs = [result("dense", 0, 0, 99.0, early=STEPS), result("dense", 0, 1, 99.0, early=800)]
    runs += [result("ticket", 1, seed, 99.0, early=400 + 1600 * seed) for seed in range(2)]
    dense, ticket = early_stops(runs)
    assert (dense.runs, dense.censored) == (2, 1)
    assert (ticket.censored, ticket.dense_censored) == (1, 1)


def test_equal_ratios_are_no_certainty() -> None:
    """Early stops are known to one evaluation: two seeds with one ratio do not prove that every seed has it."""
    rows = [CurvePoint(step, 0.1, {"loss": 0.1}) for step in range(0, STEPS, 200)]
    runs = [result("dense", 0, seed, 99.0, early=1000, curve=rows) for seed in range(2)]
    runs += [result("ticket", 1, seed, 99.0, early=800, curve=rows) for seed in range(2)]
    faster = early_stops(runs)[1].faster
    assert faster.mean == pytest.approx(1.25)
    assert faster.low < 1.0 < faster.high


def test_equal_networks_are_one_replicate() -> None:
    runs = [result("dense", 0, seed, 98.0, weights="same") for seed in range(3)]
    (summary,) = summarise(runs, ["accuracy"], "test", "final")
    assert (summary.replicates, summary.seeds, summary.low) == (1, 3, None)
    unknown = [replace(run, weights="") for run in runs]  # made by hand: all that was measured is equal
    assert summarise(unknown, ["accuracy"], "test", "final")[0].replicates == 1
    other = [replace(run, weights=str(run.seed)) for run in runs]
    assert summarise(other, ["accuracy"], "test", "final")[0].replicates == 3


def test_an_interval_is_no_narrower_than_the_metric_can_tell() -> None:
    runs = [result("dense", 0, seed, 98.0, examples={"test": 400}) for seed in range(2)]
    (summary,) = summarise(runs, ["accuracy"], "test", "final")
    assert summary.floor is not None
    assert summary.high - summary.mean == pytest.approx(12.706 * 0.25 / math.sqrt(2), abs=1e-3)  # one example of 400


def test_learning_speed_without_a_step_or_a_partner() -> None:
    runs = [result("dense", 0, 0, 99.0, early=0), result("ticket", 1, 0, 99.0, early=500)]
    assert all(entry.faster is None for entry in early_stops(runs))
    assert early_stops([result("ticket", 1, 0, None)]) == []


def test_the_cost_of_finding_the_ticket_stops_where_the_search_did() -> None:
    runs = experiment(seeds=2, levels=4)
    bill = cost(runs, last_level=3)
    assert bill.total.runs == 2 * (1 + 3 * 4)
    assert bill.finding.runs == 2 * (1 + 3)
    assert bill.controls.runs == 2 * 2 * 4
    assert bill.ratio == pytest.approx(4.0)
    assert bill.total.flops == pytest.approx(math.fsum(run.training_flops for run in runs))
    assert math.fsum(part.flops for part in bill.by_variant.values()) == pytest.approx(bill.total.flops)
    assert cost(runs, last_level=None).finding.runs == 2 * 5


def test_unknown_times_are_counted_not_guessed() -> None:
    timed = [result("dense", 0, 0, 99.0), result("dense", 0, 1, 99.0, seconds=None)]
    assert (cost(timed, None).total.seconds, cost(timed, None).total.untimed) == (3.0, 1)
    free = [replace(run, seconds=None, training_flops=0.0) for run in timed]
    assert (cost(free, None).total.seconds, cost(free, None).ratio) == (None, None)


def test_controls_are_compared_by_seed() -> None:
    runs = [result("ticket", 1, seed, 98.0 + 10 * seed) for seed in range(3)]
    runs += [result("random_reinit", 1, seed, 97.0 + 10 * seed) for seed in range(3)]
    (comparison,) = compare(runs, ACCURACY, "test", GatePolicy(()))
    assert comparison.advantage.mean == pytest.approx(1.0)
    assert comparison.significant  # the spread between seeds, ten times the difference, is gone


def test_regimes() -> None:
    policy = GatePolicy((Gate("accuracy", max_drop=2.0),), method="point")
    runs = [result("dense", 0, 0, 99.0)]
    for level, (ticket, control) in enumerate([(99, 98), (98.5, 90), (80, 70)], start=1):
        runs += [result("ticket", level, 0, ticket), result("random_ticket", level, 0, control)]
    runs.append(result("ticket", 4, 0, 99.0))
    found = regimes(judge(runs, policy, "test"))
    assert found == {1: Regime.TRIVIAL, 2: Regime.TICKET, 3: Regime.LOST, 4: Regime.UNDECIDED}


def test_a_control_that_diverged_is_no_control_that_fails() -> None:
    policy = GatePolicy((Gate("accuracy", max_drop=2.0),))
    runs = [result("dense", 0, seed, 99.0) for seed in range(3)]
    runs += [result("ticket", 1, seed, 98.9 - 0.1 * seed) for seed in range(3)]
    runs += [result("random_ticket", 1, seed, None if seed == 1 else 90.0 + seed) for seed in range(3)]
    verdicts = judge(runs, policy, "test")
    control = next(verdict for verdict in verdicts if verdict.variant == "random_ticket")
    assert (control.status, control.diverged) == (Status.INCONCLUSIVE, (1,))
    assert control.control
    assert regimes(verdicts) == {1: Regime.UNDECIDED}
    undefined = [result(*r.place[:3], float("nan")) if (r.variant, r.seed) == ("random_ticket", 1) else r for r in runs]
    assert regimes(judge(undefined, policy, "test")) == {1: Regime.UNDECIDED}
    (comparison,) = compare(runs, ACCURACY, "test", GatePolicy(()))
    assert (comparison.diverged, comparison.advantage.n) == ((1,), 2)


def test_the_order_of_variants() -> None:
    shuffled = ["random_ticket", "mine", "ticket", "dense", "one_shot", "random_reinit"]
    assert ordered(shuffled) == ("dense", "ticket", "one_shot", "mine", "random_reinit", "random_ticket")
    assert (subject(["dense", "one_shot", "random_reinit"]), subject(["dense"])) == ("one_shot", "ticket")
