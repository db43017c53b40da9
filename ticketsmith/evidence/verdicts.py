"""What the evidence says, as plain data: gates, the verdict of each, the walk over levels, the sweet spot."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

from ticketsmith.evidence.resolution import Resolution
from ticketsmith.evidence.results import At, Split

if TYPE_CHECKING:
    from ticketsmith.evidence.examples import Difference  # which needs NumPy

Method = Literal["point", "non-inferiority", "examples"]

TOLERANCE = 1e-9
"""A drop of exactly the margin passes: 98.9 - 96.9 is 2.0000000000000142 in binary, and nobody means that by "more than"."""


class Status(StrEnum):
    """The answer of a gate. INCONCLUSIVE: too few replicates, or examples, to tell."""

    PASS = "PASS"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"


@dataclass(frozen=True)
class Gate:
    """The largest loss of quality that is tolerated, against the dense baseline.

    Exactly one of ``max_drop`` (absolute, in the metric's own unit, e.g. points of accuracy; "drop" means "worse", so
    for a metric where lower is better it is a rise) and ``max_relative_increase`` (0.05 = worse by 5 % of the dense
    value) is set.
    """

    metric: str
    max_drop: float | None = None
    max_relative_increase: float | None = None

    @property
    def margin(self) -> float:
        """The tolerated worsening: absolute, or a fraction of the dense value."""
        value = self.max_drop if self.max_drop is not None else self.max_relative_increase
        assert value is not None
        return value

    @property
    def relative(self) -> bool:
        return self.max_drop is None

    def allows(self, worsening: float) -> bool:
        """Whether a worsening, in the terms of this gate, is within the margin."""
        return worsening <= self.margin + TOLERANCE


@dataclass(frozen=True)
class GatePolicy:
    """All gates of an experiment and how they are judged.

    ``confidence`` is that of each one-sided test, e.g. 0.95, over all of its looks. ``target_sparsity`` (0..1) names the
    level that the exit status speaks of: the first one at least as sparse. ``fallback`` is the method where runs kept no
    outcomes of examples.

    ``looks`` are the numbers of replicates at which it was declared, before the first of them, that gates are asked; without
    any, there is one look at what is planned. ``shown`` are those at which verdicts were shown, in order: the ones that were
    not declared have to be paid for (see :mod:`ticketsmith.evidence.looks`). ``agreed`` are the gates of the first of them, where
    these are others. In a search, ``coarse`` is the number of rounds
    that its coarse levels merge: these share the error with the levels between them. 0: there is one family, the grid.
    """

    gates: tuple[Gate, ...]
    method: Method = "non-inferiority"
    confidence: float = 0.95
    at: At = "final"
    target_sparsity: float | None = None
    looks: tuple[int, ...] = ()
    shown: tuple[int, ...] = ()
    agreed: tuple[Gate, ...] = ()
    coarse: int = 0
    fallback: Method | None = None


@dataclass(frozen=True)
class Divergence:
    """A run whose loss was no longer a finite number after ``step`` iterations (None where that is not known)."""

    seed: int
    draw: int
    level: int
    step: int | None


class GapCause(StrEnum):
    """Why seeds cannot be compared, beside runs that are missing.

    The ticket that a control needs diverged; the dense run diverged, was not measured, is no finite number, or is 0 under a
    relative gate; the level itself was not measured, or kept no outcomes of its examples, or dense did not.
    """

    TICKET_DIVERGED = "ticket diverged"
    DENSE_DIVERGED = "dense diverged"
    DENSE_UNMEASURED = "dense unmeasured"
    DENSE_UNDEFINED = "dense undefined"
    DENSE_ZERO = "dense zero"
    UNMEASURED = "unmeasured"
    NO_OUTCOMES = "no outcomes"


@dataclass(frozen=True)
class Gap:
    """Seeds that cannot be compared, and why."""

    cause: GapCause
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Verdict:
    """One gate, asked of one level of one variant on one split.

    ``status`` is the answer; ``by_numbers`` is what the compared values alone say, whatever is missing or diverged.
    ``estimate`` is the mean worsening against dense, paired by replicate (positive is worse; a fraction when the gate is
    relative); ``low`` and ``bound`` its one-sided lower and upper confidence bounds, None with fewer than two replicates, for
    the ``point`` method, and where a run diverged. They are those of the look that the status rests on: the earliest that
    decided, else the last. ``look`` is its place among ``looks``, those that there were or are declared (their numbers of
    replicates), None where the first is not complete; ``error`` is the one-sided error of that look, ``declared`` whether it
    was. ``replicates_needed``: how many would decide it at a look to come, None where none is needed or it cannot be said.
    ``compared`` are the seeds with a value, of which ``replicates`` differ: seeds whose networks are bit for bit equal are one.
    Of all seeds that were trained, whatever look the status rests on: ``worst`` is the worsening of the seed ``worst_seed``, the
    largest, and ``beyond`` says how many are themselves worse than the margin, and of how many. ``floor`` is what was taken
    for their spread where their own is less than the metric can tell apart, or zero; else None.

    ``divergences`` are runs of this level or, of a method, of a milder one. ``absent`` are planned seeds without a run,
    ``alone`` those without a dense run, ``undefined`` those whose value is no finite number, ``gaps`` what else cannot be
    compared. ``control``: it is no method, but what a method is held against. ``sparsity`` is that of the prunable weights,
    ``network_sparsity`` that of all parameters, None where those were not counted. ``examples``: the comparison of one network
    example by example, from which the bounds are; None by another method. ``split_error``: the standard error that the draw of
    the test examples gives the mean over seeds, which is in the bounds; None where no outcomes were kept, so that they are
    for this split alone.
    """

    variant: str
    level: int
    sparsity: float
    split: Split
    gate: Gate
    status: Status
    estimate: float | None
    bound: float | None
    replicates: int
    by_numbers: Status = Status.INCONCLUSIVE
    low: float | None = None
    replicates_needed: int | None = None
    worst: float | None = None
    worst_seed: int | None = None
    compared: tuple[int, ...] = ()
    beyond: tuple[int, int] = (0, 0)
    floor: Resolution | None = None
    divergences: tuple[Divergence, ...] = ()
    absent: tuple[int, ...] = ()
    alone: tuple[int, ...] = ()
    undefined: tuple[int, ...] = ()
    gaps: tuple[Gap, ...] = ()
    control: bool = False
    network_sparsity: float | None = None
    look: int | None = None
    looks: tuple[int, ...] = ()
    error: float = 0.05
    declared: bool = True
    examples: Difference | None = None
    split_error: float | None = None

    @property
    def seeds(self) -> int:
        """How many seeds were compared, equal networks counted each."""
        return len(self.compared)

    @property
    def diverged(self) -> tuple[int, ...]:
        """The seeds that diverged here or, of a method, at a milder level."""
        return tuple(sorted({run.seed for run in self.divergences}))

    @property
    def missing(self) -> tuple[int, ...]:
        """The planned seeds without a run, here or of dense."""
        return tuple(sorted({*self.absent, *self.alone}))

    @property
    def within(self) -> bool:
        """Whether no measured value speaks against the level; a run that diverged has none."""
        return self.estimate is None or self.gate.allows(self.estimate)


def level_status(verdicts: Iterable[Verdict]) -> Status:
    """The conjunction of one level's gates: FAIL before INCONCLUSIVE before PASS; INCONCLUSIVE without a gate.

    No correction for several gates is due: a level passes only if every one of them does (intersection-union test,
    Berger 1982).
    """
    statuses = {verdict.status for verdict in verdicts}
    if Status.FAIL in statuses:
        return Status.FAIL
    return Status.PASS if statuses == {Status.PASS} else Status.INCONCLUSIVE


def by_place(verdicts: Iterable[Verdict]) -> dict[tuple[str, int], list[Verdict]]:
    """The verdicts of each level of each variant."""
    places: dict[tuple[str, int], list[Verdict]] = {}
    for verdict in verdicts:
        places.setdefault((verdict.variant, verdict.level), []).append(verdict)
    return places


def by_level(verdicts: Iterable[Verdict], variant: str) -> dict[int, list[Verdict]]:
    """The verdicts of each level of one variant."""
    return {level: own for (name, level), own in by_place(verdicts).items() if name == variant}


@dataclass(frozen=True)
class Summary:
    """Mean of one metric over the replicates of one level of one variant, with its two-sided confidence interval.

    Several draws of one replicate are averaged first. ``low`` and ``high`` are None with one replicate. ``seeds`` were
    measured, of which ``replicates`` differ. ``floor`` is what the interval takes for their spread where their own is less
    than the metric can tell apart, or zero; else None.
    """

    variant: str
    level: int
    sparsity: float
    metric: str
    split: Split
    at: At
    mean: float
    low: float | None
    high: float | None
    replicates: int
    values: tuple[float, ...]
    seeds: int = 0
    floor: Resolution | None = None


@dataclass(frozen=True)
class Step:
    """A level in the order of the search: how sparse it is, and what the test split says of it.

    ``status`` is the conjunction of its gates, ``diverged`` the seeds that diverged there or before, ``missing`` those that
    were planned and have no run.
    """

    level: int
    sparsity: float
    status: Status
    diverged: tuple[int, ...] = ()
    missing: tuple[int, ...] = ()


@dataclass(frozen=True)
class Walk:
    """The fixed sequence of tests of one variant, walked to its end: the levels that passed, in order, and all after them.

    ``missing`` is the first planned level that has no run, where that ended the walk.
    """

    variant: str
    passed: tuple[Step, ...]
    rest: tuple[Step, ...]
    missing: int | None = None

    @property
    def levels(self) -> frozenset[int]:
        """The levels that passed."""
        return frozenset(step.level for step in self.passed)


@dataclass(frozen=True)
class SweetSpot:
    """The last level of the fixed sequence: every level from the mildest up to this one passes its gates on test.

    ``verdicts`` are the test split's at this level. ``end`` is the next sparser level, which did not pass and ended the
    search; None when this is the sparsest that was trained, so that the limit may lie beyond. ``beyond`` are sparser levels
    that pass by themselves: nothing is claimed of them. ``missing`` is the first planned level without any run, if that
    ended the search. ``network_sparsity`` is the removed share of all parameters, None where they were not counted.
    """

    variant: str
    level: int
    sparsity: float
    verdicts: tuple[Verdict, ...]
    end: Step | None = None
    beyond: tuple[Step, ...] = ()
    missing: int | None = None
    network_sparsity: float | None = None

    @property
    def answer(self) -> tuple[int, float]:
        """The level and sparsity to act on."""
        return self.level, self.sparsity

    @property
    def located(self) -> int:
        """The sparsest level that had to be trained to know this: the one that ended the search, if there is one."""
        return self.end.level if self.end else self.level

    @property
    def cliff_reached(self) -> bool:
        """Whether a sparser level was tried and did not pass; else this is a lower limit."""
        return self.end is not None
