"""What every figure shares: its description, the axis of weights that remain, direct labels, highlighting."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import altair as alt

from ticketsmith.report.theme import INK, SOFT, Series

HEIGHT = 340  # pixels of the plotting area
LABEL_HEIGHT = 16  # pixels that one line of a direct label needs
Row = dict[str, Any]
Axis = TypeVar("Axis", alt.X, alt.Y)


@dataclass(frozen=True)
class Figure:
    """One chart and its words.

    ``spec`` is Vega-Lite without a title, as wide as its container. ``title`` says the finding, ``caption`` how to read
    it, ``alt`` what a reader who cannot see it should know. ``legend`` are the series that can be highlighted.
    """

    name: str
    section: str
    title: str
    caption: str
    alt: str
    spec: Mapping[str, Any]
    legend: tuple[Series, ...] = ()


def finished(chart: alt.LayerChart | alt.FacetChart, height: int = HEIGHT) -> dict[str, Any]:
    """The specification of a chart as wide as its container; its parameter ``focus`` highlights a series by key."""
    focus = alt.param(name="focus", value="")
    spec: dict[str, Any] = chart.add_params(focus).properties(width="container", height=height).to_dict()
    spec.pop("config", None)  # the theme is applied where the chart is drawn
    return spec


def file_name(name: str) -> str:
    """A user's name as a part of a file name: nothing in it can lead to another folder."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-") or "metric"


def data(rows: Sequence[Row]) -> alt.InlineData:
    """Rows inside the specification, numbers rounded to what a screen can show, so that the page stays small."""
    return alt.InlineData(values=[{name: _short(value) for name, value in row.items()} for row in rows])


def faded(strong: float = 1.0, weak: float = 0.12) -> Any:
    """Opacity by highlight: everything strong until a series is chosen, then all others weak."""
    return alt.condition("focus == '' || datum.series == focus", alt.value(strong), alt.value(weak))


def colour(series: Sequence[Series]) -> alt.Color:
    """The series' own colours, without a legend: the page and the direct labels name them."""
    domain, colours = [entry.key for entry in series], [entry.style.colour for entry in series]
    return alt.Color("series:N", scale=alt.Scale(domain=domain, range=colours), legend=None)


def dash(series: Sequence[Series]) -> alt.StrokeDash:
    """The series' own dashes."""
    domain, dashes = [entry.key for entry in series], [list(entry.style.dash) or [1, 0] for entry in series]
    return alt.StrokeDash("series:N", scale=alt.Scale(domain=domain, range=dashes), legend=None)


def shape(series: Sequence[Series]) -> alt.Shape:
    """The series' own point shapes."""
    domain, shapes = [entry.key for entry in series], [entry.style.shape for entry in series]
    return alt.Shape("series:N", scale=alt.Scale(domain=domain, range=shapes), legend=None)


def density_axis(densities: Sequence[float], title: str = "Prunable weights remaining (log scale)") -> alt.X:
    """Percent of prunable weights that remain, logarithmic, sparser to the right, as the literature draws it."""
    low = min(densities) * 0.85
    ticks = log_ticks(low, 100.0)
    return alt.X(
        "density:Q",
        scale=alt.Scale(type="log", reverse=True, domain=[low, 100.0 if max(densities) <= 100 else max(densities)]),
        axis=alt.Axis(values=ticks, labelExpr="format(datum.value, '~g') + ' %'", title=title, labelFlush=False),
    )


def log_axis(
    kind: type[Axis], field: str, title: str, bounds: tuple[float, float], ticks: Sequence[float], suffix: str = ""
) -> Axis:
    """A logarithmic axis; ``title`` and ``suffix``, which follows the number of each tick, are for a reader."""
    label = "format(datum.value, '~g')" + (f" + '{suffix}'" if suffix else "")
    scale = alt.Scale(type="log", domain=[*bounds], nice=False)
    axis: Axis = kind(field, scale=scale, axis=alt.Axis(title=f"{title} (log scale)", values=ticks, labelExpr=label))
    return axis


def zoom() -> alt.Parameter:
    """Drag to move with a mouse, Shift and wheel to zoom, double click to reset; fingers and wheel alone scroll on."""
    return alt.selection_interval(
        name="zoom",
        bind="scales",
        zoom="wheel![event.shiftKey]",
        translate="[pointerdown[event.pointerType != 'touch'], window:pointerup] > window:pointermove!",
    )


@dataclass(frozen=True)
class Label:
    """A direct label at the right edge of the plot: the height at which its line ends, and what to write there."""

    series: Series
    y: float
    text: str


def end_labels(labels: Sequence[Label], place: Callable[[float], float], height: int = HEIGHT) -> list[alt.Chart]:
    """Labels right of the plot, moved apart so that none covers another.

    ``place`` is the y scale: data value to pixels from the top. The layers are called ``labels-...``: a narrow page
    drops them and shows its own legend alone. A line that leaves the plot is marked with an arrow.
    """
    heights = [place(label.y) for label in labels]
    tops = spread([min(max(top, 0.0), float(height)) for top in heights], LABEL_HEIGHT, height)
    layers = []
    for index, (label, top) in enumerate(zip(labels, tops, strict=True)):
        arrow = " \u2193" if heights[index] > height + 1 else " \u2191" if heights[index] < -1 else ""
        layers.append(
            alt.Chart(data([{"series": label.series.key, "label": label.text + arrow}]), name=f"labels-{index}")
            .mark_text(align="left", dx=8, clip=False, fontWeight=600, color=label.series.style.ink)
            .encode(x=alt.value("width"), y=alt.value(top), text="label:N", opacity=faded())
        )
    return layers


def spread(tops: Sequence[float], gap: float, height: float) -> list[float]:
    """Positions as near to the wanted ones as a distance of ``gap`` allows, within 0 .. height where they fit."""
    order = sorted(range(len(tops)), key=lambda index: (tops[index], index))
    placed = list(tops)
    for before, after in pairwise(order):
        placed[after] = max(placed[after], placed[before] + gap)
    limit = height
    for index in reversed(order):
        placed[index] = min(placed[index], limit)
        limit = placed[index] - gap
    return placed


def band_lines(
    rows: Sequence[Row],
    series: Sequence[Series],
    x: alt.X,
    y: alt.Y,
    tooltip: Sequence[str | alt.Tooltip],
    place: Callable[[float], float],
    labels: Sequence[Label] = (),
) -> list[alt.Chart]:
    """The layers of such a chart. Rows hold ``series``, ``density`` (percent), ``mean``, ``low``, ``high`` and, as
    finished text, every field of ``tooltip``; ``low`` is None where there is one replicate. ``labels`` are
    more lines to name at the right edge.
    """
    source = data(rows)
    banded = data([row for row in rows if row["low"] is not None])
    base = alt.Chart(source).encode(x=x, y=y, color=colour(series))
    band = (
        alt.Chart(banded)
        .mark_area(clip=True)
        .encode(x=x, y=reading(y, "low"), y2="high:Q", color=colour(series), opacity=faded(0.16, 0.03))
    )
    line = base.mark_line(clip=True, strokeWidth=2.4).encode(strokeDash=dash(series), opacity=faded())
    points = base.mark_point(clip=True, filled=True, size=48).encode(shape=shape(series), opacity=faded())
    pointer = hover(base, tooltip).add_params(zoom())
    return [band, line, points, pointer, *end_labels([*labels, *_ends(rows, series)], place)]


def _ends(rows: Sequence[Row], series: Sequence[Series]) -> list[Label]:
    """Every line is named at the right edge of the plot, at the height at which it ends."""
    labels = []
    for entry in series:
        own = [row for row in rows if row["series"] == entry.key]
        if len(own) > 1:
            last = min(own, key=lambda row: float(row["density"]))
            labels.append(Label(entry, last["mean"], entry.label))
    return labels


def note(text: str, x: Any, y: Any, rows: Sequence[Row] = ({},), **mark: Any) -> alt.Chart:
    """A line of text in the plot; ``rows`` holds the one row that ``x`` and ``y`` read, unless they are pixels."""
    source = data([{**row, "note": text} for row in rows])
    chart: alt.Chart = alt.Chart(source).mark_text(**{"color": INK, **mark}).encode(x=x, y=y, text="note:N")
    return chart


def hover(
    chart: alt.Chart, fields: Sequence[str | alt.Tooltip], size: int = 420, clip: bool = True, **encodings: Any
) -> alt.Chart:
    """An invisible mark, as large as a finger, that shows ``fields`` of its row."""
    mark: dict[str, Any] = {"clip": True} if clip else {}
    points = chart.properties(name="hover").mark_point(filled=True, size=size, opacity=0, **mark)
    tooltip = [alt.Tooltip(f"{field}:N") if isinstance(field, str) else field for field in fields]
    shown: alt.Chart = points.encode(tooltip=tooltip, **encodings)
    return shown


def rule(value: float, y: alt.Y, colour: str = SOFT, width: float = 1.5, dashes: Sequence[int] = ()) -> alt.Chart:
    """A horizontal line over the whole width, on the scale of ``y``."""
    line = alt.Chart(data([{"y": value}]))
    line = line.mark_rule(color=colour, strokeWidth=width, strokeDash=list(dashes), clip=True)
    chart: alt.Chart = line.encode(y=reading(y, "y"))
    return chart


def reading(axis: Axis, field: str) -> Axis:
    """The same axis, reading another field."""
    other: Axis = axis.copy()
    other.shorthand = f"{field}:Q"
    return other


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 in every power of ten between two positive bounds; every other power alone when those are many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if len(powers) <= 4 else (1,)
    return [float(f"{step}e{power}") for power in powers for step in steps if low <= float(f"{step}e{power}") <= high]


def round_ticks(low: float, high: float) -> list[float]:
    """As ``log_ticks``; evenly spaced ones where the range is too narrow for three of those."""
    ticks = log_ticks(low, high)
    if len(ticks) >= 3:
        return ticks
    step = 10 ** math.floor(math.log10((high - low) / 3))
    step *= next(m for m in (1, 2, 5, 10) if (high - low) / (m * step) <= 5)
    return [step * i for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
