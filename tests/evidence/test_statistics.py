"""The t statistics against SciPy, and the promises that the docstrings make."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ticketsmith.evidence.statistics import deviation, mean, one_sided_bounds, replicates_needed, t_interval, t_quantile

values = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=12)


@given(values, st.floats(0.5, 0.999))
def test_t_interval_is_that_of_scipy(sample: list[float], confidence: float) -> None:
    interval = t_interval(sample, confidence)
    assert interval.low is not None
    assert interval.high is not None
    error = np.std(sample, ddof=1) / math.sqrt(len(sample))
    reach = stats.t.ppf(0.5 + confidence / 2, len(sample) - 1) * error
    assert interval.mean == pytest.approx(np.mean(sample), abs=1e-9)
    assert interval.high - interval.mean == pytest.approx(reach, rel=1e-6, abs=1e-9)
    assert interval.mean - interval.low == pytest.approx(reach, rel=1e-6, abs=1e-9)


@given(values, st.floats(-5, 5))
def test_the_upper_bound_inverts_the_one_sided_test(sample: list[float], margin: float) -> None:
    """The bound is at most the margin exactly when SciPy's t test rejects "the mean is at least the margin"."""
    bounds = one_sided_bounds(sample, 0.95)
    assert bounds is not None
    if deviation(sample) < 1e-6 or abs(bounds[1] - margin) < 1e-9:
        return
    p = stats.ttest_1samp(sample, margin, alternative="less").pvalue
    assert (bounds[1] <= margin) == (p <= 0.05)


@given(values)
def test_order_does_not_matter(sample: list[float]) -> None:
    assert t_interval(sample) == t_interval(sample[::-1])


def test_degenerate_samples() -> None:
    assert t_interval([3.0]).low is None
    assert one_sided_bounds([3.0]) is None
    same = t_interval([3.0, 3.0, 3.0])
    assert (same.low, same.high) == (3.0, 3.0)
    assert one_sided_bounds([3.0, 3.0]) == (3.0, 3.0)
    with pytest.raises(ValueError, match="no values"):
        mean([])
    with pytest.raises(ValueError, match="confidence"):
        t_interval([1.0, 2.0], 95)


def test_a_one_sided_bound_is_nearer_than_the_two_sided_one() -> None:
    sample = [1.0, 1.4, 0.8, 1.1]
    bounds, interval = one_sided_bounds(sample, 0.95), t_interval(sample, 0.95)
    assert bounds is not None
    assert interval.high is not None
    assert bounds[1] < interval.high
    assert bounds[1] == pytest.approx(t_interval(sample, 0.90).high)


def test_t_quantile_table() -> None:
    assert t_quantile(0.95, 4) == pytest.approx(2.132, abs=5e-4)
    assert t_quantile(0.975, 1) == pytest.approx(12.706, abs=5e-4)


def test_replicates_needed_is_the_first_size_that_decides() -> None:
    sample = [1.0, 2.2, 1.6]
    needed = replicates_needed(sample, 2.0, lambda n: 0.05)
    assert needed is not None
    assert replicates_needed(sample, 2.0, lambda n: 0.05 if n % 50 == 0 else None) == 50, "the next look that there is"

    def bound(n: int) -> float:
        return float(np.mean(sample) + stats.t.ppf(0.95, n - 1) * np.std(sample, ddof=1) / math.sqrt(n))

    assert bound(needed) < 2.0 <= bound(needed - 1)
    assert replicates_needed([2.0, 2.0], 2.0, lambda n: 0.05) is None
    assert replicates_needed([1.0], 2.0, lambda n: 0.05) is None
