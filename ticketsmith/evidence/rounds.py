"""What interleaved rounds say of two rivals: the ratio of their latencies, with its bootstrap interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rounds = NDArray[np.float64]
"""One latency a round, ``[rounds]``."""

_RESAMPLES = 2000


@dataclass(frozen=True)
class Ratio:
    """How many times faster: the median of the rounds' ratios, with its interval."""

    median: float
    low: float
    high: float

    def widened(self, factor: float) -> Ratio:
        """The same ratio, known no better than to ``factor`` (1 or more) either way."""
        return Ratio(self.median, self.low / factor, self.high * factor)


class Bootstrap:
    """Percentile intervals of medians of ``rounds`` values (Efron 1979), the same resamples for every rival.

    The median of a resample is the value at the median of the ranks that it drew, so ranks are drawn once and each
    rival costs one sort.
    """

    def __init__(self, rounds: int, confidence: float, seed: int = 0) -> None:
        ranks = np.random.default_rng(seed).integers(0, rounds, (_RESAMPLES, rounds))
        ranks.sort(axis=1)
        self._below, self._above = ranks[:, (rounds - 1) // 2], ranks[:, rounds // 2]
        self._tails = (0.5 - confidence / 2, 0.5 + confidence / 2)

    def median(self, values: Rounds) -> Ratio:
        """The median of values ``[rounds]``."""
        ordered = np.sort(values)
        low, high = np.quantile((ordered[self._below] + ordered[self._above]) / 2, self._tails)
        return Ratio(float(np.median(ordered)), float(low), float(high))

    def ratio(self, reference: Rounds, rival: Rounds) -> Ratio:
        """How many times faster the rival is than the reference, round by round. Both ``[rounds]``."""
        return self.median(reference / rival)


def resolution(copies: NDArray[np.float64]) -> float:
    """The ratio, 1 or more, by which identical copies of one model differ: ``[rounds, copies]`` latencies.

    Where a model's weights happen to lie in memory makes it a per cent or two faster or slower for as long as the
    process lives. More rounds do not average that away, so no interval may be narrower.
    """
    # each copy against the others: it must not be compared with itself
    others = [np.median(np.delete(copies, column, axis=1), axis=1) for column in range(copies.shape[1])]
    ratios = np.median(copies / np.stack(others, axis=1), axis=0)
    return float(np.exp(np.abs(np.log(ratios)).max()))
