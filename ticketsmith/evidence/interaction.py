"""Prune x quantise: what each costs in quality and gives in speed, and whether together they do more or less than that.

Quality by Bliss' two questions (1939): do the losses add, or does what is left multiply? ``excess`` is the loss of both less
the sum of the two, ``ratio`` what both leave over the product of what each leaves. Paired by replicate.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ticketsmith.evidence.candidates import Judgement, Served
from ticketsmith.evidence.choice import FLOAT32, KINDS, Candidate, Choice, Kind, Time
from ticketsmith.evidence.examples import Numbers, influences, mean_bounds
from ticketsmith.evidence.outcomes import Outcomes
from ticketsmith.evidence.results import Metric
from ticketsmith.evidence.rounds import Ratio
from ticketsmith.evidence.statistics import Interval, t_interval
from ticketsmith.evidence.variants import DENSE


@dataclass(frozen=True, eq=False)
class Square:
    """The four corners on one runtime: dense and one level, in float32 and in one low form.

    ``losses`` are how much worse on test each corner is than ``neither``, in the metric's unit (positive is worse).
    ``excess`` is what both lose beyond the sum; ``ratio`` what both leave of the metric, over the product of what each
    leaves, None where the metric is not positive. ``examples``: the intervals are over examples, since there is one
    replicate; else over replicates. ``times`` are the corners that were timed in the setting that leads; ``speed`` is the
    speed-up of both over the product of the two, None where a corner was not timed.
    """

    corners: Mapping[Kind, Candidate]
    losses: Mapping[Kind, Interval]
    excess: Interval
    ratio: Interval | None
    examples: bool
    times: Mapping[Kind, Time]
    speed: Ratio | None

    @property
    def adds(self) -> bool | None:
        """Whether the losses may simply add; None where there is no interval."""
        return None if self.excess.low is None or self.excess.high is None else self.excess.low <= 0 <= self.excess.high


def squares(choice: Choice, served: Served) -> list[Square]:
    """One for each low form in which dense and a level were judged on one runtime, in float32 as well.

    The level is that of the choice where that is sparse, else the sparsest that passes in both precisions, else the mildest.
    """
    place = {(one.variant, one.level, one.form): one for one in choice.candidates if one.calls in _calls(choice)}
    rounded = {key for key, one in place.items() if one.precision != FLOAT32}
    plain: dict[str, str] = {}
    for one in choice.candidates:  # sorted: a form that is one of float32 always, then one that turned out so
        if one.precision == FLOAT32:
            plain.setdefault(one.runtime, one.form)
    result = []
    for form in sorted({one.form for one in choice.candidates if one.precision != FLOAT32}):
        runtime = next(one.runtime for one in choice.candidates if one.form == form)
        low = {key[1]: place[key] for key in rounded if key[0] == choice.subject and key[2] == form}
        base = plain.get(runtime)
        pairs = {n: one for n, one in low.items() if base and (choice.subject, n, base) in place}
        if base is None or not pairs or (DENSE, 0, base) not in place or (DENSE, 0, form) not in rounded:
            continue
        level = _level(choice, pairs, {n: place[choice.subject, n, base] for n in pairs})
        corners: dict[Kind, Candidate] = {
            "neither": place[DENSE, 0, base],
            "quantise": place[DENSE, 0, form],
            "prune": place[choice.subject, level, base],
            "both": pairs[level],
        }
        if square := _square(choice, served, corners):
            result.append(square)
    return result


def _calls(choice: Choice) -> tuple[int, int]:
    return 0, choice.lead.batch_size


def _level(choice: Choice, low: Mapping[int, Candidate], plain: Mapping[int, Candidate]) -> int:
    best = choice.lead.choice
    if best is not None and best.candidate.level in low and best.candidate.variant == choice.subject:
        return best.candidate.level
    passing = [level for level in low if low[level].passes and plain[level].passes]
    return max(passing) if passing else min(low)


def _square(choice: Choice, served: Served, corners: Mapping[Kind, Candidate]) -> Square | None:
    values = {kind: one.values(choice.metric.name) for kind, one in corners.items()}
    seeds = sorted(set.intersection(*(set(one) for one in values.values())))
    if not seeds:
        return None
    better, level = choice.metric.higher_is_better, choice.confidence
    sign = -1.0 if better else 1.0
    rows = {kind: [values[kind][seed] for seed in seeds] for kind in KINDS}
    losses = {
        kind: [sign * (one - base) for one, base in zip(rows[kind], rows["neither"], strict=True)] for kind in KINDS
    }
    excess = [b - p - q for b, p, q in zip(losses["both"], losses["prune"], losses["quantise"], strict=True)]
    ratio = None
    if all(value > 0 for row in rows.values() for value in row):
        logs = {kind: np.log(rows[kind]) for kind in KINDS}
        ratio = _exp(t_interval(list(logs["both"] + logs["neither"] - logs["prune"] - logs["quantise"]), level))
    examples = len(seeds) == 1
    spans = {kind: _paired(losses[kind], choice, rows) for kind in KINDS}
    whole = _paired(excess, choice, rows)
    if examples:
        per = {kind: _outcomes(corners[kind].judgements, seeds[0], choice.metric, served) for kind in KINDS}
        if spread := _over_examples(per, better, level):
            spans, whole = spread
        examples = spread is not None
    times = {kind: time for kind, one in corners.items() for time in choice.lead.times if time.candidate is one}
    return Square(corners, spans, whole, ratio, examples, times, _speed(choice, times))


def _paired(amounts: Sequence[float], choice: Choice, rows: Mapping[Kind, Sequence[float]]) -> Interval:
    magnitude = max(abs(value) for row in rows.values() for value in row)
    return t_interval(amounts, choice.confidence, choice.finest.paired_floor(amounts, magnitude))


def _speed(choice: Choice, times: Mapping[Kind, Time]) -> Ratio | None:
    """The speed-up of both over the product of the speed-ups of each, round by round."""
    if len(times) < len(KINDS):
        return None
    rounds = {kind: time.rounds for kind, time in times.items()}
    reference = rounds["prune"] * rounds["quantise"] / rounds["neither"]
    return choice.lead.compare(reference, rounds["both"])


def _exp(interval: Interval) -> Interval:
    low, high = (None if bound is None else math.exp(bound) for bound in (interval.low, interval.high))
    return Interval(math.exp(interval.mean), low, high, interval.n)


def _outcomes(judgements: Iterable[Judgement], seed: int, metric: Metric, served: Served) -> Outcomes | None:
    own = next(one for one in judgements if one.seed == seed)
    sealed = served.outcomes.get(own.outcomes)
    return None if sealed is None else sealed.of(metric.name, "test", "final")


def _over_examples(
    outcomes: Mapping[Kind, Outcomes | None], higher_is_better: bool, confidence: float
) -> tuple[dict[Kind, Interval], Interval] | None:
    """The same with examples, or their documents, in the place of replicates; None where there are no outcomes of them."""
    base = outcomes["neither"]
    losses = {}
    for kind, one in outcomes.items():
        change = None if base is None or one is None else influences([base], [one], higher_is_better, relative=False)
        if change is None or len(change[0]) < 2:
            return None
        losses[kind] = change[0]
    excess = losses["both"] - losses["prune"] - losses["quantise"]
    return {kind: _mean(losses[kind], confidence) for kind in KINDS}, _mean(excess, confidence)


def _mean(values: Numbers, confidence: float) -> Interval:
    low, high = mean_bounds(values, 0.5 + confidence / 2)
    return Interval(float(values.mean()), low, high, len(values))
