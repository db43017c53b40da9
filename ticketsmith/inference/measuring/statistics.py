"""What interleaved rounds say: latencies, ratios with bootstrap intervals, and whether the machine was quiet."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ticketsmith.units import percent

Rounds = NDArray[np.float64]
"""One latency in seconds a round, ``[rounds]``."""

_RESAMPLES = 2000
_SPREAD = 1.5
_DRIFT = 1.1
_FEWEST_FOR_DRIFT = 9


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

    def ratio(self, reference: Rounds, rival: Rounds) -> Ratio:
        """How many times faster the rival is than the reference, round by round. Both ``[rounds]``."""
        ratios = np.sort(reference / rival)
        low, high = np.quantile((ratios[self._below] + ratios[self._above]) / 2, self._tails)
        return Ratio(float(np.median(ratios)), float(low), float(high))


def resolution(copies: NDArray[np.float64]) -> float:
    """The ratio, 1 or more, by which identical copies of one model differ: ``[rounds, copies]`` latencies.

    Where a model's weights happen to lie in memory makes it a per cent or two faster or slower for as long as the
    process lives. More rounds do not average that away, so no interval may be narrower.
    """
    # each copy against the others: it must not be compared with itself
    others = [np.median(np.delete(copies, column, axis=1), axis=1) for column in range(copies.shape[1])]
    ratios = np.median(copies / np.stack(others, axis=1), axis=0)
    return float(np.exp(np.abs(np.log(ratios)).max()))


def noise(reference: Rounds) -> list[str]:
    """Signs in the reference's rounds, in their order of time, that the machine had other things to do; in words."""
    p10, p90 = np.quantile(reference, (0.1, 0.9))
    signs = []
    if p90 > _SPREAD * p10:
        signs.append(f"the slow rounds of the reference (p90) take {p90 / p10:.1f} times its fast ones (p10)")
    third = len(reference) // 3
    if len(reference) >= _FEWEST_FOR_DRIFT:
        drift = float(np.median(reference[-third:]) / np.median(reference[:third]))
        if not 1 / _DRIFT <= drift <= _DRIFT:
            change = f"{percent(round(abs(drift - 1), 2))} {'slower' if drift > 1 else 'faster'}"
            signs.append(f"the reference got {change} from the first third of the rounds to the last")
    return signs
