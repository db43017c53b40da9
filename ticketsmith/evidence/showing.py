"""Which runs' samples tell the story, of all that an experiment made."""

from __future__ import annotations

from collections.abc import Sequence

from ticketsmith.evidence.findings import Findings
from ticketsmith.evidence.results import Result
from ticketsmith.evidence.variants import DENSE, is_yardstick, ordered

_MOST_LEVELS = 24


def worth_showing(findings: Findings) -> list[Result]:
    """The runs whose samples tell the story: of the first seed, dense, the levels of the method, and its yardsticks.

    Those (its controls, or other criteria of pruning) are shown at the sweet spot, or at the target, or else at the
    sparsest level. Of very many levels, some are left out evenly; the first, the last and the sweet spot stay.
    """
    sound = [run for run in findings.results if not run.diverged and run.draw == 0]
    seed = min((run.seed for run in sound if run.variant == DENSE), default=None)
    own = [run for run in sound if run.seed == seed]
    method = sorted((run for run in own if run.variant == findings.subject), key=lambda run: run.level)
    spot, target = findings.sweet_spot, findings.target
    level = spot.answer[0] if spot else target[0] if target else method[-1].level if method else 0
    beside = ordered(run.variant for run in own if is_yardstick(run.variant, findings.subject))
    controls = [run for name in beside for run in own if (run.variant, run.level) == (name, level)]
    return [*(run for run in own if run.variant == DENSE), *_thinned(method, level), *controls]


def _thinned(runs: Sequence[Result], level: int) -> list[Result]:
    if len(runs) <= _MOST_LEVELS:
        return list(runs)
    step = (len(runs) - 1) / (_MOST_LEVELS - 2)
    chosen = {round(index * step) for index in range(_MOST_LEVELS - 1)}
    return [run for index, run in enumerate(runs) if index in chosen or run.level == level]
