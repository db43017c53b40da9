"""How fast does each level learn? The early-stop iteration against the weights that remain."""

from __future__ import annotations

import altair as alt

from ticketsmith import units
from ticketsmith.evidence.findings import Findings
from ticketsmith.evidence.learning import EarlyStop
from ticketsmith.evidence.variants import DENSE
from ticketsmith.report.figures.parts import HEIGHT, Figure, Label, Row, band_lines, density_axis, finished, rule
from ticketsmith.report.sentences.names import display
from ticketsmith.report.theme import variant_series


def learning_figures(findings: Findings) -> list[Figure]:
    """One figure, or none when no pruned run has an early-stop iteration."""
    entries = [entry for entry in findings.learning if entry.variant != DENSE]
    if not entries:
        return []
    dense = next((entry for entry in findings.learning if entry.variant == DENSE), None)
    rows = [_row(entry.variant, entry) for entry in entries]
    if dense is not None:
        rows.insert(0, _row(findings.subject, dense))
    top = 1.08 * max(value for row in rows for value in (row["mean"], row["high"]) if value is not None) or 1.0
    x = density_axis([row["density"] for row in rows])
    y = alt.Y(
        "mean:Q",
        scale=alt.Scale(domain=[0, top], nice=False),
        axis=alt.Axis(
            title="Iteration of the lowest validation loss", tickCount=6, labelExpr="format(datum.value, ',')"
        ),
    )
    series = variant_series(findings.variants)
    layers, labels = [], []
    if dense is not None:
        layers.append(rule(dense.step.mean, y, "#4D4D4D", 1.2))
        labels = [Label(entry, dense.step.mean, entry.label) for entry in series if entry.key == DENSE]
    tooltip = ["Variant", "Weights remaining", "Sparsity", "Early stop", "Interval", "Speed of learning", "Seeds"]
    lines = [entry for entry in series if entry.key != DENSE]
    layers += band_lines(rows, lines, x, y, tooltip, lambda value: (top - value) / top * HEIGHT, labels)
    title = _title(findings)
    return [
        Figure(
            name="learning-speed",
            section="learning",
            title=title,
            caption=(
                "Early stop: the iteration with the lowest validation loss, found after training in full. Lower learns "
                f"faster. Mean over seeds with {units.percent(findings.policy.confidence)} confidence band; ratios to dense are "
                f"geometric means.{_censored(findings)}"
            ),
            alt=f"Early-stop iteration against the share of prunable weights remaining, one line a variant. {title}.",
            spec=finished(alt.layer(*layers)),
            legend=tuple(series),
        )
    ]


def _censored(findings: Findings) -> str:
    """Of how many runs the lowest loss is the last one that was measured."""
    runs, late = (sum(getattr(entry, field) for entry in findings.learning) for field in ("runs", "censored"))
    if not late:
        return ""
    return (
        f" In {late} of {units.plural(runs, 'run')} the last iteration is the early stop (censored): longer training might "
        "have found a later one, so that those iterations are lower bounds."
    )


def _row(series: str, entry: EarlyStop) -> Row:
    step = entry.step
    low = None if step.low is None else max(0.0, step.low)  # no iteration is negative, whatever a t interval says
    return {
        "series": series,
        "density": 100 * (1 - entry.sparsity),
        "mean": step.mean,
        "low": low,
        "high": step.high,
        "Variant": display(entry.variant),
        "Weights remaining": units.share(1 - entry.sparsity),
        "Sparsity": units.share(entry.sparsity),
        "Early stop": f"iteration {step.mean:,.0f}",
        "Interval": "one seed" if low is None or step.high is None else f"{low:,.0f} to {step.high:,.0f}",
        "Speed of learning": _times(entry) if entry.faster else "reference",
        "Seeds": str(step.n),
    }


def _times(entry: EarlyStop) -> str:
    faster = entry.faster
    assert faster is not None
    span = "" if faster.low is None or faster.high is None else f" ({faster.low:.2f} to {faster.high:.2f})"
    late = entry.censored + entry.dense_censored
    return f"{faster.mean:.2f}\u00d7 dense{span}{f'; {late} censored' if late else ''}"


def _title(findings: Findings) -> str:
    """The level that differs most from dense, if its interval excludes equal speed; a tie otherwise."""
    name = display(findings.subject)
    own = [entry for entry in findings.learning if entry.variant == findings.subject and entry.faster is not None]
    # A level whose own early stop is censored may be slower than it looks.
    own = [entry for entry in own if not entry.censored]
    sure = [entry for entry in own if entry.faster and entry.faster.low is not None and entry.faster.low > 1.0]
    if sure:
        best = max(sure, key=lambda entry: entry.faster.mean if entry.faster else 0.0)
        assert best.faster is not None
        share = units.share(1 - best.sparsity)
        bound = "at least " if best.dense_censored else ""  # dense might go on
        return f"{name}: learns up to {bound}{best.faster.mean:.1f}\u00d7 as fast as dense, at {share} of the prunable weights"
    return f"{name}: not shown to learn faster than dense at any level"
