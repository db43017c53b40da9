"""Small-sample statistics: the t interval of a mean, one-sided bounds, replicates needed. Pure functions on numbers.

Every function treats its values as independent draws from one distribution (the replicates of an experiment). Paired
comparisons are the same functions on differences: pairing by seed takes the variation that two variants share (initial
weights, data order) out of the comparison.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True)
class Interval:
    """A mean with its two-sided confidence interval; ``low`` and ``high`` are None with one value."""

    mean: float
    low: float | None
    high: float | None
    n: int


@lru_cache(maxsize=4096)
def t_quantile(probability: float, degrees: int) -> float:
    """The quantile of Student's t distribution with ``degrees`` degrees of freedom (at least 1)."""
    from scipy.special import stdtrit  # half a second to import: only those who ask for statistics pay for it

    return float(stdtrit(float(degrees), probability))


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean, summed without loss (``math.fsum``), so that the order of the replicates cannot matter."""
    if not values:
        raise ValueError("the mean of no values is not defined")
    return math.fsum(values) / len(values)


def deviation(values: Sequence[float]) -> float:
    """The sample standard deviation (n - 1 in the denominator); needs at least two values."""
    if len(values) < 2:
        raise ValueError("a standard deviation needs at least two values")
    centre = mean(values)
    return math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (len(values) - 1))


def spread(values: Sequence[float], resolution: float = 0.0) -> float:
    """The standard deviation, at least ``resolution``: values that agree more closely than their metric can tell apart
    are no evidence that nothing varies."""
    return max(deviation(values), resolution)


def t_interval(values: Sequence[float], confidence: float = 0.95, resolution: float = 0.0) -> Interval:
    """The two-sided t interval of a mean: ``mean ± t(1 - (1 - confidence) / 2, n - 1) · s / √n`` (Student 1908).

    ``s`` is at least ``resolution``; without one, values without any spread give an interval of zero width.
    """
    _check(confidence)
    centre = mean(values)
    if len(values) < 2:
        return Interval(centre, None, None, len(values))
    reach = t_quantile(0.5 + confidence / 2, len(values) - 1) * spread(values, resolution) / math.sqrt(len(values))
    return Interval(centre, centre - reach, centre + reach, len(values))


def one_sided_bounds(
    values: Sequence[float], confidence: float = 0.95, resolution: float = 0.0, sampling: Sampling | None = None
) -> tuple[float, float] | None:
    """The lower and the upper one-sided t bound of a mean, each by itself at ``confidence``; None with fewer than two.

    For differences that are paired by seed the upper one is the bound of the paired non-inferiority test (Wellek 2010,
    *Testing Statistical Hypotheses of Equivalence and Noninferiority*, section 5.2): the test passes at level
    ``1 - confidence`` exactly when the bound does not exceed the margin. The standard deviation is at least
    ``resolution``. ``sampling`` is another source of chance, which all values share.
    """
    _check(confidence)
    if len(values) < 2:
        return None
    centre = mean(values)
    low, high = _reaches(len(values), confidence, spread(values, resolution), sampling)
    return centre - low, centre + high


def _reaches(count: int, confidence: float, scatter: float, sampling: Sampling | None) -> tuple[float, float]:
    """From a mean of ``count`` values to its lower and its upper bound. Two sources add up as the squares of their own reaches,
    which errs on the safe side whatever their shares (Graybill & Wang 1980, *Journal of the American Statistical Association*
    75)."""
    own = t_quantile(confidence, count - 1) * scatter / math.sqrt(count)
    if sampling is None or not sampling.error:
        return own, own
    low, high = skewed_reaches(confidence, sampling.skewness, sampling.count)
    return math.hypot(own, low * sampling.error), math.hypot(own, high * sampling.error)


@dataclass(frozen=True)
class Sampling:
    """What a draw of ``count`` test examples, or clusters of them, does to a mean: its standard error, and how skewed one is."""

    error: float
    skewness: float
    count: int


def skewed_reaches(confidence: float, skewness: float, count: int) -> tuple[float, float]:
    """How many standard errors below and above a mean of ``count`` independent values its bounds lie.

    Each is the more cautious of two: Student's, which is right for normal values and cautious for heavy tails, and Hall's
    (1992, *Journal of the Royal Statistical Society B* 54, equation 2.4), whose monotone transformation of the studentised
    mean takes skewness out to second order, as the bootstrap-t does, and draws nothing.
    """
    reach, root = t_quantile(confidence, count - 1), math.sqrt(count)
    low, high = (sign * root * _hall(sign * reach / root, skewness, count) for sign in (1.0, -1.0))
    return max(reach, low), max(reach, high)


def _hall(target: float, skewness: float, n: int) -> float:
    """The studentised mean over the root of n whose transformation is ``target`` over the root of n."""
    slope, shifted = skewness / 3.0, target - skewness / (6.0 * n)
    return shifted if abs(slope) < 1e-9 else (math.cbrt(1.0 + 3.0 * slope * shifted) - 1.0) / slope


def replicates_needed(
    values: Sequence[float],
    margin: float,
    error_at: Callable[[int], float | None],
    resolution: float = 0.0,
    sampling: Sampling | None = None,
    limit: int = 100,
) -> int | None:
    """How many replicates would put the one-sided bound on one side of ``margin``, were mean and spread to stay.

    That is the size at which about half of such experiments decide: a guide, not a promise. ``error_at`` gives the one-sided
    error of a look at so many replicates, None where there is none; what ``sampling`` does, does not fall with
    their number. None when it cannot be said (fewer than two values, a mean at the margin) or is beyond ``limit``.
    """
    if len(values) < 2:
        return None
    distance, scatter, above = abs(margin - mean(values)), spread(values, resolution), margin > mean(values)
    for n in range(len(values) + 1, limit + 1):
        error = error_at(n)
        if error is not None and _reaches(n, 1 - error, scatter, sampling)[above] < distance:
            return n
    return None


def as_strict(replicates: int, error: float, usual: float) -> int:
    """How few replicates at the ``usual`` one-sided error ask as much of a mean as so many do at ``error``.

    Both by the t test, with the same spread; at least 2.
    """
    reach = t_quantile(1 - error, replicates - 1) / math.sqrt(replicates)
    return next(
        n for n in range(2, replicates + 1) if n == replicates or t_quantile(1 - usual, n - 1) / math.sqrt(n) <= reach
    )


def largest_share(hits: int, count: int, confidence: float = 0.95) -> float:
    """The largest share of a population of which ``hits`` or fewer among ``count`` draws still have a chance of
    ``1 - confidence``: the exact upper bound of a share, whatever the distribution (Clopper & Pearson 1934)."""
    from scipy.special import betaincinv

    return 1.0 if hits >= count else float(betaincinv(hits + 1, count - hits, confidence))


def _check(confidence: float) -> None:
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"a confidence lies between 0 and 1, not {confidence}")
