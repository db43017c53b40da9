"""Power before money: chances that a simulation confirms, and what a test split cannot show."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ticketsmith.evidence.power import LIKELY, by_look, chance_to_pass, examples_needed, likely_replicates


def test_the_chance_to_pass_is_that_of_the_test() -> None:
    values = 0.4 + 0.8 * np.random.default_rng(0).standard_normal((40_000, 5))
    bounds = values.mean(1) + stats.t.ppf(0.95, 4) * values.std(1, ddof=1) / np.sqrt(5)
    assert chance_to_pass(5, 0.05, 0.4, 1.0, 0.8) == pytest.approx((bounds <= 1.0).mean(), abs=0.008)
    assert chance_to_pass(5, 0.05, 1.0, 1.0, 0.8) == pytest.approx(0.05, abs=1e-6)


def test_the_likely_number_is_the_first_that_is_likely() -> None:
    number = likely_replicates(1.0, 0.8, lambda n: 0.05)
    assert number is not None
    assert chance_to_pass(number, 0.05, 0.0, 1.0, 0.8) >= LIKELY > chance_to_pass(number - 1, 0.05, 0.0, 1.0, 0.8)
    assert likely_replicates(1.0, 0.8, {3: 0.02, 8: 0.02}.get) == 8, "at a look that there is"
    assert likely_replicates(0.01, 0.8, lambda n: 0.05) is None


def test_looks_decide_more_and_more_and_err_no_more_than_promised() -> None:
    none, margin, double = by_look([0.0, 1.0, 2.0], 1.0, 0.7, (3, 5, 8), 0.95)
    assert none.passed[0] < none.passed[1] < none.passed[2]
    assert none.passed[2] > 0.9 < double.failed[2]
    assert margin.passed[2] == pytest.approx(0.05, abs=0.006)


def test_how_many_examples_can_show_a_margin() -> None:
    needed = examples_needed(0.0005, 0.0056)
    assert 60_000 < needed < 62_000
    assert examples_needed(0.02, 0.05) < 400
