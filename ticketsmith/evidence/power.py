"""Power before money: how many replicates a gate is likely to need, and what a test split can show at all.

A plan's view, from a spread that is known or guessed; no verdict rests on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from ticketsmith.evidence.looks import schedule
from ticketsmith.evidence.statistics import t_quantile

LIKELY = 0.8
"""The chance at which a number of replicates is said to be likely to decide."""
_EXPERIMENTS = 20_000  # simulated, for what several looks do


@dataclass(frozen=True)
class Chances:
    """Of a level that truly loses ``loss`` (in the gate's terms): by each look, the chance to have passed, and to have failed."""

    loss: float
    passed: tuple[float, ...]
    failed: tuple[float, ...]


def chance_to_pass(replicates: int, error: float, loss: float, margin: float, spread: float) -> float:
    """The chance that the paired t test passes a level that truly loses ``loss``; exact for normal differences.

    ``spread`` is the standard deviation of a replicate's difference, in the terms of ``margin``.
    """
    from scipy.special import nctdtr

    if spread <= 0:
        return float(loss <= margin)
    away = (loss - margin) * math.sqrt(replicates) / spread
    return float(nctdtr(replicates - 1, away, -t_quantile(1 - error, replicates - 1)))


def likely_replicates(
    margin: float, spread: float, error_at: Callable[[int], float | None], limit: int = 100
) -> int | None:
    """The fewest replicates that pass a level which loses nothing with a chance of at least ``LIKELY``; None beyond ``limit``."""
    for n in range(2, limit + 1):
        error = error_at(n)
        if error is not None and chance_to_pass(n, error, 0.0, margin, spread) >= LIKELY:
            return n
    return None


def by_look(
    losses: Sequence[float], margin: float, spread: float, looks: Sequence[int], confidence: float
) -> list[Chances]:
    """How likely a level is to be decided at each of the declared ``looks``, for some true ``losses``; by simulation."""
    import numpy as np

    noise = np.random.default_rng(0).standard_normal((_EXPERIMENTS, looks[-1])) * spread
    chances = []
    for loss in losses:
        open_ = np.ones(_EXPERIMENTS, bool)
        passed, failed, sums = [], [], [0.0, 0.0]
        for look in schedule(looks[-1], 1 - confidence, looks):
            values = loss + noise[:, : look.replicates]
            reach = t_quantile(1 - look.error, look.replicates - 1) * values.std(1, ddof=1) / math.sqrt(look.replicates)
            passes, fails = values.mean(1) + reach <= margin, values.mean(1) - reach > margin
            for index, hits in enumerate((passes, fails)):
                sums[index] += float((open_ & hits).mean())
            passed.append(sums[0])
            failed.append(sums[1])
            open_ &= ~(passes | fails)
        chances.append(Chances(loss, tuple(passed), tuple(failed)))
    return chances


def examples_needed(margin: float, discordance: float, confidence: float = 0.95) -> int:
    """How many test examples can show that a share of right answers falls by no more than ``margin`` (0..1).

    ``discordance`` is the share of examples of which one network alone is right: chance alone moves the difference by
    √(discordance / n) (McNemar 1947). Fewer cannot show it, however many replicates there are.
    """
    return math.ceil(discordance * (NormalDist().inv_cdf(confidence) / margin) ** 2)
