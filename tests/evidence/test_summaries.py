"""Means over replicates, learning speed, cost and controls: the sums by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from ticketsmith.evidence.controls import Regime, compare, regimes
from ticketsmith.evidence.cost import cost
from ticketsmith.evidence.gates import judge
from ticketsmith.evidence.learning import early_stops
from ticketsmith.evidence.summarise import summarise
from ticketsmith.evidence.variants import display, ordered, subject
from ticketsmith.evidence.verdicts import Gate, GatePolicy

from .synthetic import ACCURACY, experiment, result


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


def test_learning_speed_without_a_step_or_a_partner() -> None:
    runs = [result("dense", 0, 0, 99.0, early=0), result("ticket", 1, 0, 99.0, early=500)]
    assert all(entry.faster is None for entry in early_stops(runs))
    assert early_stops([result("ticket", 1, 0, None)]) == []


def test_the_cost_of_finding_the_ticket_stops_at_the_sweet_spot() -> None:
    runs = experiment(seeds=2, levels=4)
    bill = cost(runs, sweet_level=3)
    assert bill.total.runs == 2 * (1 + 3 * 4)
    assert bill.finding.runs == 2 * (1 + 3)
    assert bill.controls.runs == 2 * 2 * 4
    assert bill.ratio == pytest.approx(4.0)
    assert bill.total.flops == pytest.approx(math.fsum(run.training_flops for run in runs))
    assert math.fsum(part.flops for part in bill.by_variant.values()) == pytest.approx(bill.total.flops)
    assert cost(runs, sweet_level=None).finding.runs == 2 * 5


def test_unknown_times_are_counted_not_guessed() -> None:
    timed = [result("dense", 0, 0, 99.0), result("dense", 0, 1, 99.0, seconds=None)]
    assert (cost(timed, None).total.seconds, cost(timed, None).total.untimed) == (3.0, 1)
    free = [replace(run, seconds=None, training_flops=0.0) for run in timed]
    assert (cost(free, None).total.seconds, cost(free, None).ratio) == (None, None)


def test_controls_are_compared_by_seed() -> None:
    runs = [result("ticket", 1, seed, 98.0 + 10 * seed) for seed in range(3)]
    runs += [result("random_reinit", 1, seed, 97.0 + 10 * seed) for seed in range(3)]
    (comparison,) = compare(runs, ACCURACY, "test", "final")
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


def test_names_and_their_order() -> None:
    shuffled = ["random_ticket", "mine", "ticket", "dense", "one_shot", "random_reinit"]
    assert ordered(shuffled) == ("dense", "ticket", "one_shot", "mine", "random_reinit", "random_ticket")
    assert (display("ticket"), display("mine")) == ("Winning ticket (IMP)", "mine")
    assert (subject(["dense", "one_shot", "random_reinit"]), subject(["dense"])) == ("one_shot", "ticket")
