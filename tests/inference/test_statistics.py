"""The statistics of rounds, on numbers whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from ticketsmith.inference.measuring.statistics import Bootstrap, noise, resolution


def test_the_interval_of_a_constant_ratio_is_a_point() -> None:
    reference = np.linspace(1.0, 2.0, 50)
    ratio = Bootstrap(50, 0.95).ratio(reference, reference / 4)
    assert (ratio.median, ratio.low, ratio.high) == pytest.approx((4.0, 4.0, 4.0))


@pytest.mark.parametrize("rounds", [1, 2, 15, 100])
def test_rank_resampling_is_the_plain_bootstrap_of_the_median(rounds: int) -> None:
    values = np.random.default_rng(3).lognormal(size=rounds)
    ratio = Bootstrap(rounds, 0.9).ratio(values, np.ones(rounds))
    ranks = np.random.default_rng(0).integers(0, rounds, (2000, rounds))
    medians = np.median(np.sort(values)[ranks], axis=1)
    assert (ratio.low, ratio.high) == pytest.approx(tuple(np.quantile(medians, (0.05, 0.95))))
    assert ratio.low <= ratio.median <= ratio.high


def test_intervals_cover_as_often_as_they_promise() -> None:
    random, bootstrap = np.random.default_rng(5), Bootstrap(60, 0.9)
    held = 0
    for _ in range(300):
        ratio = bootstrap.ratio(random.lognormal(0, 0.1, 60), random.lognormal(0, 0.1, 60))
        held += ratio.low <= 1.0 <= ratio.high
    assert 0.84 <= held / 300 <= 0.98


def test_a_copy_that_lies_badly_in_memory_sets_the_resolution() -> None:
    rounds = np.random.default_rng(0).lognormal(0, 0.05, (200, 1))
    assert resolution(np.tile(rounds, 5)) == pytest.approx(1.0)
    assert resolution(rounds * [1.0, 1.0, 1.02, 1.0, 1.0]) == pytest.approx(1.02)
    widened = Bootstrap(10, 0.95).ratio(np.full(10, 1.01), np.ones(10)).widened(1.02)
    assert widened.low < 1.0 < widened.high


def test_noise_is_told_in_words() -> None:
    assert noise(np.ones(100)) == []
    spread = np.tile([1.0, 1.0, 1.0, 2.0], 25)
    assert noise(spread) == ["the slow rounds of the reference (p90) take 2.0 times its fast ones (p10)"]
    assert noise(np.linspace(1.0, 1.3, 90)) == [
        "the reference got 19 % slower from the first third of the rounds to the last"
    ]
    assert "faster" in noise(np.linspace(1.3, 1.0, 90))[0]
