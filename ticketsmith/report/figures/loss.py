"""Loss over iterations of a few telling levels: dense, the sweet spot and its controls, the sparsest."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import altair as alt

from ticketsmith import units
from ticketsmith.evidence.findings import Findings
from ticketsmith.evidence.results import CurvePoint, Result
from ticketsmith.evidence.statistics import mean
from ticketsmith.evidence.variants import DENSE
from ticketsmith.report.figures import parts
from ticketsmith.report.figures.parts import HEIGHT, Figure, Label, Row
from ticketsmith.report.sentences.names import display
from ticketsmith.report.theme import SKY, Series, variant_series

POINTS = 120  # of one curve: more than a screen tells apart, few enough to keep the page small
Reading = Callable[[CurvePoint], float | None]


def loss_figures(findings: Findings) -> list[Figure]:
    """Validation and training loss; each is left out when no run recorded it."""
    metric = loss_metric(findings)
    readings: list[tuple[str, str, Reading]] = [("train", "Training loss", lambda point: point.train_loss)]
    if metric is not None:
        readings.insert(0, ("validation", f"Validation {metric}", lambda point: point.validation.get(metric)))
    figures = (_figure(findings, name, title, read) for name, title, read in readings)
    return [figure for figure in figures if figure is not None]


def loss_metric(findings: Findings) -> str | None:
    """The metric that is drawn as validation loss: ``loss``, or the first one where lower is better."""
    if "loss" in findings.metrics:
        return "loss"
    return next((name for name, metric in findings.metrics.items() if not metric.higher_is_better), None)


def telling_levels(findings: Findings) -> list[tuple[Series, list[Result]]]:
    """Dense, the method at its sweet spot (or middle) and at its sparsest, and the controls at the same sweet spot."""
    levels = sorted({run.level for run in findings.results if run.variant == findings.subject})
    middle = findings.sweet_spot.level if findings.sweet_spot else levels[len(levels) // 2] if levels else 0
    places = [(DENSE, 0), (findings.subject, middle), *((control, middle) for control in findings.controls)]
    looks = {entry.key: entry.style for entry in variant_series(findings.variants)}
    if levels and levels[-1] != middle:
        places.insert(2, (findings.subject, levels[-1]))
    curves = []
    for variant, level in places:
        runs = findings.levels.get((variant, level), [])
        if runs:
            style = SKY if variant == findings.subject and level != middle else looks[variant]
            name = display(variant).partition(" (")[0]
            label = name if variant == DENSE else f"{name} ({units.share(runs[0].density)} left)"
            curves.append((Series(f"{variant}-{level}", label, style), runs))
    return curves


def _figure(findings: Findings, name: str, title: str, read: Reading) -> Figure | None:
    rows: list[Row] = []
    lines: list[Series] = []
    for series, runs in telling_levels(findings):
        points = average_curve(runs, read)
        rows += [
            {"series": series.key, "step": step, "loss": value, "Run": series.label, "Loss": f"{value:.4g}"}
            for step, value in points
        ]
        lines += [series] if points else []
    if not rows:
        return None
    values = [row["loss"] for row in rows]
    logarithmic = min(values) > 0 and max(values) / min(values) > 20
    low, high = min(values), max(values)
    room = 0.03 * (high - low)
    low, high = (low * 0.9, high * 1.1) if logarithmic else (low - room, high + room + 1e-9)

    def place(value: float) -> float:
        scale = math.log if logarithmic else float
        return (scale(high) - scale(value)) / (scale(high) - scale(low)) * HEIGHT

    x = alt.X(
        "step:Q",
        scale=alt.Scale(nice=False),
        axis=alt.Axis(title="Training iteration", labelExpr="format(datum.value, ',')", tickCount=5),
    )
    y = alt.Y(
        "loss:Q",
        scale=alt.Scale(type="log" if logarithmic else "linear", domain=[low, high], nice=False),
        axis=alt.Axis(
            title=f"{title}{' (log scale)' if logarithmic else ''}",
            format="~g",
            values=parts.log_ticks(low, high) if logarithmic else alt.Undefined,
        ),
    )
    base = alt.Chart(parts.data(rows)).encode(x=x, y=y, color=parts.colour(lines))
    line = base.mark_line(clip=True, strokeWidth=2).encode(strokeDash=parts.dash(lines), opacity=parts.faded())
    hover = parts.hover(base, ("Run", alt.Tooltip("step:Q", title="Iteration", format=","), "Loss"), size=120)
    ends = [
        Label(entry, [row["loss"] for row in rows if row["series"] == entry.key][-1], entry.label) for entry in lines
    ]
    finish = [f"{label.y:.3g} for {_in_sentence(label.text)}" for label in ends]
    return Figure(
        name=f"loss-{name}",
        section="loss",
        title=f"{title} at the end: {units.listed(finish[:2])}",
        caption="Mean over the seeds, without runs that diverged. Lower is better.",
        alt=f"{title} over training iterations: {units.listed([entry.label for entry in lines])}.",
        spec=parts.finished(alt.layer(line, hover.add_params(parts.zoom()), *parts.end_labels(ends, place))),
        legend=tuple(lines),
    )


def _in_sentence(name: str) -> str:
    return name.removesuffix(" baseline").replace("Winning ticket", "ticket").replace("Dense", "dense")


def average_curve(runs: Sequence[Result], read: Reading) -> list[tuple[int, float]]:
    """The mean over runs at every iteration that all of them recorded, thinned to at most ``POINTS``.

    Diverged runs are left out: the mean of what is no longer a number says nothing.
    """
    curves = []
    for run in runs:
        if not run.diverged:
            values = {point.step: read(point) for point in run.curve}
            curves.append({step: value for step, value in values.items() if value is not None and math.isfinite(value)})
    if not curves:
        return []
    steps = sorted(set(curves[0]).intersection(*curves))
    return [(step, mean([curve[step] for curve in curves])) for step in thinned(steps)]


def thinned(steps: Sequence[int]) -> list[int]:
    """At most ``POINTS`` of the steps, evenly, with the first and the last."""
    if len(steps) <= POINTS:
        return list(steps)
    return [steps[round(index * (len(steps) - 1) / (POINTS - 1))] for index in range(POINTS)]
