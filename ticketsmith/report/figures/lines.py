"""Lines over the weights that remain: a mean and its confidence band for each series, points to hover, end labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import altair as alt

from ticketsmith.report.figures.parts import Label, Row, colour, dash, data, end_labels, faded, reading, shape, zoom
from ticketsmith.report.theme import Series


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
    # A generous, invisible target under the pointer: a finger is not as fine as a 7 pixel mark.
    hover = (
        base.properties(name="hover")
        .mark_point(clip=True, filled=True, size=420, opacity=0)
        .encode(tooltip=[alt.Tooltip(f"{entry}:N") if isinstance(entry, str) else entry for entry in tooltip])
    )
    return [band, line, points, hover.add_params(zoom()), *end_labels([*labels, *_ends(rows, series)], place)]


def _ends(rows: Sequence[Row], series: Sequence[Series]) -> list[Label]:
    """Every line is named at the right edge of the plot, at the height at which it ends."""
    labels = []
    for entry in series:
        own = [row for row in rows if row["series"] == entry.key]
        if len(own) > 1:
            last = min(own, key=lambda row: float(row["density"]))
            labels.append(Label(entry, last["mean"], entry.label))
    return labels
