"""What the evidence says, as plain data: gates asked for, verdicts given, the sweet spot."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from ticketsmith.evidence.results import At, Split

Method = Literal["point", "non-inferiority"]


class Status(StrEnum):
    """The answer of a gate. INCONCLUSIVE: too few replicates to tell."""

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


@dataclass(frozen=True)
class GatePolicy:
    """All gates of an experiment and how they are judged.

    ``confidence`` is that of each one-sided test, e.g. 0.95. ``target_sparsity`` (0..1) names the level that the exit
    status speaks of: the first one at least as sparse.
    """

    gates: tuple[Gate, ...]
    method: Method = "non-inferiority"
    confidence: float = 0.95
    at: At = "final"
    target_sparsity: float | None = None


@dataclass(frozen=True)
class Verdict:
    """One gate, asked of one level of one variant on one split.

    ``estimate`` is the mean worsening against dense, paired by replicate (positive is worse; a fraction when the gate
    is relative); ``bound`` the one-sided upper confidence bound of it, None with fewer than two replicates or for the
    ``point`` method; ``worst`` the worsening of the seed ``worst_seed``, the largest of all. ``seeds`` were compared, of
    which ``replicates`` differ: seeds whose networks are bit for bit equal are one. ``diverged`` are the seeds that lost
    their loss here or at a less sparse level, ``missing`` the planned seeds without a run, here or of dense; ``undefined``
    those whose value here is no finite number. ``gaps``: what else cannot be compared, in words. ``floored``: their
    own spread is less than the metric can tell apart, or zero. ``sparsity`` is that of the prunable weights,
    ``network_sparsity`` that of all parameters, None where those were not counted. ``reason`` says in words why.
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
    reason: str
    seeds: int = 0
    worst: float | None = None
    worst_seed: int | None = None
    diverged: tuple[int, ...] = ()
    missing: tuple[int, ...] = ()
    undefined: tuple[int, ...] = ()
    gaps: tuple[str, ...] = ()
    floored: bool = False
    network_sparsity: float | None = None


@dataclass(frozen=True)
class Summary:
    """Mean of one metric over the replicates of one level of one variant, with its two-sided confidence interval.

    Several draws of one replicate are averaged first. ``low`` and ``high`` are None with one replicate. ``seeds`` were
    measured, of which ``replicates`` differ. ``floored``: their own spread is less than the metric can tell apart, or
    zero, and the interval takes its resolution instead.
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
    floored: bool = False


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
    """A fixed sequence of tests, walked to its end: the levels that passed, in order, and all that come after them.

    ``missing`` is the first planned level that has no run, where that ended the walk.
    """

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
    ``caveat`` says in words what else the reader should know, empty when nothing.
    """

    variant: str
    level: int
    sparsity: float
    verdicts: tuple[Verdict, ...]
    end: Step | None = None
    beyond: tuple[Step, ...] = ()
    missing: int | None = None
    network_sparsity: float | None = None
    caveat: str = ""

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
