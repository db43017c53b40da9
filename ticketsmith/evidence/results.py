"""One sealed run, as evidence sees it: what was asked, what was measured. Plain data, no files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ticketsmith.evidence.splits import At as At
from ticketsmith.evidence.splits import Split as Split

if TYPE_CHECKING:  # NumPy, which whoever reads no outcomes does not need
    from ticketsmith.evidence.outcomes import SealedOutcomes

Place = tuple[str, int, int, int]
"""Where a run stands in an experiment: variant, level, seed, draw."""


@dataclass(frozen=True)
class Metric:
    """A measured quantity: ``accuracy`` in ``%``, ``loss`` without a unit. ``about`` explains it where its name does not."""

    name: str
    higher_is_better: bool
    unit: str = ""
    decimals: int = 2
    about: str = ""


def finite(values: Mapping[str, float]) -> dict[str, float | None]:
    """The values for a JSON document, which knows no NaN and no infinity: None in their place."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


@dataclass(frozen=True)
class Scores:
    """The metrics of one state of the weights: those after the last step, or those at the early-stop iteration.

    NaN stands for a metric that was not finite there (an F1 of 0/0, say).
    """

    step: int
    validation: Mapping[str, float]
    test: Mapping[str, float]

    def on(self, split: Split) -> Mapping[str, float]:
        """The metrics by name on one split."""
        return self.validation if split == "validation" else self.test


@dataclass(frozen=True)
class CurvePoint:
    """One row of ``curve.csv``: after ``step`` iterations. ``validation`` holds the task's metrics by name.

    Losses are finite; another metric that was not is NaN or infinity, a gap in its curve.
    """

    step: int
    train_loss: float
    validation: Mapping[str, float]


@dataclass(frozen=True)
class LayerDensity:
    """Weights of one prunable layer: all, and those that the mask keeps."""

    total: int
    kept: int

    @property
    def density(self) -> float:
        return self.kept / self.total


@dataclass(frozen=True)
class Bill:
    """What making one run took and cost.

    ``seconds`` is wall-clock time; runs that were made ``side_by_side`` shared the machine. ``gpu_seconds``, ``price`` and
    the idle tail are this run's part. Money is None where the price of the machine was not known. ``device`` is ``cpu`` or
    ``cuda``; ``copied``: made, and paid for, in another experiment, ``origin``.
    """

    seconds: float
    device: str = ""
    side_by_side: int = 1
    gpu_seconds: float = 0.0
    machine: str = ""
    price_per_hour: float | None = None
    currency: str = ""
    spot: bool = False
    price: float | None = None
    idle_seconds: float = 0.0
    idle_price: float = 0.0
    source: str = ""
    dated: str = ""
    copied: bool = False
    origin: str = ""

    @property
    def machine_seconds(self) -> float:
        """The part of the machine's time that this run took."""
        return self.seconds / self.side_by_side


@dataclass(frozen=True)
class Result:
    """One run. ``final`` and ``early_stop`` are None when the run diverged.

    ``seed`` is the replicate, ``level`` the pruning level (0 is dense), ``draw`` tells several controls of one ticket
    apart. ``total`` and ``kept`` count prunable weights, ``parameters`` all there are, biases and norms too. ``seconds``
    is the wall-clock time of making it, None when it is not known; ``bill`` says what that cost. ``training_flops``
    counts the dense arithmetic that training did, in floating-point operations. ``weights`` is the SHA-256 of the trained
    weights, empty where it is not known; ``examples`` counts those of each split, where the task tells. ``outcomes`` are those
    of single examples, read when somebody asks; None where the run kept none.
    """

    variant: str
    seed: int
    level: int
    draw: int
    key: str
    path: str
    diverged: bool
    total: int
    kept: int
    steps: int
    metrics: Mapping[str, Metric]
    layers: Mapping[str, LayerDensity]
    final: Scores | None
    early_stop: Scores | None
    diverged_at: int | None = None
    training_flops: float = 0.0
    seconds: float | None = None
    bill: Bill | None = None
    parameters: int | None = None
    curve: Sequence[CurvePoint] = field(default=())
    weights: str = ""
    examples: Mapping[str, int] = field(default_factory=dict)
    outcomes: SealedOutcomes | None = field(default=None, compare=False, repr=False)

    @property
    def place(self) -> Place:
        """Variant, level, seed, draw."""
        return self.variant, self.level, self.seed, self.draw

    @property
    def density(self) -> float:
        """Kept prunable weights over all prunable weights, 0..1; 1 where none is prunable, as of a dense recurrent network."""
        return self.kept / self.total if self.total else 1.0

    @property
    def sparsity(self) -> float:
        """Removed prunable weights over all prunable weights, 0..1."""
        return 1.0 - self.density

    def scores(self, at: At) -> Scores | None:
        """The metrics after the last step, or at the early-stop iteration."""
        return self.final if at == "final" else self.early_stop
