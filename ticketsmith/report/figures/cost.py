"""What did the evidence cost? Training by variant, and the price of the ticket as it grows level by level."""

from __future__ import annotations

import altair as alt

from ticketsmith.evidence import words
from ticketsmith.evidence.cost import Spend
from ticketsmith.evidence.findings import Findings
from ticketsmith.evidence.variants import display
from ticketsmith.report.figures.base import HEIGHT, Figure, Row, data, finished, note
from ticketsmith.report.theme import BLUE, variant_series


def cost_figures(findings: Findings) -> list[Figure]:
    """Two figures; the second only where there are levels to add up."""
    return [figure for figure in (_by_variant(findings), _by_level(findings)) if figure is not None]


def _timed(findings: Findings) -> bool:
    """Whether every run knows its training time; a sum over some of them would compare what cannot be compared."""
    return findings.cost.total.seconds is not None and findings.cost.total.untimed == 0


def spent(spend: Spend, timed: bool) -> str:
    """``12 min 5 s`` of compute, or the arithmetic when the times are not all known."""
    if timed and spend.seconds is not None:
        return words.duration(spend.seconds)
    return words.flops(spend.flops) if spend.flops > 0 else "not recorded"


def _by_variant(findings: Findings) -> Figure | None:
    timed = _timed(findings)
    rows: list[Row] = []
    for variant, part in findings.cost.by_variant.items():
        amount = part.seconds if timed else part.flops
        rows.append(
            {
                "series": variant,
                "Variant": display(variant),
                "amount": amount or 0.0,
                "label": spent(part, timed),
                "Runs": str(part.runs),
                "Training time": words.duration(part.seconds) if part.seconds is not None else "not recorded",
                "Training arithmetic": words.flops(part.flops),
            }
        )
    most = max(row["amount"] for row in rows)
    if most == 0:
        return None
    series = variant_series(findings.variants)
    colours = alt.Color(
        "series:N",
        scale=alt.Scale(domain=[entry.key for entry in series], range=[entry.style.colour for entry in series]),
        legend=None,
    )
    y = alt.Y("Variant:N", sort=[row["Variant"] for row in rows], axis=None)
    x = alt.X("amount:Q", axis=None, scale=alt.Scale(domain=[0, most * 1.35]))
    base = alt.Chart(data(rows)).encode(x=x, y=y)
    fields = ("Variant", "Runs", "Training time", "Training arithmetic")
    bars = base.mark_bar(cornerRadiusEnd=3, height=16, yOffset=8).encode(
        color=colours, tooltip=[alt.Tooltip(f"{name}:N") for name in fields]
    )
    amounts = base.mark_text(align="left", dx=6, dy=8).encode(text="label:N")
    # The names stand above their bars: beside them they would leave a phone no room for the bars.
    names = base.mark_text(align="left", dy=-12, fontWeight=600).encode(x=alt.value(0), text="Variant:N")
    total = findings.cost.total
    what = "compute time" if timed else "arithmetic"
    note_on_time = (
        "Compute time adds up single runs, which may have run side by side: it is not the time that somebody waited."
        if timed
        else "Shown as training arithmetic, because not every run recorded its time."
    )
    return Figure(
        name="cost-variants",
        section="cost",
        title=f"All the evidence took {spent(total, timed)} of training {what}",
        caption=f"{words.plural(total.runs, 'run')}, all seeds. {note_on_time}",
        alt=f"Training {what} by variant: " + "; ".join(f"{row['Variant']} {row['label']}" for row in rows) + ".",
        spec=finished(alt.layer(bars, amounts, names), height=46 * len(rows)),
    )


def _by_level(findings: Findings) -> Figure | None:
    timed = _timed(findings)
    parts = [(level, part) for variant, level, part in findings.cost.by_level if variant == findings.subject]
    base_amount = findings.cost.dense.seconds if timed else findings.cost.dense.flops
    if not parts or not base_amount:
        return None
    sparsity = {run.level: run.sparsity for run in findings.results if run.variant == findings.subject}
    rows: list[Row] = []
    amount = base_amount
    for level, part in [(0, findings.cost.dense), *parts]:
        amount += ((part.seconds if timed else part.flops) or 0.0) if level else 0.0
        rows.append(
            {
                "level": level,
                "times": amount / base_amount,
                "Level": "dense" if level == 0 else f"{level} ({words.share(1 - sparsity[level])} left)",
                "So far": f"{amount / base_amount:.1f}\u00d7 training dense once",
                "Spent": words.duration(amount) if timed else words.flops(amount),
            }
        )
    spot = findings.sweet_spot
    x = alt.X("level:O", axis=alt.Axis(title="Pruning level", labelAngle=0, labelOverlap="greedy"))
    y = alt.Y("times:Q", axis=alt.Axis(title="Times the cost of dense training", tickCount=5))
    reached = rows if spot is None else [row for row in rows if row["level"] <= spot.answer[0]]
    price = reached[-1]
    chart = alt.Chart(data(rows)).encode(x=x, y=y)
    bars = chart.mark_bar(cornerRadiusEnd=3, width={"band": 0.7}).encode(
        color=alt.condition(f"datum.level <= {price['level']}", alt.value(BLUE.colour), alt.value("#C5DCEA")),
        tooltip=[alt.Tooltip(f"{name}:N") for name in ("Level", "So far", "Spent")],
    )
    layers = [bars]
    if spot is not None:
        here = [{"level": price["level"], "times": price["times"]}]
        layers.append(note("sweet spot", x=x, y=alt.Y("times:Q"), rows=here, dy=-8, dx=14, align="right"))
    goal = "Finding the sweet spot" if spot else "All levels together"
    what = "Training time" if timed else "Training arithmetic"
    pale = " Pale: beyond the sweet spot." if spot else ""
    return Figure(
        name="cost-levels",
        section="cost",
        title=f"{goal} cost {price['times']:.1f}\u00d7 one dense training",
        caption=f"{what} of dense and all levels so far, relative to training the same seeds densely once.{pale}",
        alt=f"Cumulative cost by pruning level. {goal} cost {price['times']:.1f} times one dense training.",
        spec=finished(alt.layer(*layers), height=HEIGHT - 100),
    )
