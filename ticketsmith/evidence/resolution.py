"""How finely a metric can tell two networks apart: no spread between seeds is believed to be smaller than that."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ticketsmith.evidence.results import Metric, Result, Split
from ticketsmith.evidence.statistics import deviation, mean

_WHOLE = 1e-6  # how far a count that was read back from a share may be from a whole number
# Differences of equal differences, in float32: each value is rounded by 2**-24 of itself, so that the deviation of
# differences of two of them stays below four times that.
_ROUNDING = 2.0**-22


@dataclass(frozen=True)
class Resolution:
    """The least difference, ``amount`` in the unit of ``metric``, that it can tell on one split.

    ``counts_examples``: the metric is a share of the split's examples, ``amount`` is one of them, and less cannot be told
    apart. Else it is the last printed decimal: values may differ by less, and it stands only for a spread of zero.
    """

    metric: Metric
    amount: float
    split: Split
    counts_examples: bool

    def floor(self, values: Sequence[float], magnitude: float, scale: float = 1.0) -> float:
        """The least standard deviation that is believed of ``values``; 0 where their own is, and with fewer than two.

        ``magnitude`` is the largest of what was measured, by which rounding goes; both are divided by ``scale`` where the
        values were (as those of a relative gate).
        """
        if len(values) < 2 or not (self.counts_examples or deviation(values) <= _ROUNDING * magnitude / scale):
            return 0.0
        return self.amount / scale

    def paired_floor(self, worsening: Sequence[float], magnitude: float, scale: float = 1.0) -> float:
        """The same of differences between two networks each, on the same examples.

        Networks that differ by k examples on balance differ in k at least, each of which is chance: that alone gives a
        spread of √k of them, and never less than one. (√(k + 1): of few seeds that lose the same, k may be luck too.)
        """
        floor = self.floor(worsening, magnitude, scale)
        if not self.counts_examples or not floor:
            return floor
        return floor * math.sqrt(abs(mean(worsening)) / floor + 1)


def resolution(results: Sequence[Result], metric: Metric, split: Split) -> Resolution:
    """One example of the split for a share of its examples (0..1, or in percent), such as an accuracy.

    Of anything else, and where the size of the split is not known, the last printed decimal.
    """
    size = max((run.examples.get(split, 0) for run in results if run.final is not None), default=0)
    values = [value for run in results for value in _values(run, metric, split)] if size else []
    whole = 100.0 if metric.unit == "%" or any(value > 1.0 for value in values) else 1.0
    counts = [value * size / whole for value in values]
    if counts and all(abs(count - round(count)) <= _WHOLE for count in counts):
        return Resolution(metric, whole / size, split, counts_examples=True)
    return Resolution(metric, 10.0**-metric.decimals, split, counts_examples=False)


def _values(run: Result, metric: Metric, split: Split) -> list[float]:
    """What one run measured, of what is finite."""
    values = [state.on(split).get(metric.name) for state in (run.final, run.early_stop) if state is not None]
    return [value for value in values if value is not None and math.isfinite(value)]
