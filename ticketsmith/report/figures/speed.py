"""Does sparsity make it faster? Measured speed-up against the weights that remain, for every runtime and batch size."""

from __future__ import annotations

import math
from collections.abc import Sequence

import altair as alt

from ticketsmith.evidence import words
from ticketsmith.evidence.findings import Findings
from ticketsmith.evidence.speed import Speed, speeds
from ticketsmith.evidence.variants import DENSE, display
from ticketsmith.report.figures.base import (
    HEIGHT,
    Figure,
    Label,
    Row,
    colour,
    dash,
    data,
    density_axis,
    end_labels,
    faded,
    finished,
    log_ticks,
    note,
    reading,
    rule,
    shape,
)
from ticketsmith.report.theme import CYCLE, SOFT, Series


def speed_figures(findings: Findings) -> list[Figure]:
    """One figure, or none without a benchmark of dense or the method."""
    benchmark = findings.benchmark
    points = [p for p in speeds(benchmark) if p.variant in (DENSE, findings.subject) and p.speedup > 0 and p.low > 0]
    if benchmark is None or not any(p.variant != DENSE for p in points):
        return []
    kinds = list(dict.fromkeys((p.runtime, p.batch_size, p.threads) for p in points))
    series = [
        Series(f"{runtime}-{batch}-{threads}", f"{runtime}, batch {batch}", CYCLE[index % len(CYCLE)])
        for index, (runtime, batch, threads) in enumerate(kinds)
    ]
    rows = [
        _row(point, entry)
        for entry, kind in zip(series, kinds, strict=True)
        for point in points
        if _kind(point) == kind
    ]
    low = min(0.9, *(row["low"] for row in rows)) * 0.92
    high = max(1.1, *(row["high"] for row in rows)) * 1.08

    def place(value: float) -> float:
        return math.log(high / value) / math.log(high / low) * HEIGHT

    x = density_axis([row["density"] for row in rows])
    y = alt.Y(
        "mean:Q",
        scale=alt.Scale(type="log", domain=[low, high], nice=False),
        axis=alt.Axis(
            title="Speed-up over dense (log scale)",
            values=log_ticks(low, high),
            labelExpr="format(datum.value, '~g') + '\u00d7'",
        ),
    )
    base = alt.Chart(data(rows)).encode(x=x, y=y, color=colour(series))
    bars = (
        alt.Chart(data(rows))
        .mark_rule(strokeWidth=2)
        .encode(x=x, y=reading(y, "low"), y2="high:Q", color=colour(series), opacity=faded(0.7))
    )
    line = base.mark_line(strokeWidth=1.8).encode(strokeDash=dash(series), opacity=faded(0.8))
    marks = base.mark_point(filled=True, size=55).encode(shape=shape(series), opacity=faded())
    fields = ("Variant", "Weights remaining", "Sparsity", "Runtime", "Speed-up", "Interval", "Latency")
    hover = (
        base.properties(name="hover")
        .mark_point(filled=True, size=420, opacity=0)
        .encode(tooltip=[alt.Tooltip(f"{f}:N") for f in fields])
    )
    ends = [Label(entry, [r["mean"] for r in rows if r["series"] == entry.key][-1], entry.label) for entry in series]
    one = [rule(1.0, y, SOFT, 1.4, (4, 3)), _one(y)]
    title = _title(points)
    return [
        Figure(
            name="speed-up",
            section="speed",
            title=title,
            caption=(
                f"Measured, side by side with dense on {benchmark.reference} ({benchmark.device}); bars are "
                f"{words.percent(benchmark.confidence)} intervals. Above the 1\u00d7 line is faster than dense."
            ),
            alt=f"Measured speed-up against the share of weights remaining. {title}.",
            spec=finished(alt.layer(*one, bars, line, marks, hover, *end_labels(ends, place))),
            legend=tuple(series),
        )
    ]


def _kind(point: Speed) -> tuple[str, int, int]:
    return point.runtime, point.batch_size, point.threads


def _one(y: alt.Y) -> alt.Chart:
    look = {"align": "left", "dx": 6, "dy": -8, "color": SOFT}
    return note("as fast as dense", x=alt.value(0), y=reading(y, "y"), rows=[{"y": 1.0}], **look)


def _row(point: Speed, series: Series) -> Row:
    return {
        "series": series.key,
        "density": 100 * (1 - point.sparsity),
        "mean": point.speedup,
        "low": point.low,
        "high": point.high,
        "Variant": display(point.variant),
        "Weights remaining": words.share(1 - point.sparsity),
        "Sparsity": words.share(point.sparsity),
        "Runtime": f"{point.runtime}, batch {point.batch_size}, {words.plural(point.threads, 'thread')}",
        "Speed-up": words.times(point.speedup),
        "Interval": f"{words.times(point.low)} to {words.times(point.high)}",
        "Latency": f"{point.median_ms:.3g} ms a call",
    }


def _title(points: Sequence[Speed]) -> str:
    """The fastest point that is surely faster than dense, or that none is."""
    sure = [point for point in points if point.variant != DENSE and point.low > 1.0]
    if not sure:
        return "No measured level runs faster than dense"
    top = max(sure, key=lambda point: point.speedup)
    kept = words.share(1 - top.sparsity)
    return f"Up to {words.times(top.speedup)} as fast as dense: {kept} of the weights, {top.runtime}, batch {top.batch_size}"
