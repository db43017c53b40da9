"""From which sparsity on skipping zeros pays: the crossing by hand, and what is said where it is not clear."""

from __future__ import annotations

import pytest

from ticketsmith.evidence.break_even import Point, break_even
from ticketsmith.report.sentences.deployment import break_even as in_words


def points(*measured: tuple[float, float, float]) -> list[Point]:
    """Sparsity, speed-up, and the half-width of its interval as a factor."""
    return [Point(sparsity, ratio, ratio / spread, ratio * spread) for sparsity, ratio, spread in measured]


def test_a_call_that_costs_what_its_weights_cost_breaks_even_where_it_must() -> None:
    """Half as fast as dense at equal weights, so that it is as fast with half of them."""
    found = break_even(points((0.2, 0.5 / 0.8, 1.02), (0.8, 0.5 / 0.2, 1.02)))
    assert found is not None
    assert (found.kind, found.sparsity) == ("at", pytest.approx(0.5))
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0.5 < found.high
    assert 0.5 / (1 - found.low) * 1.02 == pytest.approx(1.0)
    assert in_words(found) == "50 % (49 % to 51 %)"
    assert in_words(break_even(points((0.2, 0.5 / 0.8, 1.001), (0.8, 0.5 / 0.2, 1.001)))) == "50 %"


@pytest.mark.parametrize(
    ("measured", "text"),
    [
        ([(0.5, 1.2, 1.1), (0.9, 4.0, 1.1)], "below 50 %"),
        ([(0.0, 1.2, 1.1), (0.9, 4.0, 1.1)], "at every sparsity"),
        ([(0.5, 0.2, 1.1), (0.98, 0.9, 1.05)], "none up to 98.0 %"),
        ([(0.5, 0.2, 1.1), (0.98, 1.01, 1.05)], "none up to 98.0 %"),
        ([(0.3, 0.7, 1.1), (0.5, 1.02, 1.1), (0.9, 3.0, 1.1)], "between 30 % and 90 %"),
        ([(0.5, 1.02, 1.1), (0.9, 3.0, 1.1)], "at 90 % or below"),
        ([(0.5, 1.5, 1.1), (0.9, 1.02, 1.1)], "not clear"),
        ([(0.99, 0.9, 1.01), (0.999, 3.0, 1.01)], "99.18 % (99.17 % to 99.20 %)"),
        ([(0.5, 0.5, 1.01), (1.0, 2.0, 1.01)], "75 %"),
    ],
)
def test_what_is_not_clear_is_not_interpolated(measured: list[tuple[float, float, float]], text: str) -> None:
    assert in_words(break_even(points(*measured))) == text


def test_dense_alone_has_no_break_even() -> None:
    assert break_even([]) is None
    assert break_even(points((0.0, 1.3, 1.1))) is None
