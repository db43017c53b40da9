"""The load test, in a time that tests make pass: arrivals do not wait for answers."""

from __future__ import annotations

import numpy as np
import pytest

from tests.inference.rivals import Clock
from ticketsmith.evidence.serving import LoadStep
from ticketsmith.inference.tables.load import Server, arrivals, highest_rate, step


def _server(clock: Clock, seconds: float) -> Server:
    def call() -> None:
        clock.now += seconds

    def sleep(seconds: float) -> None:
        clock.now += max(seconds, 1e-5)

    return Server(call, clock, sleep)


def test_arrivals_are_a_poisson_process() -> None:
    due = arrivals(50.0, 20_000, seed=1)
    gaps = np.diff(due)
    assert gaps.min() >= 0
    assert gaps.mean() == pytest.approx(1 / 50, rel=0.03)
    assert gaps.std() == pytest.approx(1 / 50, rel=0.03)  # exponential: as wide as long
    np.testing.assert_array_equal(due, arrivals(50.0, 20_000, seed=1))


def test_a_latency_counts_from_the_arrival_not_from_the_call() -> None:
    """Three requests at once wait for each other, although each call takes but a second."""
    latencies = _server(Clock(), 1.0).serve(np.array([1.0, 1.0, 1.0, 10.0]))
    np.testing.assert_allclose(latencies, [1.0, 2.0, 3.0, 1.0], atol=1e-4)


def test_waiting_is_that_of_queueing_theory() -> None:
    """Poisson arrivals, equal services (M/D/1): the mean wait is rho s / (2 (1 - rho)) (Pollaczek and Khinchine)."""
    service, load = 0.01, 0.7
    latencies = _server(Clock(), service).serve(arrivals(load / service, 15_000, seed=2))
    assert latencies.mean() - service == pytest.approx(load * service / (2 * (1 - load)), rel=0.15)


def test_a_step_says_whether_the_target_was_kept() -> None:
    easy = step(_server(Clock(), 0.001), 10.0, target=0.01, percentile=0.99, seed=0)
    assert easy.kept
    assert easy.median_ms == pytest.approx(1.0, rel=0.01)
    assert easy.answered_rate == pytest.approx(10.0, rel=0.2)
    late = step(_server(Clock(), 0.02), 10.0, target=0.01, percentile=0.99, seed=0)
    assert not late.kept
    behind = step(_server(Clock(), 0.2), 10.0, target=1e6, percentile=0.99, seed=0)
    assert not behind.kept
    assert behind.answered_rate == pytest.approx(5.0, rel=0.05)


def test_the_highest_rate_is_found() -> None:
    clock = Clock()
    rate, steps = highest_rate(lambda rate: step(_server(clock, 0.01), rate, 0.05, 0.99, seed=3), capacity=100.0)
    tried = sorted(one.rate for one in steps)
    assert 60 < rate < 95  # a worker that takes 10 ms is busy all the time at 100 a second
    assert max(one.rate for one in steps if one.kept) == rate
    assert tried[0] == pytest.approx(25.0)
    assert [one for one in steps if one.rate > rate and not one.kept]


def test_one_bad_moment_of_the_machine_is_not_the_models() -> None:
    bad = {3}

    def attempt(rate: float) -> LoadStep:
        attempts.append(rate)
        kept = rate < 80 and len(attempts) not in bad
        return LoadStep(rate, rate, 200, 1.0, 1.0, kept)

    attempts: list[float] = []
    assert highest_rate(attempt, 100.0)[0] == pytest.approx(80, rel=0.05)
    bad = set(range(10_000))
    rate, steps = highest_rate(attempt, 100.0)
    assert rate == 0.0
    assert not any(one.kept for one in steps)
    assert steps[-1].rate < 1.0
