"""The search for the sweet spot: the same results lead to the same path, which makes no more than the answer asks for."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import pytest

from tests.evidence.synthetic import priced, result
from ticketsmith.evidence.results import Place, Result
from ticketsmith.evidence.search import (
    POINT,
    Ending,
    Hypothesis,
    Limit,
    Move,
    Path,
    Reason,
    Terms,
    saving,
    search,
    walk,
)
from ticketsmith.evidence.verdicts import Gate, GatePolicy, Status

GATE = Gate("accuracy", max_drop=2.0)
RIVALS = {"random_reinit": 1, "random_ticket": 2}
TERMS = Terms(levels=11, step=3, looks=(3, 5, 8), rivals=RIVALS)
POLICY = GatePolicy((GATE,), looks=(3, 5, 8), coarse=3)

Drop = Callable[[str, int], float]


def policy_of(terms: Terms) -> GatePolicy:
    return replace(POLICY, looks=terms.looks, coarse=terms.step if terms.step > 1 else 0)


def runs_at(places: Sequence[Place], drop: Drop, spread: float = 0.1) -> list[Result]:
    """Runs whose accuracy is ``drop`` below 98, give or take ``spread``, by level and seed."""
    runs = []
    for variant, level, seed, draw in places:
        if variant == POINT:
            continue
        noise = random.Random(f"{variant}/{level}/{seed}").uniform(-spread, spread)
        fall = 0.0 if variant == "dense" else drop(variant, level)
        runs.append(result(variant, level, seed, 98.0 - fall + noise, draw=draw))
    return runs


def cliff(at: int, margin: int | None = None) -> Drop:
    """The ticket loses nothing up to a level, and much beyond; controls lose much. One level lies at the ``margin``."""

    def drop(variant: str, level: int) -> float:
        if level == margin and variant == "ticket":
            return 2.0
        return 0.0 if variant == "ticket" and level <= at else 6.0

    return drop


def follow(terms: Terms, drop: Drop) -> Path:
    """The search to its end, as an executor would go."""
    results: list[Result] = []
    for _ in range(100):
        path = search(terms, results, policy_of(terms))
        if path.over:
            return path
        results += runs_at([place for move in path.pending for place in move.places], drop)
    raise AssertionError("it never ends")


def levels(path: Path) -> list[tuple[str, int, int]]:
    return [(move.variant, move.level, move.seeds) for move in path.moves if move.variant == "ticket"]


def test_it_steps_coarsely_to_the_fence_and_then_singly_to_the_cliff() -> None:
    path = follow(TERMS, cliff(at=7))
    assert levels(path) == [("ticket", n, 3) for n in (3, 6, 9, 7, 8)]
    assert (path.passes, path.frontier, path.fails) == (7, 8, 8)
    assert path.ending is Ending.FAILED
    assert {move.level for move in path.moves if move.reason is Reason.CONTROL} == {7, 8}
    assert {place[1] for place in path.places if place[0] == "ticket"} == {3, 6, 7, 8, 9}
    assert {place[2] for place in path.places} == {0, 1, 2}


@pytest.mark.parametrize(
    ("at", "tried", "ending"),
    [
        (0, [3, 1], Ending.FAILED),
        (2, [3, 1, 2], Ending.FAILED),
        (11, [3, 6, 9, 11], Ending.PASSED),
        (9, [3, 6, 9, 11, 10], Ending.FAILED),
    ],
)
def test_it_ends_where_nothing_passes_and_where_everything_does(at: int, tried: list[int], ending: Ending) -> None:
    path = follow(TERMS, cliff(at))
    assert [level for _, level, _ in levels(path)] == tried
    assert (path.ending, path.passes) == (ending, at)
    assert any(move.reason is Reason.CONTROL for move in path.moves) == (at > 0)


class Script(Hypothesis):
    """A world with a cliff where the verdicts of some levels are written down, look by look."""

    def __init__(self, at: int, **verdicts: dict[int, str]) -> None:
        super().__init__(at)
        object.__setattr__(self, "verdicts", verdicts)

    def statuses(self, move: Move, places: Collection[Place]) -> Mapping[int, tuple[Status, bool]]:
        words = {"?": Status.INCONCLUSIVE, "+": Status.PASS, "-": Status.FAIL}
        by_look = self.verdicts.get(move.variant, {}).get(move.level)  # type: ignore[attr-defined]
        return {move.level: (words[by_look[move.look]], True)} if by_look else super().statuses(move, places)


def test_what_is_undecided_gets_more_seeds_and_nothing_else_does() -> None:
    path = walk(TERMS, Script(7, ticket={7: "?+", 8: "??-"}))
    assert levels(path)[3:] == [("ticket", n, seeds) for n, seeds in ((7, 3), (7, 5), (8, 3), (8, 5), (8, 8))]
    first, second, third = (move for move in path.moves if move.reason is Reason.SEEDS)
    needed = {("dense", 0), (POINT, 0), ("ticket", 3), ("ticket", 6), ("ticket", 7)}
    assert {place[:2] for place in first.places} == needed
    assert {place[2] for place in first.places} == {3, 4}
    assert {place[:2] for place in second.places} == {("ticket", 8)}
    assert {place[:2] for place in third.places} == {*needed, ("ticket", 8)}
    assert (path.passes, path.fails, path.ending) == (7, 8, Ending.FAILED)


def test_what_stays_undecided_at_the_last_look_ends_it_within_an_interval() -> None:
    path = walk(TERMS, Script(7, ticket={8: "???"}))
    assert (path.passes, path.frontier, path.fails, path.ending) == (7, 8, 9, Ending.UNDECIDED)


def test_a_search_goes_on_behind_a_fence_that_more_seeds_let_pass() -> None:
    path = walk(TERMS, Script(8, ticket={6: "?+"}))
    assert levels(path) == [
        ("ticket", n, seeds) for n, seeds in ((3, 3), (6, 3), (4, 3), (5, 3), (6, 5), (9, 3), (7, 3), (8, 3))
    ]
    assert (path.passes, path.fails) == (8, 9)


def test_the_order_in_which_runs_are_sealed_changes_nothing() -> None:
    drop = cliff(at=7, margin=8)
    whole = follow(TERMS, drop)
    runs = runs_at(whole.places, drop)
    random.Random(1).shuffle(runs)
    assert search(TERMS, runs, POLICY) == whole
    for count in range(0, len(runs), 5):  # whatever of it is there, what follows is part of the same path
        assert set(search(TERMS, runs[:count], POLICY).places) <= set(whole.places)


def test_runs_that_nobody_asked_for_change_nothing() -> None:
    """A grid in the same store has seeds that would decide more than the search has looked at."""
    drop = cliff(at=7, margin=8)
    places = [TERMS.places(variant, level, range(8)) for variant in RIVALS for level in range(1, 12)]
    grid = runs_at(list(dict.fromkeys(place for some in places for place in some)), drop)
    assert search(TERMS, grid, POLICY) == follow(TERMS, drop)


def test_a_control_is_dropped_when_it_is_decided_and_never_has_more_seeds_than_the_ticket() -> None:
    path = walk(TERMS, Script(7, ticket={7: "?+", 8: "??-"}, random_ticket={7: "???", 8: "?-?"}))
    own = [(move.variant, move.level, move.seeds) for move in path.moves if move.reason is Reason.CONTROL]
    assert own == [
        ("random_reinit", 7, 3), ("random_ticket", 7, 3), ("random_ticket", 7, 5),
        ("random_reinit", 8, 3), ("random_ticket", 8, 3), ("random_ticket", 8, 5),
    ]  # fmt: skip
    places = next(move for move in path.moves if move.variant == "random_ticket").places
    assert places == tuple(("random_ticket", 7, seed, draw) for seed in range(3) for draw in range(2))


def test_a_budget_of_runs_ends_it_with_the_interval_that_was_reached() -> None:
    terms = replace(TERMS, limit=Limit(runs=16))
    path = follow(terms, cliff(at=7))
    assert (path.ending, path.passes, path.fails) == (Ending.BUDGET, 6, 9)
    assert len(path.places) <= 16
    short = follow(replace(TERMS, limit=Limit(runs=27)), cliff(at=7))
    assert (short.ending, short.cut) == (Ending.FAILED, True)


@pytest.mark.parametrize(("limit", "tight"), [(Limit(hours=40 / 3600), 35 / 3600), (Limit(money=0.04), 0.035)])
def test_a_budget_of_hours_or_money_is_not_spent_beyond_by_what_runs_have_cost(limit: Limit, tight: float) -> None:
    """Runs take 3 seconds, or 0.003 of money each; twelve are there when level 9 has failed, and level 7 takes three more."""
    terms, drop = replace(TERMS, limit=limit), cliff(at=7)
    places = dict.fromkeys(place for level in (3, 6, 9) for place in TERMS.places("ticket", level, range(3)))
    runs = priced(runs_at(list(places), drop))
    path = search(terms, runs, POLICY)
    assert (path.ending, path.passes, path.fails) == (Ending.BUDGET, 6, 9)
    less = Limit(hours=tight) if limit.hours else Limit(money=tight)
    path = search(replace(terms, limit=less), runs, POLICY)
    assert (path.ending, path.passes, path.fails) == (Ending.BUDGET, 6, None), "it would have paid for nine of twelve"
    elsewhere = [
        replace(run, bill=replace(run.bill, copied=True)) if run.bill and run.level == 3 else run for run in runs
    ]
    assert search(terms, elsewhere, POLICY).pending[0].level == 7


def test_runs_that_can_never_be_made_do_not_hold_the_search_up() -> None:
    runs: list[Result] = []
    for _ in range(40):
        path = search(TERMS, runs, POLICY)
        if path.over:
            break
        asked = [place for move in path.pending for place in move.places]
        runs += [
            replace(run, diverged=True, final=None, early_stop=None) if (run.variant, run.seed) == ("dense", 1) else run
            for run in runs_at(asked, cliff(7))
            if run.seed != 1 or run.variant == "dense"
        ]
    assert path.over
    assert path.ending is Ending.UNDECIDED
    assert max(seed for _, _, seed, _ in path.places) == 2, "more seeds would not decide it"


@pytest.mark.parametrize(("levels", "step"), [(1, 1), (2, 1), (10, 2), (16, 4), (21, 5), (7, 7)])
def test_wherever_the_cliff_is_it_is_reached_within_the_ceiling(levels: int, step: int) -> None:
    terms = Terms(levels, step, (3, 5), {"random_reinit": 2, "finetune": 1}, frozenset({"finetune"}))
    for at in range(levels + 1):
        path = walk(terms, Hypothesis(at))
        assert (path.passes, path.over) == (at, True)
        assert len(path.places) <= terms.ceiling <= terms.grid


def test_a_saving_counts_runs_that_were_not_made_by_their_level_and_variant() -> None:
    path = follow(TERMS, cliff(at=7))
    runs = runs_at(path.places, cliff(at=7))
    times = {"dense": 1.0, "ticket": 1.0, "random_reinit": 2.0, "random_ticket": 3.0}

    def seconds(run: Result) -> float:  # a sparser network trains faster
        return times[run.variant] * (20.0 - run.level)

    spared = saving(path, [replace(run, seconds=seconds(run)) for run in runs])
    assert spared.grid_runs == 8 * (1 + 1 + 11 * 4)
    sparsest = max(run.level for run in runs)
    levels = sum(20.0 - min(level, sparsest) for level in range(1, 12))
    assert spared.grid_seconds == pytest.approx(8 * (20.0 + levels * (1 + 2 + 2 * 3)))
    assert spared.runs == len(path.places)
    assert saving(path, [replace(run, seconds=None) for run in runs]).seconds is None
