"""Which layers keep their weights? The density of every prunable layer at every level of the method."""

from __future__ import annotations

import altair as alt

from ticketsmith import units
from ticketsmith.evidence.findings import Findings
from ticketsmith.evidence.statistics import mean
from ticketsmith.report.figures.parts import Figure, Row, data, finished
from ticketsmith.report.sentences.names import display
from ticketsmith.report.theme import INK

TALLEST = 640  # pixels: a deep network has thinner rows, not a longer page


def layer_figures(findings: Findings) -> list[Figure]:
    """One figure: a table of colours, layers down and levels across, means over seeds."""
    runs = [run for run in findings.results if run.variant == findings.subject and run.layers]
    if not runs:
        return []
    levels = sorted({run.level for run in runs})
    names = list(runs[0].layers)
    rows: list[Row] = []
    for level in levels:
        here = [run for run in runs if run.level == level]
        left = units.share(mean([run.density for run in here])).replace(" %", "")
        for name in names:
            density = mean([run.layers[name].density for run in here if name in run.layers])
            count = mean([run.layers[name].kept for run in here if name in run.layers])
            rows.append(
                {
                    "layer": name,
                    "left": left,
                    "density": 100 * density,
                    "cell": f"{100 * density:.0f}" if density >= 0.0995 else f"{100 * density:.2g}",
                    "Layer": name,
                    "Level": f"{level} ({left} % of all prunable weights left)",
                    "Weights kept": f"{units.share(density)} ({count:,.0f} of {runs[0].layers[name].total:,})",
                }
            )
    low = max(min(row["density"] for row in rows), 1e-3)
    x = alt.X(
        "left:O",
        sort=None,
        axis=alt.Axis(title="% of all prunable weights remaining, by level", labelAngle=0, labelOverlap="greedy"),
    )
    y = alt.Y("layer:N", sort=names, axis=alt.Axis(title=None, labelLimit=150, grid=False))
    shade = alt.Color(
        "density:Q", scale=alt.Scale(type="log", domain=[low, 100.0], range=["#F2F7FB", "#0B4F7D"]), legend=None
    )
    base = alt.Chart(data(rows)).encode(x=x, y=y)
    cells = base.mark_rect(stroke="white", strokeWidth=1.5).encode(
        color=shade, tooltip=[alt.Tooltip(f"{name}:N") for name in ("Layer", "Level", "Weights kept")]
    )
    # White on the dark half of the (logarithmic) scale, ink on the light half.
    middle = (low * 100.0) ** 0.5
    written = (
        alt.Chart(data(rows), name="labels-cells")
        .mark_text(fontSize=11, tooltip=None)
        .encode(
            x=x,
            y=y,
            text="cell:N",
            color=alt.condition(f"datum.density > {middle:.6g}", alt.value("white"), alt.value(INK)),
        )
    )
    row_height = max(14, min(34, TALLEST // len(names)))
    title = _title(findings, names)
    return [
        Figure(
            name="layers",
            section="layers",
            title=title,
            caption="Percent of its weights that each layer keeps; darker keeps more (log scale). Mean over seeds.",
            alt=f"Density of {units.plural(len(names), 'layer')} at {units.plural(len(levels), 'level')}. {title}.",
            spec=finished(alt.layer(cells, written), height=max(90, row_height * len(names))),
        )
    ]


def _title(findings: Findings, names: list[str]) -> str:
    levels = sorted({run.level for run in findings.results if run.variant == findings.subject})
    level = findings.sweet_spot.level if findings.sweet_spot else levels[-1]
    here = [run for run in findings.results if (run.variant, run.level) == (findings.subject, level)]
    density = {name: mean([run.layers[name].density for run in here]) for name in names}
    most, least = max(names, key=lambda name: density[name]), min(names, key=lambda name: density[name])
    what = "the sweet spot" if findings.sweet_spot else f"the sparsest level of {display(findings.subject)}"
    if density[most] - density[least] < 0.005:
        return f"At {what} every layer keeps about {units.share(density[most])} of its weights"
    top, bottom = units.share(density[most]), units.share(density[least])
    return f"At {what} {most} keeps most of its weights ({top}), {least} fewest ({bottom})"
