"""The sweet spot is where the fixed sequence of tests ends; the target; the knee."""

from __future__ import annotations

import math

import pytest

from ticketsmith.evidence.sweet_spot import find, knee, target, walk
from ticketsmith.evidence.verdicts import Gate, GatePolicy, Status, Summary, SweetSpot, Verdict

PASS, FAIL, UNSURE = Status.PASS, Status.FAIL, Status.INCONCLUSIVE
GATE = Gate("accuracy", max_drop=2.0)


def ladder(statuses: list[Status]) -> list[Verdict]:
    return [
        Verdict("ticket", level, 1 - 0.8**level, "test", GATE, status, 0.5, 0.9, 5)
        for level, status in enumerate(statuses, start=1)
    ]


def spot_of(statuses: list[Status], variant: str = "ticket") -> SweetSpot | None:
    verdicts = ladder(statuses)
    return find(walk(verdicts, variant), verdicts)


def test_the_last_level_before_the_first_that_does_not_pass() -> None:
    spot = spot_of([PASS, PASS, FAIL])
    assert spot is not None
    assert (spot.answer, spot.located, spot.cliff_reached) == ((2, 1 - 0.8**2), 3, True)
    assert (spot.end.level, spot.end.status) == (3, FAIL)
    assert [verdict.level for verdict in spot.verdicts] == [2]


@pytest.mark.parametrize("gap", [FAIL, UNSURE])
def test_nothing_is_claimed_beyond_a_gap(gap: Status) -> None:
    spot = spot_of([PASS, gap, PASS, FAIL])
    assert spot is not None
    assert (spot.level, spot.end.level, [step.level for step in spot.beyond]) == (1, 2, [3])
    assert spot_of([gap, PASS, PASS]) is None


def test_a_planned_level_without_runs_is_a_gap() -> None:
    verdicts = [verdict for verdict in ladder([PASS] * 4) if verdict.level != 2]
    spot = find(walk(verdicts, planned=range(1, 5)), verdicts)
    assert spot is not None
    assert (spot.level, spot.end, spot.missing) == (1, None, 2)
    assert walk(verdicts[1:], planned=range(1, 5)).missing == 1
    assert find(walk(verdicts), verdicts).level == 4


def test_a_cliff_that_was_not_reached_is_said() -> None:
    spot = spot_of([PASS, PASS])
    assert spot is not None
    assert (spot.cliff_reached, spot.located) == (False, 2)


def test_nothing_passes_or_nothing_of_this_variant() -> None:
    assert spot_of([FAIL, UNSURE]) is None
    assert spot_of([PASS], "one_shot") is None


def test_the_target_is_the_first_level_at_least_as_sparse() -> None:
    verdicts = ladder([PASS, PASS, FAIL])
    assert target(verdicts, GatePolicy((GATE,), target_sparsity=0.36)) == (2, PASS)
    assert target(verdicts, GatePolicy((GATE,), target_sparsity=0.37)) == (3, FAIL)
    assert target(verdicts, GatePolicy((GATE,), target_sparsity=0.9)) is None
    assert target(verdicts, GatePolicy((GATE,))) is None


def curve(values: list[float], spread: float | None = 0.05) -> list[Summary]:
    return [
        Summary(
            "ticket" if level else "dense",
            level,
            1 - 0.8**level,
            "accuracy",
            "validation",
            "final",
            value,
            None if spread is None else value - spread,
            None if spread is None else value + spread,
            3,
            (value,) * 3,
        )
        for level, value in enumerate(values)
    ]


def test_the_knee_of_a_broken_line_is_where_it_breaks() -> None:
    bend = knee(curve([99, 99, 99, 99, 99, 99, 90, 81]))
    assert bend is not None
    assert bend.level == 5
    rising = knee(curve([0.1, 0.1, 0.1, 0.1, 0.5, 0.9]), higher_is_better=False)
    assert rising is not None
    assert rising.level == 3


def test_the_knee_is_on_log_density() -> None:
    """Quality falls with the square of the pruning level; on that axis the chord's farthest point is the middle."""
    bend = knee(curve([99 - 0.1 * level**2 for level in range(11)]))
    assert bend is not None
    assert bend.level == 5
    assert math.isclose(bend.sparsity, 1 - 0.8**5)


def test_no_knee() -> None:
    assert knee(curve([99, 90])) is None
    assert knee(curve([99, 99.1, 99.2, 99.3])) is None
    assert knee(curve([99, 98, 97, 96])) is None
    assert knee(curve([99.0, 99.1, 99.0, 98.96])) is None
