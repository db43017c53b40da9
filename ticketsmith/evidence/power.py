"""Power before money: how many replicates a gate is likely to need, and what a test split can show at all.

A plan's view, from a spread that is known or guessed; no verdict rests on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from ticketsmith.evidence.looks import nominal_error, schedule
from ticketsmith.evidence.results import Result
from ticketsmith.evidence.statistics import deviation, mean, t_quantile
from ticketsmith.evidence.summarise import replicate_values
from ticketsmith.evidence.verdicts import Gate, GatePolicy

LOSSES = (0.0, 0.5, 1.0, 1.5, 2.0)
"""Of a level, in margins: those whose chances are shown."""
QUALITY = 0.95
"""The accuracy that is expected where no dense run tells it."""
LIKELY = 0.8
"""The chance at which a number of replicates is said to be likely to decide."""
_EXPERIMENTS = 20_000  # simulated, for what several looks do


@dataclass(frozen=True)
class Chances:
    """Of a level that truly loses ``loss`` (in the gate's terms): by each look, the chance to have passed, and to have failed."""

    loss: float
    passed: tuple[float, ...]
    failed: tuple[float, ...]


@dataclass(frozen=True)
class Power:
    """What one gate is likely to need. ``spread``: of a replicate's worsening, in the gate's terms; ``source`` says whence.

    ``replicates`` are likely to pass a level that loses nothing, None where more than 100 would be needed. ``chances`` are those
    of ``LOSSES``, by each of the ``looks``. ``examples``: the size of the test split, of which ``needed`` could show the margin;
    None where that is not known or enough.
    """

    gate: Gate
    spread: float
    source: str
    replicates: int | None
    looks: tuple[int, ...]
    chances: tuple[Chances, ...]
    examples: int = 0
    needed: int | None = None


def powers(policy: GatePolicy, planned: int, examples: int, dense: Sequence[Result] = ()) -> list[Power]:
    """For each gate that is tested over seeds and whose spread can be known: from ``dense`` runs, else from the size of the test
    split (``examples``, 0 where it is not known). ``planned`` replicates are the look, where none is declared."""
    if policy.method != "non-inferiority" or (policy.looks or (planned,))[0] < 2:
        return []
    estimates = (_power(gate, policy, planned, examples, dense) for gate in policy.gates)
    return [power for power in estimates if power]


def _power(gate: Gate, policy: GatePolicy, planned: int, examples: int, dense: Sequence[Result]) -> Power | None:
    values = list(replicate_values(dense, gate.metric, "test", policy.at).values())
    shares = (
        gate.metric == "accuracy" and examples > 0 and not gate.relative
    )  # in percent, as the built-in tasks measure it
    level = mean(values) if values else 100 * QUALITY
    wrong = max(1 - level / 100, 1 / examples) if shares else 0.0
    if len(values) > 1 and deviation(values) > 0:
        spread, source = math.sqrt(2) * deviation(values), f"{len(values)} dense runs"
        spread /= abs(level) if gate.relative else 1.0
    elif shares:
        spread = 100 * math.sqrt(2 * wrong * (1 - wrong) / examples)
        source = f"{examples:,} test examples at an accuracy of {level:.3g} %"
    else:
        return None
    needed = examples_needed(gate.margin / 100, wrong, policy.confidence) if shares else 0
    looks = policy.looks or (planned,)
    chances = by_look([loss * gate.margin for loss in LOSSES], gate.margin, spread, looks, policy.confidence)
    # Without declared looks there is one, at whatever number is chosen now.
    errors = dict.fromkeys(policy.looks or range(2, 101), nominal_error(looks, 1 - policy.confidence))
    likely = likely_replicates(gate.margin, spread, errors.get)
    return Power(gate, spread, source, likely, looks, tuple(chances), examples, needed if needed > examples else None)


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
