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
    ``point`` method. ``reason`` says in words why.
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


@dataclass(frozen=True)
class Summary:
    """Mean of one metric over the replicates of one level of one variant, with its two-sided confidence interval.

    Several draws of one replicate are averaged first. ``low`` and ``high`` are None with one replicate.
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


@dataclass(frozen=True)
class SweetSpot:
    """The sparsest level of the winning ticket that passes: chosen on the validation split, confirmed on test.

    ``verdicts`` are the test split's verdicts at that level; ``status`` their conjunction. ``contiguous`` is True
    when every level before it passes too: only then does the confidence of one test hold for the whole search
    (fixed-sequence testing). ``cliff_reached`` is False when it is also the sparsest level that was trained: the
    true limit may lie beyond. ``confirmed`` is the sparsest level, up to this one, that the test split passes as well,
    and its sparsity: this level itself when ``status`` is PASS, None when there is none. ``caveat`` says in words what
    else the reader should know, empty when nothing.
    """

    variant: str
    level: int
    sparsity: float
    status: Status
    verdicts: tuple[Verdict, ...]
    contiguous: bool
    caveat: str
    cliff_reached: bool = True
    confirmed: tuple[int, float] | None = None

    @property
    def answer(self) -> tuple[int, float]:
        """The level and sparsity to act on: the sparsest that both splits support, else the one that was chosen."""
        return self.confirmed or (self.level, self.sparsity)
