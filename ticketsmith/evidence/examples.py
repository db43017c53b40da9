"""One network against another, example by example: how much worse is it on data like these, and how sure is that?

Both were measured on the same examples, so that what counts is where they differ. Nothing here speaks of other seeds: the
examples are the sample, and the two networks are what they are. Arrays in, numbers out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ticketsmith.evidence.outcomes import Outcomes
from ticketsmith.evidence.statistics import Sampling, skewed_reaches, t_quantile

BLOCKS, FEWEST_BLOCKS, LENGTH = 20, 8, 25
"""A text is cut into so many parts, one after another, where there are fewer documents than that; into fewer, lest a part
has less than ``LENGTH`` examples, but not below ``FEWEST_BLOCKS`` (batch means, Schmeiser 1982, *Operations Research* 30)."""

Unit = Literal["examples", "documents", "blocks"]

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """A worsening (positive is worse) with its one-sided bounds, each by itself at the confidence.

    It rests on so many ``examples``, which are independent by ``unit``, of which there are ``clusters``.
    """

    estimate: float
    low: float
    high: float
    examples: int
    clusters: int
    unit: Unit


def difference(
    dense: Sequence[Outcomes],
    sparse: Sequence[Outcomes],
    confidence: float,
    *,
    higher_is_better: bool,
    relative: bool = False,
    resolution: float = 0.0,
) -> Difference | None:
    """How much worse ``sparse`` is than ``dense`` in the metric's unit; ``relative``: as a fraction of the dense value.

    Several outcomes on a side are those of several networks, and averaged example by example. Bits are compared by
    ``paired_shares``, anything else by ``mean_bounds`` over its documents; where these are fewer than ``BLOCKS``, neighbours
    are joined to so many blocks, since windows of one text are not independent. A metric that is no mean (a ratio, an
    exponential) is linear near where it was measured. ``resolution``, in the same unit, stands for a spread of zero.
    None where there is but one cluster, or a relative change is not defined. Raises ValueError when the two sides do not
    have the same examples.
    """
    if _counts(dense, sparse, higher_is_better) is not None:
        return _of_bits(dense[0], sparse[0], confidence, higher_is_better, relative)
    by_cluster = influences(dense, sparse, higher_is_better, relative)
    if by_cluster is None or len(by_cluster[0]) < 2:
        return None
    values, unit = by_cluster
    low, high = mean_bounds(values, confidence, resolution)
    return Difference(float(values.mean()), low, high, len(dense[0].values), len(values), unit)


def sampling(
    pairs: Sequence[tuple[Sequence[Outcomes], Sequence[Outcomes]]], *, higher_is_better: bool, relative: bool = False
) -> Sampling | None:
    """What the draw of the examples does to a worsening that is averaged over seeds.

    ``pairs`` are the outcomes of dense and sparse networks of each seed, all on the same examples. What a cluster of examples
    loses, averaged over seeds, varies by the cluster, and by what each seed makes of it; the latter is in the spread between
    seeds already, and taken out (the components of a crossed design without repetition, by their mean squares: Searle, Casella
    & McCulloch 1992, *Variance Components*, section 4.3). The cluster that is the farthest from the mean counts once more: a
    few hard ones make most of the variance, and one fewer may have been drawn. None where there are fewer than two seeds or
    clusters, or a relative change is not defined. Raises ValueError when they do not have the same examples.
    """
    if len(pairs) < 2:
        return None
    rows = []
    for dense, sparse in pairs:
        _same_examples(pairs[0][0][0], dense[0])
        by_cluster = influences(dense, sparse, higher_is_better, relative)
        if by_cluster is None or len(by_cluster[0]) < 2:
            return None
        rows.append(by_cluster[0] - by_cluster[0].mean())
    table = np.stack(rows)
    seeds, clusters = table.shape
    own = float(table.var(axis=0, ddof=1).sum()) / (clusters - 1) / seeds
    losses = table.mean(axis=0)
    whole = (float((losses**2).sum()) + float((losses**2).max())) / (clusters - 1)
    error = math.sqrt(max(0.0, whole - own) / clusters)
    return Sampling(error, _skewness(losses), clusters)


def paired_shares(lost: int, gained: int, count: int, confidence: float) -> tuple[float, float, float]:
    """The loss of a share, ``(lost - gained) / count``, with its lower and upper one-sided bound, in -1..1.

    Of ``count`` examples that both networks saw, ``lost`` are right for the first alone and ``gained`` for the second. The
    bounds invert the score test of a difference of paired proportions (Nam 1997, *Biometrics* 53; Tango 1998, *Statistics in
    Medicine* 17, equation 10) with a continuity correction: half an example for the upper bound, by which a network passes,
    and one for the lower, whose tail is the longer one. Without it, the test passes up to 6.0 % at 5 % where few examples
    differ; with it, no more than it promises (``benchmarks/example_tests.py`` enumerates its size).
    """
    quantile = NormalDist().inv_cdf(confidence)
    estimate = (lost - gained) / count
    low = -_upper(gained, lost, count, quantile, 1.0)
    return estimate, min(estimate, low), max(estimate, _upper(lost, gained, count, quantile, 0.5))


def mean_bounds(values: Numbers, confidence: float, resolution: float = 0.0) -> tuple[float, float]:
    """The lower and the upper one-sided bound of the mean of independent ``values`` ``[n]``, n at least 2.

    By ``skewed_reaches``, which cannot see a tail that no value came from: of 20 documents whose differences are as skewed as a
    lognormal of unit deviation, 10 % are wrong at 5 %, of 200 6.6 %. A spread of zero is taken to be ``resolution``.
    """
    n, mean, spread = len(values), float(values.mean()), float(values.std(ddof=1))
    if spread <= 1e-12 * abs(mean):  # equal, but for rounding
        reach = t_quantile(confidence, n - 1) / math.sqrt(n) * max(spread, resolution)
        return mean - reach, mean + reach
    low, high = skewed_reaches(confidence, _skewness(values), n)
    return mean - low * spread / math.sqrt(n), mean + high * spread / math.sqrt(n)


def _skewness(values: Numbers) -> float:
    """Of a sample; 0 where it is too small, or does not vary."""
    n, spread = len(values), float(values.std(ddof=1))
    if n < 3 or not spread:
        return 0.0
    return float((((values - values.mean()) / spread) ** 3).sum()) * n / ((n - 1) * (n - 2))


def _of_bits(
    dense: Outcomes, sparse: Outcomes, confidence: float, higher_is_better: bool, relative: bool
) -> Difference | None:
    """Relative changes are those of the share over what dense has on these examples: where dense has more by chance, more
    examples are lost too, so that its own chance makes the bounds no narrower than they should be."""
    counts = _counts([dense], [sparse], higher_is_better)
    assert counts is not None
    unit = abs(dense.scale)
    if relative and not dense.metric:
        return None
    if relative:
        unit /= abs(dense.metric)
    count = len(dense.values)
    estimate, low, high = (unit * share for share in paired_shares(*counts, count, confidence))
    return Difference(estimate, low, high, count, count, "examples")


def _counts(dense: Sequence[Outcomes], sparse: Sequence[Outcomes], higher_is_better: bool) -> tuple[int, int] | None:
    """How many examples the sparse network loses, and gains; None where outcomes are no independent bits."""
    if len(dense) != 1 or len(sparse) != 1:
        return None
    one, other = dense[0], sparse[0]
    if not (one.bits and other.bits) or one.documents is not None or one.sizes is not None or one.exponential:
        return None
    _same_examples(one, other)
    better = higher_is_better == (one.scale > 0)
    fewer, more = int((one.values & ~other.values).sum()), int((other.values & ~one.values).sum())
    return (fewer, more) if better else (more, fewer)


def influences(
    dense: Sequence[Outcomes], sparse: Sequence[Outcomes], higher_is_better: bool, relative: bool
) -> tuple[Numbers, Unit] | None:
    """The worsening of each cluster ``[k]``, by the linear part of the metric; their mean is that of all examples."""
    first = dense[0]
    for other in (*dense, *sparse):
        _same_examples(first, other)
    ones = np.ones(len(first.values)) if first.sizes is None else first.sizes.astype(np.float64)
    means = [np.mean([one.values.astype(np.float64) for one in side], axis=0) for side in (dense, sparse)]
    starts, unit = _starts(first)
    sizes = np.add.reduceat(ones, starts)
    whole = float(sizes.sum())
    middles = [float((ones * values).sum()) / whole for values in means]
    left = [
        np.add.reduceat(ones * values, starts) - middle * sizes for values, middle in zip(means, middles, strict=True)
    ]
    (here, slope), (there, other_slope) = (_metric(first, middle) for middle in middles)
    sign = -1.0 if higher_is_better else 1.0
    estimate, slopes = sign * (there - here), (-sign * slope, sign * other_slope)
    if relative:
        if not here:
            return None
        estimate /= abs(here)
        slopes = (-sign * math.copysign(1.0, here) * there * slope / here**2, sign * other_slope / abs(here))
    influence = (slopes[0] * left[0] + slopes[1] * left[1]) * (len(starts) / whole)
    return estimate + influence, unit


def _metric(outcomes: Outcomes, mean: float) -> tuple[float, float]:
    """The metric where the mean is this, and its slope there."""
    if outcomes.exponential:
        value = math.exp(min(mean, 700.0))
        return value, value
    return outcomes.scale * mean, outcomes.scale


def _starts(outcomes: Outcomes) -> tuple[NDArray[np.int64], Unit]:
    """Where each cluster begins."""
    count = len(outcomes.values)
    if outcomes.documents is None:
        return np.arange(count), "examples"
    if len(outcomes.documents) >= BLOCKS:
        return np.concatenate([[0], np.cumsum(outcomes.documents)[:-1]]), "documents"
    blocks = min(count, max(FEWEST_BLOCKS, min(BLOCKS, count // LENGTH)))
    return np.arange(blocks) * count // blocks, "blocks"


def _same_examples(one: Outcomes, other: Outcomes) -> None:
    parts: list[tuple[Any, Any]] = [(one.sizes, other.sizes), (one.documents, other.documents)]
    if len(one.values) != len(other.values) or not all(_equal(here, there) for here, there in parts):
        raise ValueError(f"{len(one.values):,} and {len(other.values):,} outcomes are not those of the same examples")


def _equal(one: NDArray[Any] | None, other: NDArray[Any] | None) -> bool:
    return one is other if one is None or other is None else np.array_equal(one, other)


def _upper(lost: int, gained: int, count: int, quantile: float, correction: float) -> float:
    """The largest loss that the score test does not reject."""
    low, high = (lost - gained) / count, 1.0
    if not _rejected(high, lost, gained, count, quantile, correction):
        return high
    for _ in range(50):
        middle = (low + high) / 2.0
        if _rejected(middle, lost, gained, count, quantile, correction):
            high = middle
        else:
            low = middle
    return high


def _rejected(loss: float, lost: int, gained: int, count: int, quantile: float, correction: float) -> bool:
    """Whether so few losses would be too rare if the share truly fell by ``loss``."""
    b = (2 * count - lost + gained) * loss - lost - gained
    c = -gained * loss * (1.0 - loss)
    gains = (math.sqrt(max(b * b - 8.0 * count * c, 0.0)) - b) / (4.0 * count)  # likeliest share of gains under it
    variance = count * (2.0 * gains + loss - loss * loss)
    return lost - gained - count * loss + correction <= -quantile * math.sqrt(max(variance, 0.0))
