"""Small parts of the report: speeds over seeds, thinned curves, labels, Markdown, the table as numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ticketsmith.evidence.findings import Findings
from ticketsmith.evidence.speed import best, speeds
from ticketsmith.report.figures.loss import POINTS, thinned
from ticketsmith.report.figures.parts import log_ticks, spread
from ticketsmith.report.markdown import escaped, fenced
from ticketsmith.report.tables import frame

from ..evidence.synthetic import benchmark, experiment


@given(st.lists(st.floats(0, 340), min_size=1, max_size=8))
def test_labels_keep_their_distance_and_stay_in_the_plot(tops: list[float]) -> None:
    placed = spread(tops, 16, 340)
    assert all(after - before >= 16 - 1e-9 for before, after in zip(sorted(placed), sorted(placed)[1:], strict=False))
    assert max(placed) <= 340
    assert min(placed) >= -1e-9


def test_labels_that_do_not_collide_stay_where_they_are() -> None:
    assert spread([10, 100, 50], 16, 340) == [10, 100, 50]


@given(st.integers(1, 5000))
def test_thinned_curves_keep_both_ends(count: int) -> None:
    steps = thinned(range(0, count * 10, 10))
    assert (steps[0], steps[-1]) == (0, (count - 1) * 10)
    assert len(steps) == min(count, POINTS)
    assert steps == sorted(set(steps))


def test_ticks_of_a_log_axis() -> None:
    assert log_ticks(1.2, 100) == [2, 5, 10, 20, 50, 100]
    assert log_ticks(1e-6, 100) == [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1, 10, 100]


def test_speeds_over_seeds_claim_no_more_than_any_seed() -> None:
    one = benchmark(experiment(seeds=1, levels=2))
    timings = [timing for timing in one.timings if (timing.variant, timing.level) == ("ticket", 2)]
    other = [
        replace(timing, seed=1, speedup=timing.speedup * 4, speedup_low=timing.speedup_low * 4) for timing in timings
    ]
    both = speeds(replace(one, timings=(*timings, *other)))
    alone = speeds(replace(one, timings=tuple(timings)))
    for combined, single in zip(both, alone, strict=True):
        assert combined.speedup == pytest.approx(2 * single.speedup)
        assert (combined.low, combined.seeds) == (single.low, 2)
    assert best(both, "ticket", 2, batch_size=8) is None
    assert speeds(None) == []


def test_markdown_escapes() -> None:
    assert escaped("a|b\n<i>*x*</i> `c` [d](e)") == r"a\|b \<i\>\*x\*\</i\> \`c\` \[d\](e)"
    assert fenced("```\ncode\n```") == "````\n```\ncode\n```\n````"


def test_the_table_as_numbers(findings: Callable[[str], Findings]) -> None:
    table = frame(findings("full"))
    assert len(table) == 37
    ticket = table[(table.variant == "ticket") & (table.level == 5)].iloc[0]
    summary = findings("full").summary("ticket", 5)
    assert summary is not None
    assert ticket["accuracy"] == summary.mean
    assert (ticket["gate"], ticket["runtime"]) == ("PASS", "csr-cpu")
    assert table["gate"].iloc[0] == "reference"
    assert table["speedup"].isna().sum() == 1 + 2 * 12
