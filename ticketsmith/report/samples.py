"""What the levels made, side by side: a row for each sparsity, a column for each passage of text, a picture a row."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from ticketsmith.evidence import words
from ticketsmith.evidence.findings import Findings
from ticketsmith.evidence.samples import Sample
from ticketsmith.report.tables import Row

_PICTURES = 1_500_000
"""Bytes of pictures that a page holds; more than that, and it could not be sent by mail."""
_PASSAGE = 1_000
"""Characters of a passage that are shown."""


@dataclass(frozen=True)
class Shown:
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
    """All that was made, for a reader to compare."""

    columns: tuple[str, ...] = ()
    rows: tuple[Shown, ...] = ()
    note: str = ""


def gallery(findings: Findings, samples: Sequence[Sample], rows: Sequence[Row]) -> Gallery:
    """The samples in the order given; ``rows`` is the table of all levels, which knows names and gates."""
    if not samples:
        return Gallery()
    passages = [dict(sample.passages) for sample in samples]
    columns = tuple(dict.fromkeys(heading for found in passages for heading in found))
    known = {(row.variant, row.level): row for row in rows}
    room = _PICTURES // len(samples)
    shown = []
    for sample, texts in zip(samples, passages, strict=True):
        row = known[sample.variant, sample.level]
        small = 0 < len(sample.picture) <= room
        shown.append(
            Shown(
                name=row.name,
                sparsity=words.share(sample.sparsity),
                status=row.status,
                marks=row.marks,
                passages=tuple(_cut(texts.get(column, "")) for column in columns),
                picture=base64.b64encode(sample.picture).decode() if small else "",
                png=sample.picture,
            )
        )
    return Gallery(columns, tuple(shown), _note(findings, samples, shown))


def _cut(text: str) -> str:
    return text if len(text) <= _PASSAGE else f"{text[:_PASSAGE]} \u2026"


def _note(findings: Findings, samples: Sequence[Sample], shown: Sequence[Shown]) -> str:
    seed = min(sample.seed for sample in samples)
    parts = [f"Of seed {seed}, by the weights after the last iteration; every level began from the same start."]
    parts.append("The gate is that of the level over all seeds, on the test split.")
    if any(one.png and not one.picture for one in shown):
        parts.append("Pictures too large for this page are in the folder figures/ beside it.")
    return " ".join(parts)
