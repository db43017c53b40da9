"""Which samples are shown, and how their text is cut into passages."""

from __future__ import annotations

from ticketsmith.evidence.findings import conclude
from ticketsmith.evidence.samples import Sample
from ticketsmith.evidence.showing import worth_showing
from ticketsmith.evidence.verdicts import Gate, GatePolicy

from .synthetic import experiment

POLICY = GatePolicy((Gate("accuracy", max_drop=2.0),))


def test_dense_every_level_of_the_ticket_and_the_controls_at_the_sweet_spot() -> None:
    findings = conclude("x", experiment(seeds=3, draws=2, diverge=("ticket", 3, 0)), POLICY)
    assert findings.sweet_spot is not None
    spot = findings.sweet_spot.answer[0]
    shown = [(run.variant, run.level, run.seed, run.draw) for run in worth_showing(findings)]
    ticket = [("ticket", level, 0, 0) for level in range(1, 13) if level != 3]  # which diverged
    controls = [("random_reinit", spot, 0, 0), ("random_ticket", spot, 0, 0)]
    assert shown == [("dense", 0, 0, 0), *ticket, *controls]


def test_a_seed_whose_dense_run_diverged_is_not_the_one_shown() -> None:
    findings = conclude("x", experiment(seeds=2, levels=2, diverge=("dense", 0, 0)), POLICY)
    assert {run.seed for run in worth_showing(findings)} == {1}


def test_of_very_many_levels_the_first_the_last_and_the_sweet_spot_stay() -> None:
    findings = conclude("x", experiment(seeds=3, levels=100, variants=("dense", "ticket"), points=2), POLICY)
    assert findings.sweet_spot is not None
    levels = [run.level for run in worth_showing(findings)]
    assert len(levels) <= 25
    assert {0, 1, 100, findings.sweet_spot.answer[0]} <= set(levels)


def test_passages_begin_at_their_headings() -> None:
    def passages(text: str) -> list[tuple[str, str]]:
        return Sample("dense", 0, 0, 0.0, text).passages

    assert passages("") == []
    assert passages("Once upon a time\n") == [("", "Once upon a time")]
    assert passages("=== ROMEO: ===\nAy me!\n\n=== JULIET: ===\n== no ===\n") == [
        ("ROMEO:", "Ay me!"),
        ("JULIET:", "== no ==="),
    ]
    assert passages("before\n=== a ===\nb") == [("", "before"), ("a", "b")]
