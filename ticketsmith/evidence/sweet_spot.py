"""The sweet spot (the end of a fixed sequence of tests), the target level, and the knee of the quality curve."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import takewhile

from ticketsmith.evidence import words
from ticketsmith.evidence.gates import level_status
from ticketsmith.evidence.variants import TICKET
from ticketsmith.evidence.verdicts import GatePolicy, Status, Step, Summary, SweetSpot, Verdict, Walk


def walk(verdicts: Iterable[Verdict], variant: str = TICKET, planned: Collection[int] = ()) -> Walk:
    """The levels of ``variant`` in the order that was set beforehand, dense side first, up to the first that does not pass.

    Each is tested at full confidence, and the first that does not pass ends the search, so that the chance of any false
    pass stays that of one test, however many levels there are (fixed-sequence testing: Maurer, Hothorn & Lehmacher 1995;
    Westfall & Krishen 2001). A planned level that nobody made ends it too: nothing is claimed beyond a gap.
    """
    levels = by_level(verdicts, variant)
    order = sorted(levels, key=lambda level: (levels[level][0].sparsity, level))
    steps = [_step(level, levels[level]) for level in order]
    gap = min((level for level in planned if level not in levels), default=None)
    passed = list(takewhile(lambda step: step.status is Status.PASS and (gap is None or step.level < gap), steps))
    rest = tuple(steps[len(passed) :])
    held_up = gap if gap is not None and all(step.level > gap for step in rest) else None
    return Walk(tuple(passed), rest, held_up)


def find(
    validation_verdicts: Iterable[Verdict],
    test_verdicts: Iterable[Verdict],
    variant: str = TICKET,
    planned: Collection[int] = (),
) -> SweetSpot | None:
    """The last level of the fixed sequence of ``variant`` on the test split; None when not even the mildest passes.

    Nothing is chosen by what test measured: the order of the levels is set beforehand, and so are the gates. The validation
    split has no part in it, and is only told where it says otherwise.
    """
    verdicts = list(test_verdicts)
    found = walk(verdicts, variant, planned)
    if not found.passed:
        return None
    last = found.passed[-1]
    own = by_level(verdicts, variant)[last.level]
    end = found.rest[0] if found.rest and found.missing is None else None
    beyond = tuple(step for step in found.rest if step.status is Status.PASS)
    return SweetSpot(
        variant=variant,
        level=last.level,
        sparsity=last.sparsity,
        verdicts=tuple(own),
        end=end,
        beyond=beyond,
        missing=found.missing,
        network_sparsity=own[0].network_sparsity,
        caveat=" ".join(
            [
                *_unclaimed(beyond),
                *_end(end, found.missing),
                *_validation(by_level(validation_verdicts, variant), last.level),
            ]
        ),
    )


def _unclaimed(beyond: Sequence[Step]) -> list[str]:
    if not beyond:
        return []
    shares = words.listed([words.share(step.sparsity) for step in beyond])
    verb = "passes" if len(beyond) == 1 else "pass"
    return [
        f"Of the sparser levels {shares} {verb} again, beyond one that does not: with enough levels some do by chance, and "
        "nothing is claimed of them."
    ]


def _end(end: Step | None, missing: int | None) -> list[str]:
    if missing is not None:
        return [f"No run of level {missing} is there: the search ends before it, so this is a lower limit."]
    if end is None:
        return [
            "The sparsest level that was trained still passes: the cliff was not reached, so this is a lower limit."
        ]
    return []


def _validation(levels: Mapping[int, Sequence[Verdict]], level: int) -> list[str]:
    """What the validation split says against it; the same networks were measured, on other examples."""
    own = levels.get(level, ())
    status = level_status(own)
    if not own or status is Status.PASS:
        return []
    said = "; ".join(verdict.reason for verdict in own if verdict.status is not Status.PASS)
    verb = "fails it" if status is Status.FAIL else "cannot tell"
    return [f"The validation split, which has no part in the answer, {verb} ({said})."]


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


def by_level(verdicts: Iterable[Verdict], variant: str) -> dict[int, list[Verdict]]:
    """The verdicts of one variant, one list for each level."""
    levels: dict[int, list[Verdict]] = {}
    for verdict in verdicts:
        if verdict.variant == variant:
            levels.setdefault(verdict.level, []).append(verdict)
    return levels


def _overlap(a: Summary, b: Summary) -> bool:
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return False
    return a.low <= b.high and b.low <= a.high
