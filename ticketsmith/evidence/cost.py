"""What the evidence cost: training time and arithmetic, of all runs, of finding the ticket, of the controls."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ticketsmith.evidence.results import Result
from ticketsmith.evidence.summarise import groups
from ticketsmith.evidence.variants import CONTROLS, DENSE, TICKET, ordered


@dataclass(frozen=True)
class Spend:
    """A sum over runs. ``seconds`` adds the training times of single runs, which may have run side by side: it is
    compute time, not waiting time. It is None when no run knows its time; ``untimed`` counts the runs that do not.
    """

    runs: int
    seconds: float | None
    untimed: int
    flops: float


@dataclass(frozen=True)
class Cost:
    """``finding`` is the dense baseline and the levels of the method up to the sweet spot (all of them when there is
    none); ``ratio`` relates its arithmetic to training the same seeds densely once, None when that is not known.
    """

    total: Spend
    dense: Spend
    finding: Spend
    controls: Spend
    ratio: float | None
    by_variant: Mapping[str, Spend]
    by_level: tuple[tuple[str, int, Spend], ...]


def cost(results: Sequence[Result], sweet_level: int | None, variant: str = TICKET) -> Cost:
    """The cost of everything that was trained; ``sweet_level`` is the sweet spot's level of ``variant``, if any."""
    dense = [run for run in results if run.variant == DENSE]
    levels = [run for run in results if run.variant == variant and (sweet_level is None or run.level <= sweet_level)]
    baseline, finding = spend(dense), spend(dense + levels)
    return Cost(
        total=spend(results),
        dense=baseline,
        finding=finding,
        controls=spend([run for run in results if run.variant in CONTROLS]),
        ratio=finding.flops / baseline.flops if baseline.flops > 0 else None,
        by_variant={
            name: spend([run for run in results if run.variant == name])
            for name in ordered(run.variant for run in results)
        },
        by_level=tuple(
            (name, level, spend([run for run in results if (run.variant, run.level) == (name, level)]))
            for name, level in groups(results)
        ),
    )


def spend(runs: Sequence[Result]) -> Spend:
    """The sum over some runs; one that two variants share was trained, and is paid for, once."""
    runs = list({run.key: run for run in runs}.values())
    seconds = [run.seconds for run in runs if run.seconds is not None]
    return Spend(
        runs=len(runs),
        seconds=math.fsum(seconds) if seconds else None,
        untimed=len(runs) - len(seconds),
        flops=math.fsum(run.training_flops for run in runs),
    )
