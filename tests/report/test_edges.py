"""Experiments that lack what most have: each still has a report that says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from ticketsmith.evidence.findings import conclude
from ticketsmith.evidence.results import CurvePoint, Result
from ticketsmith.evidence.serving import Benchmark, Timing
from ticketsmith.evidence.speed import speeds
from ticketsmith.evidence.verdicts import Gate, GatePolicy, Summary
from ticketsmith.report.draw import standalone
from ticketsmith.report.figures.quality import framed
from ticketsmith.report.markdown import report_markdown
from ticketsmith.report.scorecard import document
from ticketsmith.report.story import tell

from ..evidence.synthetic import ACCURACY, LOSS, experiment, served
from .conftest import POLICY


def broken(run: Result) -> Result:
    return replace(run, diverged=True, final=None, early_stop=None, diverged_at=3)


def stopped_at_once(run: Result) -> Result:
    assert run.early_stop is not None
    return replace(run, early_stop=replace(run.early_stop, step=0))


def without_curves(runs: list[Result]) -> list[Result]:
    """Of which half of the figures are not drawn: those that have nothing to do with speed."""
    return [replace(run, curve=()) for run in runs]


def not_finite(run: Result) -> Result:
    points = [CurvePoint(0, float("nan"), {"loss": float("inf")}), CurvePoint(10, 0.1, {"loss": 0.1})]
    return replace(run, curve=points)


LACKING: dict[str, tuple[Callable[[Result], Result | None], str]] = {
    "only dense": (lambda run: run if run.variant == "dense" else None, "Only the dense baseline"),
    "no dense": (lambda run: None if run.variant == "dense" else run, "no dense baseline of the same seeds"),
    "a ticket that diverged": (
        lambda run: broken(run) if run.variant == "ticket" else run,
        "No tested sparsity passes",
    ),
    "everything diverged": (broken, "The dense baseline diverged"),
    "one level": (lambda run: run if run.level <= 1 else None, "At least 30.0 %"),
    "no time, cost, layers, curve": (
        lambda run: replace(run, seconds=None, training_flops=0.0, layers={}, curve=()),
        "At least 76.0 %",
    ),
    "another method": (lambda run: replace(run, variant=run.variant.replace("ticket", "one_shot")), "At least 76.0 %"),
    "early stop at the start": (stopped_at_once, "At least 76.0 %"),
    "a curve that is not finite": (not_finite, "At least 76.0 %"),
}


@pytest.mark.parametrize("case", LACKING)
def test_what_is_lacking_is_told(case: str) -> None:
    change, words = LACKING[case]
    runs = [changed for run in experiment(2, 4) if (changed := change(run)) is not None]
    story = tell(conclude(case, runs, POLICY))
    assert words in story.headline
    assert words in report_markdown(story).decode()
    assert story.rows
    assert all(standalone(figure, titled=True)["layer"] for figure in story.figures)


def only(keep: Callable[[Timing], bool]) -> Callable[[Benchmark], Benchmark]:
    return lambda measured: replace(measured, timings=tuple(timing for timing in measured.timings if keep(timing)))


MEASURED: dict[str, tuple[Callable[[Benchmark], Benchmark], str]] = {
    "nothing at all": (only(lambda timing: False), "Inference was not measured"),
    "only dense": (only(lambda timing: timing.variant == "dense"), "No sparsity that passes its gates was measured"),
    "no dense": (only(lambda timing: timing.variant != "dense"), "Best choice that passes its gates"),
    "only large batches": (only(lambda timing: timing.batch_size == 32), "(batch size 32, 1 thread)"),
    "only low precision": (
        only(lambda timing: timing.precision == "bfloat16"),
        "whose quality the gates did not judge",
    ),
    "only dense runtimes": (only(lambda timing: timing.dense), "Unstructured sparsity does not pay here"),
    "a level that was not trained": (
        lambda measured: replace(measured, timings=tuple(replace(t, level=t.level + 50) for t in measured.timings)),
        "No sparsity that passes its gates was measured",
    ),
    "loads without a target or steps": (
        lambda measured: replace(
            measured,
            loads=(replace(measured.loads[0], target_ms=0.0), replace(measured.loads[1], steps=(), target_ms=0.0)),
        ),
        "Best choice that passes its gates",
    ),
}


@pytest.mark.parametrize("case", MEASURED)
def test_what_was_not_measured_is_told(case: str) -> None:
    change, words = MEASURED[case]
    runs = without_curves(experiment(cliff=0.083, seeds=3, levels=6, points=3))
    findings = conclude(case, runs, POLICY, benchmark=change(served(runs)))
    story = tell(findings)
    assert words in story.served
    assert words in report_markdown(story).decode()
    assert json.loads(json.dumps(document(findings), allow_nan=False))["answer"] == story.served
    assert all(standalone(figure, titled=True)["layer"] for figure in story.figures)


def test_a_percentage_ends_at_100_in_figures_whatever_the_interval() -> None:
    wild = [{"mean": mean, "low": mean - 120, "high": mean + 120} for mean in (96.0, 90.0, 60.0)]
    dense = Summary("dense", 0, 0.0, "accuracy", "test", "final", 97.0, 96.0, 98.0, 2, (96.5, 97.5))
    frame = framed(wild, dense, 95.0, ACCURACY)
    assert 97.0 < frame.high <= 103.0
    assert (frame.cut, 80.0 < frame.low < 90.0) == (True, True)
    losses = [{"mean": mean, "low": mean - 3, "high": mean + 3} for mean in (0.3, 0.4)]
    below = framed(losses, replace(dense, metric="loss", mean=0.3), 0.4, LOSS)
    assert below.low > 0.0


def test_a_speed_that_passes_no_gate_is_not_sold() -> None:
    runs = without_curves(experiment(cliff=0.083, seeds=3, levels=8, points=3))
    findings = conclude("slow", runs, POLICY, benchmark=served(runs, gain=0.15))
    figure = next(figure for figure in tell(findings).figures if figure.name == "speed-up")
    sure = min(p.sparsity for p in speeds(findings.benchmark) if p.low > 1 and p.cell == ("", "float32", 1, 1))
    assert figure.title == (
        f"Nothing that passes its gates is surely faster than the best dense; {100 * sure:.1f} % sparsity is"
    )


def test_a_metric_where_lower_is_better() -> None:
    runs = [replace(run, metrics={"loss": LOSS}) for run in experiment(4, 6)]
    story = tell(conclude("loss", runs, GatePolicy((Gate("loss", max_relative_increase=0.5),))))
    assert "without test loss rising by more than 50 %" in story.headline
    assert story.metric == "Loss"


def test_without_gates_there_are_still_curves() -> None:
    story = tell(conclude("free", experiment(2, 3), GatePolicy(())))
    assert {row.status for row in story.rows} == {"Reference", "Not judged"}
    assert story.figures[0].name == "quality"


def test_a_handful_of_weights_is_not_rounded_away() -> None:
    runs = [replace(run, kept=7) if run.variant == "ticket" and run.level == 4 else run for run in experiment(2, 4)]
    row = next(r for r in tell(conclude("deep", runs, POLICY)).rows if (r.variant, r.level) == ("ticket", 4))
    assert row.sparsity == "99.9968 %"
