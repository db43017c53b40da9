"""Does sparsity make it faster? Measured speed-up over the best dense runtime, beside what the weights would allow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from ticketsmith import units
from ticketsmith.evidence.findings import Findings
from ticketsmith.evidence.scorecard import Group, Scorecard
from ticketsmith.evidence.speed import Speed
from ticketsmith.evidence.variants import DENSE
from ticketsmith.report.figures import parts
from ticketsmith.report.figures.parts import HEIGHT, Figure, Label, Row
from ticketsmith.report.sentences.deployment import conditions
from ticketsmith.report.sentences.names import display, runtime_name
from ticketsmith.report.theme import CYCLE, GREY, SOFT, Series, Style

_IDEAL = Series("ideal", "Ideal: 1/density", Style("#8A93A0", "#56606E", (2, 3)))
_ROOFLINE = Series("roofline", "Roofline of this machine", Style(GREY.colour, GREY.ink, (9, 4)))
_MOST = len(CYCLE)  # more lines than styles could not be told apart


def speed_figures(findings: Findings) -> list[Figure]:
    """By runtime in the cell that leads, and by setting where there are several; none without a measured level."""
    card = findings.scorecard
    if card is None or card.lead is None:
        return []
    figures = (_by_runtime(card, card.lead), _by_setting(card) if len(card.groups) > 1 else None)
    return [figure for figure in figures if figure is not None]


def _by_runtime(card: Scorecard, group: Group) -> Figure | None:
    points = [point for point in group.points if point.variant in (DENSE, card.subject)]
    names = list(dict.fromkeys(point.runtime for point in points))
    lines = {name: [point for point in points if point.runtime == name] for name in names}
    if not any(point.variant != DENSE for point in points) or group.dense is None:
        return None
    title = _title(card, points)
    spec, legend = _chart({runtime_name(name): own for name, own in lines.items()}, bounds=True)
    return Figure(
        name="speed-up",
        section="speed",
        title=title,
        caption=(
            f"Measured side by side with dense on {runtime_name(group.dense.runtime)}, the best dense runtime "
            f"({conditions(group)}, {card.device}); bars are {units.percent(card.confidence)} intervals. Above the 1\u00d7 "
            f"line is faster.{_bounds(points)}"
        ),
        alt=f"Measured speed-up against the share of prunable weights remaining, one line a runtime. {title}.",
        spec=spec,
        legend=legend,
    )


def _by_setting(card: Scorecard) -> Figure | None:
    settings = {
        conditions(group).capitalize(): own
        for group in card.groups
        if (own := [row for row in group.rows if row.variant == card.subject])
    }
    if len(settings) < 2:
        return None
    lines = dict(list(settings.items())[:_MOST])
    judged = [group for group in card.groups if group.cell.precision == card.groups[0].cell.precision]
    pays = sum(group.choice is not None for group in judged)
    title = (
        f"What passes its gates is surely faster in {pays or 'none'} of {units.plural(len(judged), 'measured setting')}"
        if card.deployable
        else "Other settings, other speeds"
    )
    spec, legend = _chart(lines, bounds=False)
    return Figure(
        name="speed-up-settings",
        section="speed",
        title=title,
        caption=(
            "Each level on its fastest runtime, against dense on the best dense runtime of the same setting; "
            f"bars are {units.percent(card.confidence)} intervals."
            f"{'' if len(judged) == len(card.groups) else ' The gates did not judge rounded weights.'}"
            f"{'' if len(lines) == len(settings) else f' Drawn are the first {len(lines)} of {len(settings)} settings.'}"
        ),
        alt=f"Measured speed-up against the share of prunable weights remaining, one line a setting. {title}.",
        spec=spec,
        legend=legend,
    )


def _chart(lines: Mapping[str, Sequence[Speed]], bounds: bool) -> tuple[Mapping[str, Any], tuple[Series, ...]]:
    """The specification and the legend: a line of points with intervals for each name."""
    series = [Series(f"s{i}", name, CYCLE[i % _MOST]) for i, name in enumerate(lines)]
    rows = [_row(point, entry) for entry, own in zip(series, lines.values(), strict=True) for point in own]
    measured = [point for own in lines.values() for point in own]
    roof = _roof(measured) if bounds else []
    low = min(0.9, *(row["low"] for row in rows)) * 0.92
    high = max(1.1, *(row["high"] for row in rows)) * (1.6 if bounds else 1.08)
    high = max([high, *(1.08 * row["mean"] for row in roof if row["mean"] < 4 * high)])

    def place(value: float) -> float:
        return math.log(high / value) / math.log(high / low) * HEIGHT

    x = parts.density_axis([row["density"] for row in rows])
    title, ticks = "Speed-up over the best dense runtime", parts.log_ticks(low, high)
    y = parts.log_axis(alt.Y, "mean:Q", title, (low, high), ticks, suffix="\u00d7")
    base = alt.Chart(parts.data(rows)).encode(x=x, y=y, color=parts.colour(series))
    bars = (
        alt.Chart(parts.data(rows))
        .mark_rule(strokeWidth=2)
        .encode(x=x, y=parts.reading(y, "low"), y2="high:Q", color=parts.colour(series), opacity=parts.faded(0.7))
    )
    line = base.mark_line(strokeWidth=1.8).encode(strokeDash=parts.dash(series), opacity=parts.faded(0.8))
    marks = base.mark_point(filled=True, size=55).encode(shape=parts.shape(series), opacity=parts.faded())
    fields = ("Variant", "Weights remaining", "Sparsity", "Runtime", "Setting", "Speed-up", "Interval", "Latency")
    hover = parts.hover(base, fields, clip=False)
    sparsest = [
        min((row for row in rows if row["series"] == s.key), key=lambda row: float(row["density"])) for s in series
    ]
    ends = [Label(entry, row["mean"], entry.label) for entry, row in zip(series, sparsest, strict=True)]
    look = {"align": "left", "dx": 6, "dy": 9, "color": SOFT}
    even = parts.note("as fast as the best dense", x=alt.value(0), y=parts.reading(y, "y"), rows=[{"y": 1.0}], **look)
    layers = [parts.rule(1.0, y, SOFT, 1.4, (4, 3)), even]
    if bounds:
        least = min(row["density"] for row in rows)
        ideal: list[Row] = [{"series": _IDEAL.key, "density": d, "mean": 100 / d} for d in (100.0, least)]
        for entry, bound in ((_IDEAL, ideal), (_ROOFLINE, roof)):
            if len(bound) > 1:
                layers.append(_bound(entry, bound, x, y))
                ends.append(Label(entry, bound[-1]["mean"], entry.label))
                series.append(entry)
    return parts.finished(alt.layer(*layers, bars, line, marks, hover, *parts.end_labels(ends, place))), tuple(series)


def _bound(entry: Series, rows: Sequence[Row], x: alt.X, y: alt.Y) -> alt.Chart:
    line = alt.Chart(parts.data(rows)).mark_line(
        clip=True, color=entry.style.colour, strokeWidth=1.4, strokeDash=list(entry.style.dash)
    )
    chart: alt.Chart = line.encode(x=x, y=y, opacity=parts.faded())
    return chart


def _roof(points: Sequence[Speed]) -> list[Row]:
    """How fast each level could be at most: its fastest runtime, were it at the peak of the machine."""
    bounds: dict[float, float] = {}
    for point in points:
        if point.roofline and point.variant != DENSE:
            density = 100 * (1 - point.sparsity)
            bounds[density] = max(bounds.get(density, 0.0), point.speedup / point.roofline)
    return [{"series": _ROOFLINE.key, "density": d, "mean": bounds[d]} for d in sorted(bounds, reverse=True)]


def _bounds(points: Sequence[Speed]) -> str:
    text = " Ideal: a call would cost what its weights cost."
    if len(_roof(points)) > 1:
        text += " Roofline: the measured peak arithmetic and bandwidth of the machine allow no more."
    return text


def _row(point: Speed, series: Series) -> Row:
    setting = [point.phase] if point.phase else []
    setting += [f"batch {point.batch_size}", units.plural(point.threads, "thread"), point.precision]
    return {
        "series": series.key,
        "density": 100 * (1 - point.sparsity),
        "mean": point.speedup,
        "low": point.low,
        "high": point.high,
        "Variant": display(point.variant),
        "Weights remaining": units.share(1 - point.sparsity),
        "Sparsity": units.share(point.sparsity),
        "Runtime": runtime_name(point.runtime),
        "Setting": ", ".join(setting),
        "Speed-up": units.times(point.speedup),
        "Interval": f"{units.times(point.low)} to {units.times(point.high)}",
        "Latency": f"{units.latency(point.median_ms / 1000)} a call",
    }


def _title(card: Scorecard, points: Sequence[Speed]) -> str:
    """The best that passes its gates; else the mildest level that is surely faster; else that none is."""
    lead = card.lead
    if lead is not None and lead.choice is not None:
        share = units.share(1 - lead.choice.sparsity)
        against = runtime_name(lead.choice.against)
        return f"With {share} of the prunable weights, {units.times(lead.choice.speedup)} as fast as dense on {against}"
    sure = [point for point in points if point.variant != DENSE and point.low > 1.0]
    if not sure:
        return "No measured level is surely faster than dense on the best dense runtime"
    first = units.share(min(point.sparsity for point in sure))
    if not card.statuses:
        return f"At {first} sparsity surely faster than dense on the best dense runtime"
    return f"Nothing that passes its gates is surely faster than the best dense; {first} sparsity is"
