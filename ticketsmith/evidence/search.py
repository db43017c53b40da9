"""The search for the sweet spot: which levels, seeds and controls come next. A pure function of what is sealed.

Two families of levels share the error of the gates (``GatePolicy.coarse``). Coarse levels, every ``step``-th and the last,
are attempts in order; the first that does not pass is the fence. Then the single rounds between the last that passed and the
fence are attempts in order, up to the first that does not pass. What is undecided gets more seeds at the declared looks. A
false claim needs the first untrue coarse level to pass, or the first untrue level within one gap: the errors of the two add
up to that of one test, whatever was seen on the way.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import fmean
from typing import Protocol

import numpy as np

from ticketsmith.evidence.gates import judge
from ticketsmith.evidence.results import Bill, Place, Result
from ticketsmith.evidence.variants import DENSE, TICKET, blocker
from ticketsmith.evidence.verdicts import GatePolicy, Status, by_level, level_status

POINT = "rewind_point"
"""The variant of rewind points: they are material, so that no result stands for them."""


class Reason(StrEnum):
    """Why a move was made."""

    COARSE = "coarse"
    REFINED = "refined"
    SEEDS = "seeds"
    CONTROL = "control"


class Ending(StrEnum):
    """How the search of the ticket ended.

    The first level that does not pass FAILED; every level PASSED; it is UNDECIDED after the last look, or more seeds would
    not decide it; or the BUDGET cannot pay the next move.
    """

    FAILED = "failed"
    PASSED = "passed"
    UNDECIDED = "undecided"
    BUDGET = "budget"


@dataclass(frozen=True)
class Limit:
    """What may be spent: a number of runs, core-hours, or money. None is no limit."""

    runs: int | None = None
    hours: float | None = None
    money: float | None = None


@dataclass(frozen=True)
class Terms:
    """What a search was asked for.

    ``looks`` are increasing numbers of replicates. ``rivals``: variants that are only attempts near the sweet spot, with
    their draws; ``chained`` are those whose level needs their own level before.
    """

    levels: int
    step: int
    looks: tuple[int, ...]
    rivals: Mapping[str, int] = field(default_factory=dict)
    chained: frozenset[str] = frozenset()
    limit: Limit = Limit()

    @property
    def grid(self) -> int:
        """How many runs the full grid has: every level of every variant, at the last look."""
        return self.looks[-1] * (2 + self.levels * (1 + sum(self.rivals.values())))

    @property
    def ceiling(self) -> int:
        """More runs than this no search takes: every level of the ticket at the last look, and rivals at two levels."""
        near = sum(draws for name, draws in self.rivals.items() if name not in self.chained)
        rivals = min(2, self.levels) * near + self.levels * len(self.chained)
        most = self.looks[-1] * (2 + self.levels + rivals)
        return most if self.limit.runs is None else min(most, self.limit.runs)

    def lineage(self, level: int) -> list[int]:
        """The levels that ``level`` is pruned from, one after the other, and itself."""
        chain: list[int] = []
        while level > 0:
            chain.append(level)
            level = level_before(level, self.step, self.levels)
        return chain[::-1]

    def places(self, variant: str, level: int, seeds: Iterable[int]) -> list[Place]:
        """The runs of one level of one variant, for some seeds, after all that they need."""
        chain = self.lineage(level)
        places: list[Place] = []
        for seed in seeds:
            places += [(DENSE, 0, seed, 0), (POINT, 0, seed, 0)]
            places += [(TICKET, one, seed, 0) for one in chain]
            if variant in self.rivals:
                own = chain if variant in self.chained else [level]
                places += [(variant, one, seed, draw) for one in own for draw in range(self.rivals[variant])]
        return list(dict.fromkeys(places))


def level_before(level: int, step: int, levels: int) -> int:
    """The level that a ticket is pruned from: a coarse one from the coarse one before it, any other from its neighbour.

    Coarse are the multiples of ``step``, and the last of all ``levels``.
    """
    if level % step and level != levels:
        return level - 1
    return (level - 1) // step * step


@dataclass(frozen=True)
class Move:
    """One step of the search: the runs of one level at one look, and what came of them.

    ``look`` counts from 0, and is of the first ``seeds`` seeds. ``places`` are the runs that no earlier move had asked for.
    ``status`` is None while some of them are still to be made.
    """

    variant: str
    level: int
    look: int
    seeds: int
    reason: Reason
    places: tuple[Place, ...]
    status: Status | None = None


@dataclass(frozen=True)
class Path:
    """How far a search has come.

    ``ending``: how that of the ticket ended, None while it goes on. ``passes`` is the last level of those that passed in
    order (0: dense), ``frontier`` the first after it that was made, ``fails`` the mildest beyond it that failed for sure.
    ``cut``: the budget could not pay the rivals' next move.
    """

    terms: Terms
    moves: tuple[Move, ...]
    ending: Ending | None
    passes: int
    frontier: int | None
    fails: int | None
    cut: bool = False

    @property
    def over(self) -> bool:
        """Whether nothing more is to be made."""
        return self.ending is not None and not self.pending

    @property
    def pending(self) -> tuple[Move, ...]:
        """The moves whose runs are not all there."""
        return tuple(move for move in self.moves if move.status is None)

    @property
    def places(self) -> tuple[Place, ...]:
        """All runs that were asked for, in order."""
        return tuple(place for move in self.moves for place in move.places)


class Evidence(Protocol):
    """What a search asks of the world."""

    def waits(self, places: Collection[Place]) -> bool:
        """Whether one of these runs is still to be made."""
        ...

    def statuses(self, move: Move, places: Collection[Place]) -> Mapping[int, tuple[Status, bool]]:
        """After a move, by these runs alone: the status of each level of its variant, and whether more seeds might change it."""
        ...

    def exceeds(self, limit: Limit, places: Collection[Place], new: Collection[Place]) -> bool:
        """Whether ``new`` runs are likely to spend more than the hours or money that these leave."""
        ...


def search(terms: Terms, results: Sequence[Result], policy: GatePolicy) -> Path:
    """The path that these results lead to, whatever their order; results that the path did not ask for count for nothing."""
    return walk(terms, Verdicts(results, policy))


def walk(terms: Terms, evidence: Evidence) -> Path:
    """Goes from the first move on, as far as ``evidence`` leads."""
    steps = _Walk(terms, evidence)
    attempts: dict[int, tuple[int, Status]] = {}  # the last look at each level of the ticket
    ending: Ending | None = None
    while ending is None:
        following = next_level(terms, attempts)
        if isinstance(following, Ending):
            ending = following
            break
        level, look, reason = following
        move = steps.make(TICKET, level, look, reason)
        if move is None:
            ending = Ending.BUDGET
        elif move.status is None:
            break
        else:
            attempts[level] = (look, move.status)
            if level not in steps.statuses:  # nothing of it can ever be compared
                attempts[level] = (len(terms.looks) - 1, move.status)
            for one, (status, hope) in steps.statuses.items():
                if one in attempts:  # milder levels too: more seeds of theirs may speak against them
                    attempts[one] = (attempts[one][0] if hope else len(terms.looks) - 1, status)
    passes, frontier = interval(terms, attempts)
    if ending is not None and ending is not Ending.BUDGET and passes:
        for near in (passes, frontier):
            if near is not None:
                steps.rivals(near, attempts[near][0])
    fails = min((n for n, (_, status) in attempts.items() if n > passes and status is Status.FAIL), default=None)
    return Path(terms, tuple(steps.moves), ending, passes, frontier, fails, steps.cut and ending is not Ending.BUDGET)


def next_level(terms: Terms, attempts: Mapping[int, tuple[int, Status]]) -> tuple[int, int, Reason] | Ending:
    """The ticket's next level and look, by what was attempts: the last look at each level, and its status."""
    passed = 0
    while passed < terms.levels:
        frontier = fence = min(passed + terms.step, terms.levels)
        if fence not in attempts:
            return fence, 0, Reason.COARSE
        if attempts[fence][1] is Status.PASS:
            passed = fence
            continue
        for level in range(passed + 1, fence):
            if level not in attempts:
                return level, 0, Reason.REFINED
            if attempts[level][1] is not Status.PASS:
                frontier = level
                break
        look, status = attempts[frontier]
        if status is Status.FAIL:
            return Ending.FAILED
        return (frontier, look + 1, Reason.SEEDS) if look + 1 < len(terms.looks) else Ending.UNDECIDED
    return Ending.PASSED


def interval(terms: Terms, attempts: Mapping[int, tuple[int, Status]]) -> tuple[int, int | None]:
    """The last level of those that passed in order, and the first after it that was attempts."""
    passes = 0
    for level in sorted(attempts):
        if attempts[level][1] is not Status.PASS:
            return passes, level
        passes = level
    return passes, None


class _Walk:
    """The moves so far, and the runs that they asked for."""

    def __init__(self, terms: Terms, evidence: Evidence) -> None:
        self.terms, self.evidence = terms, evidence
        self.moves: list[Move] = []
        self.cut = False
        self.statuses: Mapping[int, tuple[Status, bool]] = {}  # after the last move
        self._places: dict[Place, None] = {}

    def make(self, variant: str, level: int, look: int, reason: Reason) -> Move | None:
        """The next move, judged as far as it can be; None when the budget cannot pay it."""
        limit, seeds = self.terms.limit, self.terms.looks[look]
        places = self.terms.places(variant, level, range(seeds))
        new = tuple(place for place in places if place not in self._places)
        over = limit.runs is not None and len(self._places) + len(new) > limit.runs
        if new and (over or self.evidence.exceeds(limit, self._places, new)):
            self.cut = True
            return None
        self._places.update(dict.fromkeys(new))
        move = Move(variant, level, look, seeds, reason, new)
        if not self.evidence.waits(places):
            self.statuses = self.evidence.statuses(move, self._places)
            status, _ = self.statuses.get(level, (Status.INCONCLUSIVE, False))
            move = Move(variant, level, look, seeds, reason, new, status)
        self.moves.append(move)
        return move

    def rivals(self, level: int, looks: int) -> None:
        """The moves of all rivals at a level, each until it is decided, at most up to the ticket's look there."""
        for variant in self.terms.rivals:
            for look in range(looks + 1):
                move = self.make(variant, level, look, Reason.CONTROL)
                if (
                    move is None
                    or move.status is not Status.INCONCLUSIVE
                    or not self.statuses.get(level, (0, False))[1]
                ):
                    break


class Verdicts:
    """Evidence that is there: ``results`` judged by a policy."""

    def __init__(self, results: Sequence[Result], policy: GatePolicy) -> None:
        self.results = {run.place: run for run in results}
        self.policy = policy
        self._diverged = [run for run in results if run.diverged]

    def waits(self, places: Collection[Place]) -> bool:
        """Rewind points are made with the tickets that need them; what a diverged run blocks is never made."""
        missing = [place for place in places if place not in self.results and place[0] != POINT]
        return any(blocker(place, self._among(places)) is None for place in missing)

    def statuses(self, move: Move, places: Collection[Place]) -> Mapping[int, tuple[Status, bool]]:
        """By the verdicts on the test split. No seed mends what cannot be compared."""
        runs = [self.results[place] for place in places if place in self.results]
        if not runs:
            return {}
        planned = [place for place in places if place[0] != POINT]
        verdicts = by_level(judge(runs, self.policy, "test", planned), move.variant)
        return {level: (level_status(own), not any(one.gaps for one in own)) for level, own in verdicts.items()}

    def exceeds(self, limit: Limit, places: Collection[Place], new: Collection[Place]) -> bool:
        """By the costs in the store. A run of another experiment was paid for there; one whose cost is lost took the mean.

        ``new`` ones are expected to cost what those before them did on average, each as its own variant did where that is
        known. What they came to has no part in it, so that the path stays the same. Before any run there is nothing to go by.
        """
        made = [run for run in map(self.results.get, places) if run and not (run.bill and run.bill.copied)]
        costs: dict[str, list[float]] = {}
        for run in made:
            if run.bill:
                spent = run.bill.seconds / 3600 if limit.hours is not None else _paid(run.bill)
                costs.setdefault(run.variant, []).append(spent)
        every = [cost for own in costs.values() for cost in own]
        most = limit.hours if limit.hours is not None else limit.money
        if not every or most is None:
            return False
        expected = (costs.get(variant, every) for variant, *_ in new if variant != POINT)
        return (
            math.fsum(every) * len(made) / len(every) + math.fsum(math.fsum(own) / len(own) for own in expected) > most
        )

    def _among(self, places: Collection[Place]) -> list[Result]:
        return [run for run in self._diverged if run.place in places]


def _paid(bill: Bill) -> float:
    return (bill.price or 0.0) + bill.idle_price


@dataclass(frozen=True)
class Hypothesis:
    """Evidence of a world in which levels up to ``cliff`` pass, all others and every control fail, at the first look."""

    cliff: int

    def waits(self, places: Collection[Place]) -> bool:
        """Never: all is there."""
        return False

    def statuses(self, move: Move, places: Collection[Place]) -> Mapping[int, tuple[Status, bool]]:
        """By the level alone."""
        return {move.level: (Status.PASS if move.variant == TICKET and move.level <= self.cliff else Status.FAIL, True)}

    def exceeds(self, limit: Limit, places: Collection[Place], new: Collection[Place]) -> bool:
        """Never: nothing costs anything."""
        return False


@dataclass(frozen=True)
class Saving:
    """What a search took against the full grid at its last look.

    ``seconds`` are core-seconds, None where some run does not know its time. A level of the grid that was not made takes what
    lies on the line between the tickets of its neighbours, dense being level 0, since a sparser one may take less; beyond the
    sparsest that was made, what that one took. Another variant takes as many times that as its own runs took of the tickets
    of their levels, or once where it was never made.
    """

    runs: int
    grid_runs: int
    seconds: float | None
    grid_seconds: float | None


def saving(path: Path, results: Sequence[Result]) -> Saving:
    """What the path took, by the runs that it asked for."""
    terms, places = path.terms, set(path.places)
    made = [run for run in results if run.place in places]
    points = sum(variant == POINT for variant, *_ in places)
    times: dict[str, dict[int, list[float]]] = {}
    for run in made:
        if run.seconds is not None:
            times.setdefault(run.variant, {}).setdefault(run.level, []).append(run.seconds)
    everything = [value for own in times.values() for values in own.values() for value in values]
    if not made or len(everything) < len(made):
        return Saving(len(made) + points, terms.grid, None, None)
    line = {level: fmean(values) for level, values in (times.get(TICKET, {}) | times.get(DENSE, {})).items()}

    levels = sorted(line)

    def ticket(level: int) -> float:
        return float(np.interp(level, levels, [line[one] for one in levels]))

    whole = ticket(0)
    for variant, count in {TICKET: 1, **terms.rivals}.items():
        own = {level: fmean(values) / ticket(level) for level, values in times.get(variant, {}).items()}
        factor = 1.0 if variant == TICKET or not own else fmean(own.values())
        whole += count * factor * math.fsum(ticket(level) for level in range(1, terms.levels + 1))
    whole *= terms.looks[-1]
    return Saving(len(made) + points, terms.grid, math.fsum(everything), whole)
