"""The section of samples: a row a level with its gate, columns by passage; a page that stays small."""

from __future__ import annotations

import base64
import os
from dataclasses import replace

import pytest

from ticketsmith.evidence.findings import Findings, conclude
from ticketsmith.evidence.sample_files import Sample
from ticketsmith.report.gallery import runs_to_show
from ticketsmith.report.markdown import report_markdown
from ticketsmith.report.page import report_page
from ticketsmith.report.story import SAMPLES, tell

from ..evidence.synthetic import experiment
from .conftest import POLICY, findings_of


@pytest.fixture(autouse=True)
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take longer than all else that a story tells."""
    monkeypatch.setattr("ticketsmith.report.story.all_figures", lambda *_: ())


def made(findings: Findings, **more: object) -> list[Sample]:
    return [
        replace(Sample(run.variant, run.level, run.seed, run.sparsity), **more)  # type: ignore[arg-type]
        for run in runs_to_show(findings)
    ]


def test_rows_are_levels_with_their_gates_and_columns_are_passages() -> None:
    findings = findings_of("full")
    samples = made(findings, text="=== a ===\none\n=== b ===\ntwo\n")
    samples[3] = replace(samples[3], text="=== b ===\nalone\n")
    story = tell(findings, samples)
    rows = {(row.variant, row.level): row for row in story.rows}
    assert story.samples.columns == ("a", "b")
    for sample, shown in zip(samples, story.samples.rows, strict=True):
        row = rows[sample.variant, sample.level]
        assert (shown.name, shown.sparsity, shown.status) == (row.name, row.sparsity, row.status)
    assert [row.passages for row in story.samples.rows[2:5]] == [("one", "two"), ("", "alone"), ("one", "two")]
    assert any("sweet spot" in row.marks for row in story.samples.rows)


def test_a_task_that_makes_nothing_has_no_such_section() -> None:
    story = tell(findings_of("full"))
    assert SAMPLES not in report_page(story, {f.name: "" for f in story.figures}).decode()
    assert SAMPLES not in report_markdown(story).decode()


@pytest.mark.parametrize("size", [20_000, 1_000_000])
def test_pictures_that_would_make_the_page_heavy_stay_beside_it(size: int) -> None:
    findings = findings_of("full")
    samples = made(findings, picture=os.urandom(size))
    story = tell(findings, samples)
    page = report_page(story, {f.name: "" for f in story.figures})
    embedded = base64.b64encode(samples[0].picture) in page
    assert embedded == (size == 20_000)
    assert len(page) < 4_000_000
    assert ("too large for this page" in page.decode()) == (not embedded)
    assert report_markdown(story).decode().count("](figures/samples-") == len(samples)


def test_long_texts_are_cut_and_say_so() -> None:
    findings = findings_of("one seed")
    story = tell(findings, made(findings, text="word " * 2_000))
    assert all(text.endswith("\u2026") and len(text) < 1_100 for row in story.samples.rows for text in row.passages)


def test_dense_every_level_of_the_ticket_and_the_controls_at_the_sweet_spot() -> None:
    findings = conclude("x", experiment(seeds=3, draws=2, diverge=("ticket", 3, 0)), POLICY)
    assert findings.sweet_spot is not None
    spot = findings.sweet_spot.answer[0]
    shown = [(run.variant, run.level, run.seed, run.draw) for run in runs_to_show(findings)]
    ticket = [("ticket", level, 0, 0) for level in range(1, 13) if level != 3]  # which diverged
    controls = [("random_reinit", spot, 0, 0), ("random_ticket", spot, 0, 0)]
    assert shown == [("dense", 0, 0, 0), *ticket, *controls]


def test_a_seed_whose_dense_run_diverged_is_not_the_one_shown() -> None:
    findings = conclude("x", experiment(seeds=2, levels=2, diverge=("dense", 0, 0)), POLICY)
    assert {run.seed for run in runs_to_show(findings)} == {1}


def test_of_very_many_levels_the_first_the_last_and_the_sweet_spot_stay() -> None:
    findings = conclude("x", experiment(seeds=3, levels=100, variants=("dense", "ticket"), points=2), POLICY)
    assert findings.sweet_spot is not None
    levels = [run.level for run in runs_to_show(findings)]
    assert len(levels) <= 25
    assert {0, 1, 100, findings.sweet_spot.answer[0]} <= set(levels)
