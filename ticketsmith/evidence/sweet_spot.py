"""The sweet spot (sparsest level that passes), the target level, and the knee of the quality curve."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from ticketsmith.evidence import words
from ticketsmith.evidence.gates import level_status
from ticketsmith.evidence.variants import TICKET
from ticketsmith.evidence.verdicts import GatePolicy, Status, Summary, SweetSpot, Verdict


def find(
    validation_verdicts: Iterable[Verdict], test_verdicts: Iterable[Verdict], variant: str = TICKET
) -> SweetSpot | None:
    """The sparsest level of ``variant`` that passes every gate on validation, with what the test split says of it.

    None when no level passes. Choosing on one split and measuring on another keeps the luck of the choice out of
    the number that is shown. When every shallower level passes too, the search is a fixed-sequence test: levels are
    tried in an order that was set beforehand, each at full confidence, and the first loss would have ended it, so
    that the chance of any false pass stays that of one test (Maurer, Hothorn & Lehmacher 1995; Westfall & Krishen
    2001).
    """
    levels = by_level(validation_verdicts, variant)
    confirmed = by_level(test_verdicts, variant)
    status = {level: level_status(verdicts) for level, verdicts in levels.items()}
    order = sorted(levels, key=lambda level: (levels[level][0].sparsity, level))
    passing = [level for level in order if status[level] is Status.PASS]
    if not passing:
        return None
    level = passing[-1]
    gaps = [shallower for shallower in order[: order.index(level)] if status[shallower] is not Status.PASS]
    on_test = confirmed.get(level, ())
    test_status = level_status(on_test)
    cliff_reached = level != order[-1]
    safe = level if test_status is Status.PASS else _last_in_sequence(order[: order.index(level)], status, confirmed)

    caveats = []
    if test_status is not Status.PASS:
        said = "; ".join(verdict.reason for verdict in on_test) or "no test measurement"
        verb = "contradicts" if test_status is Status.FAIL else "cannot confirm"
        caveats.append(f"It was chosen on the validation split; the test split {verb} it ({said}).")
    if gaps:
        names = words.listed([f"{words.share(levels[gap][0].sparsity)} ({status[gap]})" for gap in gaps])
        caveats.append(
            f"{words.plural(len(gaps), 'less sparse level')} did not pass: {names}. "
            "The stated confidence then holds for this one level, not for the search."
        )
    if not cliff_reached:
        caveats.append(
            "The sparsest level that was trained still passes: the cliff was not reached, so this is a lower limit."
        )
    return SweetSpot(
        variant=variant,
        level=level,
        sparsity=levels[level][0].sparsity,
        status=test_status,
        verdicts=tuple(on_test),
        contiguous=not gaps,
        caveat=" ".join(caveats),
        cliff_reached=cliff_reached,
        confirmed=None if safe is None else (safe, levels[safe][0].sparsity),
    )


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


def by_level(verdicts: Iterable[Verdict], variant: str) -> dict[int, list[Verdict]]:
    """The verdicts of one variant, one list for each level."""
    levels: dict[int, list[Verdict]] = {}
    for verdict in verdicts:
        if verdict.variant == variant:
            levels.setdefault(verdict.level, []).append(verdict)
    return levels


def _last_in_sequence(
    order: Sequence[int], validation: Mapping[int, Status], test: Mapping[int, Sequence[Verdict]]
) -> int | None:
    """The last level before the first that does not pass on both splits: a fixed-sequence test again."""
    last = None
    for level in order:
        if validation[level] is not Status.PASS or level_status(test.get(level, ())) is not Status.PASS:
            break
        last = level
    return last


def _overlap(a: Summary, b: Summary) -> bool:
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return False
    return a.low <= b.high and b.low <= a.high
