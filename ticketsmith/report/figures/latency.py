"""How long does a call take? The spread of latencies of every dense rival and of what may be deployed."""

from __future__ import annotations

import altair as alt

from ticketsmith import units
from ticketsmith.evidence.findings import Findings
from ticketsmith.evidence.scorecard import Group, Scorecard
from ticketsmith.evidence.speed import Speed
from ticketsmith.evidence.variants import DENSE, TICKET
from ticketsmith.report.figures.parts import Figure, Row, colour, data, finished, log_axis, reading, round_ticks
from ticketsmith.report.sentences.deployment import conditions, named, ratio
from ticketsmith.report.sentences.names import begun, display, runtime_name
from ticketsmith.report.theme import SOFT, dense_and_ticket


def latency_figures(findings: Findings) -> list[Figure]:
    """One figure of the cell that leads; none where nothing was measured."""
    card = findings.scorecard
    figure = _latencies(card, card.lead) if card is not None and card.lead is not None else None
    return [] if figure is None else [figure]


def _latencies(card: Scorecard, group: Group) -> Figure | None:
    """A bar from p10 to p90 and a line to p99 for every dense rival and for the ticket that may be deployed."""
    level = group.candidate.level if group.candidate else None
    rivals = [point for point in group.points if point.variant == DENSE and point.dense]
    tickets = [
        p
        for p in group.points
        if (p.variant, p.level) == (card.subject, level) and (not p.dense or p == group.candidate)
    ]
    points = (
        sorted(rivals, key=lambda point: point.median_ms)[:6] + sorted(tickets, key=lambda point: point.median_ms)[:3]
    )
    if not points:
        return None
    longest = max(point.p99_ms or point.p90_ms for point in points)
    size, unit = next(
        (s, u) for s, u in ((1.0, "s"), (1e-3, "ms"), (1e-6, "\u00b5s")) if longest >= 1000 * s or u == "\u00b5s"
    )
    rows = [_bar(point, size) for point in points]
    low, high = min(row["p10"] for row in rows) * 0.9, longest / 1000 / size
    series = dense_and_ticket()
    x = log_axis(alt.X, "p10:Q", f"Latency of a call, {unit}", (low, high * 1.04), round_ticks(low, high))
    y = alt.Y("Name:N", sort=[row["Name"] for row in rows], axis=None)
    base = alt.Chart(data(rows)).encode(y=y, color=colour(series))
    bars = base.mark_bar(height=12, yOffset=17, cornerRadius=2, opacity=0.55).encode(x=x, x2="p90:Q")
    tails = (
        alt.Chart(data([row for row in rows if row["p99"] is not None]))
        .mark_rule(strokeWidth=2, yOffset=17)
        .encode(y=y, x=reading(x, "p90"), x2="p99:Q", color=colour(series))
    )
    middles = base.mark_tick(thickness=3, height=20, yOffset=17).encode(x=reading(x, "middle"))
    # Names and numbers stand above their bars: beside them they would leave a phone no room for the bars.
    names = base.mark_text(align="left", dy=-18, fontWeight=600).encode(x=alt.value(0), text="Name:N")
    values = alt.Chart(data(rows)).mark_text(align="left", dy=-3, color=SOFT)
    values = values.encode(y=y, x=alt.value(0), text="told:N")
    fields = ("Network", "Runtime", "p10 to p90", "p50", "p99 latency", "Against dense")
    hover = (
        base.properties(name="hover")
        .mark_bar(height=50, opacity=0)
        .encode(x=x, x2="p90:Q", tooltip=[alt.Tooltip(f"{f}:N") for f in fields])
    )
    tails_too = any(row["p99"] is not None for row in rows)
    title = _slower(group)
    return Figure(
        name="latency",
        section="speed",
        title=title,
        caption=(
            f"{conditions(group).capitalize()}. Bars hold the middle 80 % of calls (p10 to p90), the tick is the median (p50)"
            f"{', the thin line ends at p99' if tails_too else ''}."
        ),
        alt=f"{title}. " + "; ".join(f"{row['Name']}: {row['told']}" for row in rows) + ".",
        spec=finished(alt.layer(tails, bars, middles, values, names, hover), height=62 * len(rows)),
        legend=(),
    )


def _slower(group: Group) -> str:
    dense, best = group.dense, group.candidate
    if dense is None or best is None:
        return "How long a call takes"
    if best.low <= 1.0:
        before = units.latency(dense.median_ms / 1000)
        return f"Dense on {runtime_name(dense.runtime)} answers in {before}; nothing that passes is surely faster"
    below = best.p99_ms is not None and best.p99_ms < dense.median_ms
    tail = "; even its p99 is below dense's median" if below else ""
    before, after = units.latency(dense.median_ms / 1000), units.latency(best.median_ms / 1000)
    return f"{begun(named(best))} answers in {after}, dense in {before}{tail}"


def _bar(point: Speed, size: float) -> Row:
    who = "Ticket" if point.variant == TICKET else display(point.variant)
    name = "Dense" if point.variant == DENSE else f"{who}, {units.share(point.sparsity)}"
    p99 = None if point.p99_ms is None else units.latency(point.p99_ms / 1000)
    p50 = units.latency(point.median_ms / 1000)
    return {
        "series": "dense" if point.variant == DENSE else "ticket",
        "Name": f"{name}: {runtime_name(point.runtime)}",
        "Network": display(point.variant),
        "Runtime": runtime_name(point.runtime),
        "p10": point.p10_ms / 1000 / size,
        "middle": point.median_ms / 1000 / size,
        "p50": p50,
        "p90": point.p90_ms / 1000 / size,
        "p99": None if point.p99_ms is None else point.p99_ms / 1000 / size,
        "told": f"p50 {p50}" if p99 is None else f"p50 {p50}, p99 {p99}",
        "p10 to p90": f"{units.latency(point.p10_ms / 1000)} to {units.latency(point.p90_ms / 1000)}",
        "p99 latency": p99 or "not measured",
        "Against dense": ratio(point),
    }
