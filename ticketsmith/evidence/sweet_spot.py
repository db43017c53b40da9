"""The sweet spot (the end of a fixed sequence of tests), the target level, and the knee of the quality curve."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from itertools import takewhile

from ticketsmith.evidence.statistics import largest_share
from ticketsmith.evidence.variants import TICKET
from ticketsmith.evidence.verdicts import (
    GatePolicy,
    Status,
    Step,
    Summary,
    SweetSpot,
    Verdict,
    Walk,
    by_level,
    level_status,
)


def walk(verdicts: Iterable[Verdict], variant: str = TICKET, planned: Collection[int] = ()) -> Walk:
    """The levels of ``variant`` in the order that was set beforehand, dense side first, up to the first that does not pass.

    ``verdicts`` are those of the test split; nothing is chosen by what it measured, since the order and the gates are set
    before. Each level is tested at full confidence, and the first that does not pass ends the search, so that the chance of
    any false pass stays that of one test, however many levels there are (fixed-sequence testing: Maurer, Hothorn &
    Lehmacher 1995; Westfall & Krishen 2001). A ``planned`` level that nobody made ends it too: nothing is claimed beyond a
    gap.
    """
    levels = by_level(verdicts, variant)
    order = sorted(levels, key=lambda level: (levels[level][0].sparsity, level))
    steps = [_step(level, levels[level]) for level in order]
    gap = min((level for level in planned if level not in levels), default=None)
    passed = list(takewhile(lambda step: step.status is Status.PASS and (gap is None or step.level < gap), steps))
    rest = tuple(steps[len(passed) :])
    missing = gap if gap is not None and all(step.level > gap for step in rest) else None
    return Walk(variant, tuple(passed), rest, missing)


def find(search: Walk, verdicts: Iterable[Verdict]) -> SweetSpot | None:
    """The last level that passed in ``search``, with its ``verdicts``; None when not even the mildest level passes."""
    if not search.passed:
        return None
    last = search.passed[-1]
    own = by_level(verdicts, search.variant)[last.level]
    return SweetSpot(
        variant=search.variant,
        level=last.level,
        sparsity=last.sparsity,
        verdicts=tuple(own),
        end=search.rest[0] if search.rest and search.missing is None else None,
        beyond=tuple(step for step in search.rest if step.status is Status.PASS),
        missing=search.missing,
        network_sparsity=own[0].network_sparsity,
    )


def share_beyond(verdict: Verdict, policy: GatePolicy) -> float:
    """The largest share of all seeds that may themselves be worse than the margin, at the policy's confidence.

    By how many of those that were trained are, whatever way seeds scatter. Each look has an equal part of the error.
    """
    error = (1 - policy.confidence) / max(1, len(verdict.looks))
    return largest_share(*verdict.beyond, 1 - error)


def _step(level: int, verdicts: Sequence[Verdict]) -> Step:
    diverged = {seed for verdict in verdicts for seed in verdict.diverged}
    missing = {seed for verdict in verdicts for seed in verdict.missing}
    return Step(level, verdicts[0].sparsity, level_status(verdicts), tuple(sorted(diverged)), tuple(sorted(missing)))


def target(verdicts: Iterable[Verdict], policy: GatePolicy, variant: str = TICKET) -> tuple[int, Status] | None:
    """The first level at least as sparse as ``policy.target_sparsity``, with its status; None when there is none.

    The target is set before anything is measured, so that the verdicts of the test split may be asked directly.
    """
    if policy.target_sparsity is None:
        return None
    levels = by_level(verdicts, variant)
    enough = [level for level in levels if levels[level][0].sparsity >= policy.target_sparsity - 1e-9]
    if not enough:
        return None
    level = min(enough, key=lambda level: (levels[level][0].sparsity, level))
    return level, level_status(levels[level])


def knee(summaries: Sequence[Summary], higher_is_better: bool = True) -> Summary | None:
    """Where the quality curve bends: the point farthest from the chord between its ends (Kneedle, Satopää et al. 2011).

    ``summaries`` are one metric of one method, dense included. The x axis is ``-log(density)``: pruning a constant
    share per level is equally spaced on it, and methods with other schedules fall on the same axis. None when there
    is no knee to speak of: fewer than three points, an end that is not worse than the start beyond their
    intervals, or a curve that lies nowhere above its chord.
    """
    points = sorted((summary for summary in summaries if summary.sparsity < 1.0), key=lambda s: (s.sparsity, s.level))
    if len(points) < 3:
        return None
    sign = 1.0 if higher_is_better else -1.0
    first, last = points[0], points[-1]
    x = [-math.log1p(-point.sparsity) for point in points]
    y = [sign * point.mean for point in points]
    if y[-1] >= y[0] or x[-1] <= x[0] or _overlap(first, last):
        return None
    heights = [
        (quality - y[-1]) / (y[0] - y[-1]) - (x[-1] - place) / (x[-1] - x[0])
        for place, quality in zip(x, y, strict=True)
    ]
    best = max(range(len(points)), key=lambda index: heights[index])
    return points[best] if heights[best] > 1e-9 and 0 < best < len(points) - 1 else None


def _overlap(a: Summary, b: Summary) -> bool:
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return False
    return a.low <= b.high and b.low <= a.high
