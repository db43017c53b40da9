"""At what sparsity does quality drop? Mean and confidence band of every variant, the gate, the sweet spot."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from ticketsmith import units
from ticketsmith.evidence.controls import Regime
from ticketsmith.evidence.findings import Findings
from ticketsmith.evidence.results import Metric
from ticketsmith.evidence.variants import DENSE
from ticketsmith.evidence.verdicts import Gate, Summary
from ticketsmith.report.figures import parts
from ticketsmith.report.figures.parts import HEIGHT, Figure, Label, Row
from ticketsmith.report.sentences import measures
from ticketsmith.report.sentences.names import display
from ticketsmith.report.theme import SOFT, STATUS_INK, variant_series


@dataclass(frozen=True)
class Frame:
    """The range of the y axis: what decides (dense, the gate, the way down) fills it; collapsed curves leave it."""

    low: float
    high: float
    cut: bool

    def place(self, value: float) -> float:
        """Pixels from the top."""
        return (self.high - value) / (self.high - self.low) * HEIGHT

    def axis(self, metric: Metric) -> alt.Y:
        """The y axis: ``mean`` of a row, on the test split."""
        return alt.Y(
            "mean:Q",
            scale=alt.Scale(domain=[self.low, self.high], zero=False, nice=False),
            axis=alt.Axis(title=f"Test {metric.name}{f', {metric.unit}' if metric.unit else ''}", tickCount=6),
        )


def quality_figures(findings: Findings) -> list[Figure]:
    """One figure for each gated metric, or of the experiment's own metric when no gate was set."""
    names = list(dict.fromkeys(gate.metric for gate in findings.policy.gates)) or [findings.metric.name]
    return [figure for name in names if (figure := _figure(findings, findings.metrics[name])) is not None]


def _figure(findings: Findings, metric: Metric) -> Figure | None:
    pruned = [variant for variant in findings.variants if variant != DENSE]
    rows = [_row(findings, metric, variant, s) for variant in pruned for s in findings.series(variant, metric.name)]
    if not rows:
        return None
    dense = findings.summary(DENSE, 0, metric.name)
    gate = next((gate for gate in findings.policy.gates if gate.metric == metric.name), None)
    limit = gate_height(dense, gate, metric)
    if dense is not None:  # the method starts at the dense network
        rows.insert(0, _row(findings, metric, findings.subject, dense))
    series = variant_series(findings.variants)
    frame = framed(rows, dense, limit, metric)
    x = parts.density_axis([row["density"] for row in rows])
    y = frame.axis(metric)
    layers = _spot(findings, x, min(row["density"] for row in rows))
    labels = []
    if dense is not None:
        layers.append(parts.rule(dense.mean, y, "#4D4D4D", 1.2))
        labels = [Label(entry, dense.mean, entry.label) for entry in series if entry.key == DENSE]
    if limit is not None and gate is not None:
        last = min((row for row in rows if row["series"] == findings.subject), key=lambda r: float(r["density"]))
        crossed = last["mean"] < limit if metric.higher_is_better else last["mean"] > limit
        dy = -9 if crossed == metric.higher_is_better else 12  # on the side where no curve is
        layers += gate_line(limit, y, gate, metric, alt.value("width"), dx=-6, dy=dy, align="right")
    quality = alt.Tooltip("value:N", title=_heading(metric))
    tooltip = ("Variant", "Weights remaining", "Sparsity", quality, "Interval", "Seeds", "Gate")
    lines = [entry for entry in series if entry.key != DENSE]
    layers += parts.band_lines(rows, lines, x, y, tooltip, frame.place, labels)
    title = _title(findings)
    return Figure(
        name="quality" if metric == findings.metric else f"quality-{parts.file_name(metric.name)}",
        section="quality",
        title=title if metric == findings.metric else f"{_heading(metric)}: {title[0].lower()}{title[1:]}",
        caption=_caption(findings, metric, frame),
        alt=f"Test {metric.name} against the share of prunable weights remaining, one line a variant. {title}.",
        spec=parts.finished(alt.layer(*layers)),
        legend=tuple(series),
    )


def _heading(metric: Metric) -> str:
    return metric.name.replace("_", " ").capitalize()


def _row(findings: Findings, metric: Metric, variant: str, summary: Summary) -> Row:
    return {
        "series": variant,
        "density": 100 * (1 - summary.sparsity),
        "mean": summary.mean,
        "low": summary.low,
        "high": summary.high,
        "Variant": display(summary.variant),
        "Weights remaining": units.share(1 - summary.sparsity),
        "Sparsity": units.share(summary.sparsity),
        "value": measures.value(metric, summary.mean),
        "Interval": measures.interval(metric, summary),
        "Seeds": str(summary.replicates),
        "Gate": str(findings.statuses.get((summary.variant, summary.level), "reference")),
    }


def gate_height(dense: Summary | None, gate: Gate | None, metric: Metric) -> float | None:
    """The gate as a height: the dense mean, worsened by the margin."""
    if dense is None or gate is None:
        return None
    margin = gate.margin * abs(dense.mean) if gate.relative else gate.margin
    return dense.mean - margin if metric.higher_is_better else dense.mean + margin


def framed(rows: Sequence[Row], dense: Summary | None, limit: float | None, metric: Metric) -> Frame:
    """The y range for rows with ``mean``, ``low`` and ``high``.

    At the good end it ends two margins beyond the best mean, and percentages at 100: what goes further is an interval of
    few seeds. At the bad end it shows the cliff.
    """
    means = [row["mean"] for row in rows] + ([] if dense is None else [dense.mean])
    bounds = means + [row[name] for row in rows for name in ("low", "high") if row[name] is not None]
    low, high = min(bounds), max(bounds)
    if metric.unit == "%":
        low, high = max(low, min(0.0, *means)), min(high, max(100.0, *means))
    cut = False
    if dense is not None and limit is not None:
        # Four more margins of the way down show the cliff; a control at chance level would flatten all of it.
        reach = 5 * abs(dense.mean - limit)
        if metric.higher_is_better and low < dense.mean - reach:
            low, cut = dense.mean - reach, True
        elif not metric.higher_is_better and high > dense.mean + reach:
            high, cut = dense.mean + reach, True
        if metric.higher_is_better:
            high = min(high, max(means) + 0.4 * reach)
        else:
            low = max(low, min(means) - 0.4 * reach)
        low, high = min(low, limit), max(high, limit)
    room = (high - low) or abs(high) or 1.0
    return Frame(low - 0.03 * room, high + 0.12 * room, cut)


def gate_line(limit: float, y: alt.Y, gate: Gate, metric: Metric, x: alt.Value, **look: Any) -> list[alt.Chart]:
    """The gate as a line over the whole width, with its name at ``x``."""
    text = f"Gate: dense {units.MINUS if metric.higher_is_better else '+'} {measures.margin(gate, metric)}"
    place, ink = parts.reading(y, "y"), STATUS_INK["FAIL"]
    name = parts.note(text, x=x, y=place, rows=[{"y": limit}], color=ink, **look)
    return [parts.rule(limit, y, "#D55E00", 1.6, (7, 4)), name]


def _spot(findings: Findings, x: alt.X, sparsest: float) -> list[alt.Chart]:
    spot = findings.sweet_spot
    if spot is None:
        return []
    sparsity = spot.sparsity
    rows = [{"density": 100 * (1 - sparsity)}]
    line = alt.Chart(parts.data(rows)).mark_rule(color=SOFT, strokeWidth=1.2, strokeDash=[3, 3], clip=True).encode(x=x)
    # Beside the line, on the side that has more room.
    share = math.log(rows[0]["density"] / 100) / math.log(sparsest / 100)
    side = {"align": "left", "dx": 6} if share < 0.5 else {"align": "right", "dx": -6}
    text = f"Sweet spot\n{units.share(sparsity)} sparsity"
    look = {"fontWeight": 600, "lineBreak": "\n", "baseline": "top", **side}
    return [line, parts.note(text, x=x, y=alt.value(2), rows=rows, **look)]


def _title(findings: Findings) -> str:
    spot = findings.sweet_spot
    name = display(findings.subject)
    if spot is None:
        return f"{name}: no level is shown to hold the gate"
    more = "" if spot.cliff_reached else ", the sparsest level trained"
    return f"{name}: quality holds with {units.removed(findings.size)} removed{more}"


def _caption(findings: Findings, metric: Metric, frame: Frame) -> str:
    level = units.percent(findings.policy.confidence)
    parts = [
        f"Mean over seeds on the test split; the bands are {level} confidence intervals of that mean: over seeds, "
        "not over the draw of test examples."
    ]
    if findings.replicates == 1:
        parts = ["One seed on the test split: without replicates there is no confidence band."]
    parts.append("Further right is sparser.")
    if frame.cut:
        parts.append(
            f"The axis is cut at the {'bottom' if metric.higher_is_better else 'top'}: curves beyond it leave it."
        )
    if findings.knee is not None and metric == findings.metric:
        parts.append(f"The curve of the method bends (knee) at {units.share(findings.knee.sparsity)} sparsity.")
    parts += _regimes(findings)
    return " ".join(parts)


def _regimes(findings: Findings) -> list[str]:
    """Which levels prove something, in words."""
    sparsity = {verdict.level: verdict.sparsity for verdict in findings.test if verdict.variant == findings.subject}
    proven = [sparsity[level] for level, regime in findings.regimes.items() if regime is Regime.TICKET]
    if not proven:
        return []
    where = units.share(min(proven))
    if len(proven) > 1:
        where = f"{where} to {units.share(max(proven))}"
    return [f"Only the method, and none of its controls, passes the gate at {where} sparsity."]
