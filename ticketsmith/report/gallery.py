"""Samples of the levels, side by side: a row for each sparsity, a column for each passage of text, a picture a row."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from ticketsmith import units
from ticketsmith.evidence.findings import Findings
from ticketsmith.evidence.results import Result
from ticketsmith.evidence.sample_files import Sample
from ticketsmith.evidence.variants import DENSE, is_yardstick, ordered
from ticketsmith.report.tables import Row

_PICTURES = 1_500_000
"""Bytes of pictures that a page holds; more than that, and it could not be sent by mail."""
_PASSAGE = 1_000
"""Characters of a passage that are shown."""


_LEVELS = 24
"""Levels of the method that are shown at most."""


@dataclass(frozen=True)
class Exhibit:
    """One level: where it stands, its passages in the order of ``Gallery.columns``, its picture.

    ``picture`` is in base64 and empty where there is none, or no room for it on the page.
    """

    name: str
    sparsity: str
    status: str
    marks: tuple[str, ...]
    passages: tuple[str, ...]
    picture: str
    png: bytes


@dataclass(frozen=True)
class Gallery:
    """All samples, for a reader to compare."""

    columns: tuple[str, ...] = ()
    rows: tuple[Exhibit, ...] = ()
    note: str = ""


def runs_to_show(findings: Findings) -> list[Result]:
    """The runs whose samples tell the story: of the first seed, dense, the levels of the method, and its yardsticks.

    Those (its controls, or other criteria of pruning) are shown at the sweet spot, or at the target, or else at the
    sparsest level. Of very many levels, some are left out evenly; the first, the last and the sweet spot stay.
    """
    sound = [run for run in findings.results if not run.diverged and run.draw == 0]
    seed = min((run.seed for run in sound if run.variant == DENSE), default=None)
    own = [run for run in sound if run.seed == seed]
    method = sorted((run for run in own if run.variant == findings.subject), key=lambda run: run.level)
    spot, target = findings.sweet_spot, findings.target
    level = spot.level if spot else target[0] if target else method[-1].level if method else 0
    beside = ordered(run.variant for run in own if is_yardstick(run.variant, findings.subject))
    yardsticks = [run for name in beside for run in own if (run.variant, run.level) == (name, level)]
    return [*(run for run in own if run.variant == DENSE), *_thinned(method, level), *yardsticks]


def _thinned(runs: Sequence[Result], level: int) -> list[Result]:
    if len(runs) <= _LEVELS:
        return list(runs)
    step = (len(runs) - 1) / (_LEVELS - 2)
    places = {round(index * step) for index in range(_LEVELS - 1)}
    return [run for index, run in enumerate(runs) if index in places or run.level == level]


def gallery(findings: Findings, samples: Sequence[Sample], rows: Sequence[Row]) -> Gallery:
    """The samples in the order given; ``rows`` is the table of all levels, which knows names and gates."""
    if not samples:
        return Gallery()
    passages = [dict(sample.passages) for sample in samples]
    columns = tuple(dict.fromkeys(heading for texts in passages for heading in texts))
    levels = {(row.variant, row.level): row for row in rows}
    room = _PICTURES // len(samples)
    exhibits = []
    for sample, texts in zip(samples, passages, strict=True):
        row = levels[sample.variant, sample.level]
        small = 0 < len(sample.picture) <= room
        exhibits.append(
            Exhibit(
                name=row.name,
                sparsity=units.share(sample.sparsity),
                status=row.status,
                marks=row.marks,
                passages=tuple(_cut(texts.get(column, "")) for column in columns),
                picture=base64.b64encode(sample.picture).decode() if small else "",
                png=sample.picture,
            )
        )
    return Gallery(columns, tuple(exhibits), _note(samples, exhibits))


def _cut(text: str) -> str:
    return text if len(text) <= _PASSAGE else f"{text[:_PASSAGE]} \u2026"


def _note(samples: Sequence[Sample], exhibits: Sequence[Exhibit]) -> str:
    seed = min(sample.seed for sample in samples)
    parts = [f"Of seed {seed}, by the weights after the last iteration; every level began from the same start."]
    parts.append("The gate is that of the level over all seeds, on the test split.")
    if any(one.png and not one.picture for one in exhibits):
        parts.append("Pictures too large for this page are in the folder figures/ beside it.")
    return " ".join(parts)
