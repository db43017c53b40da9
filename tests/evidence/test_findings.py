"""What is concluded of a whole experiment."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from ticketsmith.errors import TicketSmithError
from ticketsmith.evidence.findings import conclude
from ticketsmith.evidence.gates import judge
from ticketsmith.evidence.sweet_spot import walk
from ticketsmith.evidence.verdicts import Gate, GatePolicy, Method

from .synthetic import experiment, result

POLICY = GatePolicy((Gate("accuracy", max_drop=2.0),), target_sparsity=0.5)


@pytest.mark.parametrize("method", ["non-inferiority", "point"])
def test_false_claims_on_plateaus_with_gaps_are_as_rare_as_promised(method: Method) -> None:
    """A plateau just beyond the margin, interrupted by levels that fail for sure: the search must not run across it.

    Without a test there is no promise, and the answer still never lies beyond a level that fails.
    """
    random = np.random.default_rng(11)
    policy = GatePolicy(POLICY.gates, method=method)
    truth = [0.5, 2.1, 2.1, 6.0, 2.1, 2.1, 6.0, 2.1, 2.1]
    trials, false = 150, 0
    for _ in range(trials):
        runs = [result("dense", 0, seed, 99.0) for seed in range(3)]
        for level, drop in enumerate(truth, start=1):
            drops = random.normal(drop, 0.4, 3)
            runs += [result("ticket", level, seed, 99.0 - drops[seed]) for seed in range(3)]
        search = walk(judge(runs, policy, "test"))
        assert max(search.levels, default=0) < 4
        false += max(search.levels, default=0) > 1
    assert method == "point" or false <= trials * 0.05 + 3 * np.sqrt(trials * 0.05 * 0.95)


def test_no_results() -> None:
    with pytest.raises(TicketSmithError, match="'empty' has no runs yet"):
        conclude("empty", [], POLICY)


def test_the_order_of_results_does_not_matter() -> None:
    runs = experiment(3, 6)
    mixed = runs[:]
    random.Random(1).shuffle(mixed)
    assert conclude("name", runs, POLICY) == conclude("name", mixed, POLICY)


def test_the_evidence_of_a_whole_experiment() -> None:
    findings = conclude("name", experiment(), POLICY)
    assert findings.variants == ("dense", "ticket", "random_reinit", "random_ticket")
    assert findings.sweet_spot is not None
    assert findings.knee is not None
    assert findings.target is not None
    assert findings.cost.ratio == findings.sweet_spot.level + 2, "dense, the levels up to it, and the one after it"
    summary = findings.summary("ticket", 3)
    assert summary is not None
    assert summary.replicates == 5
    assert [entry.level for entry in findings.series("ticket")] == list(range(1, 13))


def test_what_was_not_trained_has_learned_nothing() -> None:
    runs = [result("dense", 0, seed, 99.0 + 0.05 * seed) for seed in range(2)]
    runs += [replace(result("post_training", 1, seed, 98.5 + 0.1 * seed, early=0), steps=0) for seed in range(2)]
    assert {entry.variant for entry in conclude("name", runs, POLICY).learning} == {"dense"}
