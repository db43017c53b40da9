"""How finely a metric can tell two networks apart: no spread between seeds is believed to be smaller than that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ticketsmith.evidence import words
from ticketsmith.evidence.results import Metric, Result, Split

_WHOLE = 1e-6  # how far a count that was read back from a percentage may be from a whole number


@dataclass(frozen=True)
class Resolution:
    """``amount`` is in the unit of ``metric``; ``about`` says what it is, to follow a comma or "as"."""

    metric: Metric
    amount: float
    about: str

    def __str__(self) -> str:
        return f"{self.about} ({words.small(self.metric, self.amount)})"


def resolution(results: Sequence[Result], metric: Metric, split: Split) -> Resolution:
    """One example of the split for a percentage of its examples, such as an accuracy; else the last printed decimal."""
    sizes = {run.examples.get(split, 0) for run in results if run.final is not None}
    size = max(sizes, default=0)
    if metric.unit == "%" and size > 0 and all(_counts(run, metric, split, size) for run in results):
        return Resolution(metric, 100.0 / size, f"one example of the {split} split")
    return Resolution(metric, 10.0**-metric.decimals, "the last printed decimal")


def _counts(run: Result, metric: Metric, split: Split, size: int) -> bool:
    """Whether the percentages of this run are whole numbers of ``size`` examples."""
    values = [state.on(split).get(metric.name) for state in (run.final, run.early_stop) if state is not None]
    counts = [value * size / 100.0 for value in values if value is not None]
    return all(abs(count - round(count)) <= _WHOLE for count in counts if count == count)
