"""Numbers as a reader sees them."""

from __future__ import annotations

import pytest

from ticketsmith import units


@pytest.mark.parametrize(
    ("amount", "told"),
    [(0, "0 B"), (999, "999 B"), (24_000, "24 kB"), (118_112, "118 kB"), (1_234_567, "1.2 MB"), (5e9, "5.0 GB")],
)
def test_sizes_are_read_at_a_glance(amount: float, told: str) -> None:
    assert units.size(amount) == told


@pytest.mark.parametrize(
    ("ratio", "told"),
    [
        (1.0, "1.00"),
        (456.7, "457"),
        (1.002, "1.002"),
        (0.9996, "0.9996"),
        (1.00001, "1.0000"),
        (1.024, "1.02"),
        (12.34, "12.3"),
    ],
)
def test_a_ratio_beside_1_is_not_rounded_to_it(ratio: float, told: str) -> None:
    """An interval that does not hold 1 must not look as if it did."""
    assert units.times(ratio) == f"{told}\u00d7"


@pytest.mark.parametrize(
    ("fraction", "text"),
    [(0.893, "89.3 %"), (0.99964, "99.964 %"), (0.0287, "2.9 %"), (1.0, "100.0 %"), (0.0, "0.0 %"), (0.9853, "98.5 %")],
)
def test_shares_never_round_to_the_whole(fraction: float, text: str) -> None:
    assert units.share(fraction) == text


def test_numbers_in_words() -> None:
    assert [units.duration(s) for s in (0.84, 42, 60, 725, 12000, 187000)] == [
        "0.8 s", "42 s", "1 min", "12 min 5 s", "3 h 20 min", "2 d 3 h",
    ]  # fmt: skip
    assert units.flops(3.21e15) == "3.21 PFLOP"
    assert units.listed(["a", "b", "c"]) == "a, b and c"


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0.0, "$0.00"),
        (0.0041, "$0.0041"),
        (0.0996, "$0.10"),
        (1.234, "$1.23"),
        (999.99, "$999.99"),
        (12345.6, "$12,346"),
    ],
)
def test_money_in_words(amount: float, text: str) -> None:
    assert units.money(amount, "USD") == text
    assert units.money(amount, "CHF") == f"{text[1:]} CHF"


@pytest.mark.parametrize(
    ("amount", "text"),
    [(0.2, "1"), (84, "84"), (1234, "1,200"), (999_000, "1.0 million"), (12.4e6, "12 million"), (3e9, "3.0 billion")],
)
def test_counts_in_words(amount: float, text: str) -> None:
    assert units.count(amount) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(2.1, "2.1 s"), (0.41, "410 ms"), (83.4e-6, "83 \u00b5s"), (1.24e-6, "1.2 \u00b5s"), (5e-9, "5.0 ns")],
)
def test_latencies_in_words(seconds: float, text: str) -> None:
    assert units.latency(seconds) == text


def test_hourly_prices_keep_their_figures() -> None:
    assert [units.hourly(price, "USD") for price in (0.526, 0.1, 3, 0.0846)] == ["$0.526", "$0.10", "$3.00", "$0.0846"]
