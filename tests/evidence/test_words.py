"""Numbers as a reader sees them."""

from __future__ import annotations

import pytest

from ticketsmith.evidence import words


@pytest.mark.parametrize(
    ("amount", "told"),
    [(0, "0 B"), (999, "999 B"), (24_000, "24 kB"), (118_112, "118 kB"), (1_234_567, "1.2 MB"), (5e9, "5.0 GB")],
)
def test_sizes_are_read_at_a_glance(amount: float, told: str) -> None:
    assert words.size(amount) == told


@pytest.mark.parametrize(
    ("ratio", "told"),
    [(1.0, "1.00"), (1.002, "1.002"), (0.9996, "0.9996"), (1.00001, "1.0000"), (1.024, "1.02"), (12.34, "12.3")],
)
def test_a_ratio_beside_1_is_not_rounded_to_it(ratio: float, told: str) -> None:
    """An interval that does not hold 1 must not look as if it did."""
    assert words.times(ratio) == f"{told}\u00d7"
