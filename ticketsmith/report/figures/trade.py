"""What does quality cost to serve? Every level by its quality and the price, or the time, of one answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from ticketsmith import units
from ticketsmith.evidence.findings import Findings
from ticketsmith.evidence.results import Metric
from ticketsmith.evidence.scorecard import Group, Scorecard
from ticketsmith.evidence.speed import Speed
from ticketsmith.evidence.variants import DENSE
from ticketsmith.evidence.verdicts import Gate, Summary
from ticketsmith.report.figures import parts
from ticketsmith.report.figures.parts import Figure, Row
from ticketsmith.report.figures.quality import Frame, framed, gate_height, gate_line
from ticketsmith.report.sentences import measures
from ticketsmith.report.sentences.deployment import conditions, named, ratio
from ticketsmith.report.sentences.names import begun, display, runtime_name
from ticketsmith.report.theme import BLUE, GREY, SOFT, STATUS_INK, dense_and_ticket

WIDTH = 640  # pixels of a plot on a desk, about: labels that would cover one another there are left out


def trade_figures(findings: Findings) -> list[Figure]:
    """One figure of the cell that leads; none where fewer than two networks were measured."""
    card = findings.scorecard
    figure = _quality(findings, card, card.lead) if card is not None and card.lead is not None else None
    return [] if figure is None else [figure]


def _quality(findings: Findings, card: Scorecard, group: Group) -> Figure | None:
    """Quality against the cost of a unit: every level on its fastest runtime, dense on the best dense one."""
    metric = findings.metric
    points = [*([group.dense] if group.dense else []), *(row for row in group.rows if row.variant == card.subject)]
    measured = [(point, summary) for point in points if (summary := findings.summary(point.variant, point.level))]
    if len(measured) < 2 or group.dense is None:
        return None
    cost = _cost(card, group)
    rows = [_place(findings, card, group, point, summary, cost) for point, summary in measured]
    plot = _plot(findings, rows, cost)
    fields = ("Network", "Sparsity", "Runtime", "Quality", "Interval", "Latency", cost.name, "Speed-up", "Gates")
    hover = parts.hover(alt.Chart(parts.data(rows)).encode(x=plot.x, y=plot.y), fields)
    front = _front(rows, metric)
    layers = [
        *_gate(findings, plot),
        *_points(rows, front, plot),
        *_tags(rows, front, _best(findings, group), plot),
        hover,
    ]
    title = _traded(findings, group)
    better = "up" if metric.higher_is_better else "down"
    return Figure(
        name="quality-cost",
        section="speed",
        title=title,
        caption=(
            f"{conditions(group).capitalize()}; further left is cheaper, further {better} is better. "
            "Each level on its fastest runtime; the dashed line joins those that nothing else beats in both (Pareto front). "
            f"The square is dense. Bars are {units.percent(card.confidence)} intervals."
            f"{' The axis is cut: levels beyond it leave it.' if plot.frame.cut else ''}"
        ),
        alt=f"Test {parts.file_name(metric.name)} against {cost.name.lower()} for every level. {title}.",
        spec=parts.finished(alt.layer(*layers)),
    )


@dataclass(frozen=True)
class _Plot:
    """The axes; ``low`` and ``high`` bound the costs that are drawn."""

    x: alt.X
    y: alt.Y
    low: float
    high: float
    frame: Frame

    def pixels(self, row: Row) -> tuple[float, float]:
        """Where a row's point lies, from the left and from the top."""
        along = math.log(row["cost"] / self.low) / math.log(self.high / self.low)
        return WIDTH * along, self.frame.place(row["mean"])


def _plot(findings: Findings, rows: Sequence[Row], cost: _Cost) -> _Plot:
    metric = findings.metric
    dense = findings.summary(DENSE, 0)
    frame = framed(rows, dense, gate_height(dense, _own_gate(findings), metric), metric)
    low, high = min(row["cost_low"] for row in rows), max(row["cost_high"] for row in rows)
    room = (high / low) ** 0.06 * 1.02
    low, high = low / room, high * room
    x = parts.log_axis(alt.X, "cost:Q", cost.title, (low, high), parts.round_ticks(low, high))
    return _Plot(x, frame.axis(metric), low, high, frame)


def _own_gate(findings: Findings) -> Gate | None:
    return next((gate for gate in findings.policy.gates if gate.metric == findings.metric.name), None)


def _gate(findings: Findings, plot: _Plot) -> list[alt.Chart]:
    """The gate's line, named at its left end: dense and the sweet spot have the right."""
    metric, gate = findings.metric, _own_gate(findings)
    limit = gate_height(findings.summary(DENSE, 0), gate, metric)
    if limit is None or gate is None:
        return []
    dy = -9 if metric.higher_is_better else 12
    return gate_line(limit, plot.y, gate, metric, alt.value(0), align="left", dx=4, dy=dy)


def _points(rows: Sequence[Row], front: Sequence[Row], plot: _Plot) -> list[alt.Chart]:
    """The Pareto front, and each level with its intervals in quality and in cost."""
    x, y, hue = plot.x, plot.y, parts.colour(dense_and_ticket())
    spread = alt.Chart(parts.data([row for row in rows if row["low"] is not None]))
    source = alt.Chart(parts.data(rows))
    marks = alt.Shape("series:N", scale=alt.Scale(domain=["dense", "ticket"], range=["square", "circle"]), legend=None)
    bar: dict[str, Any] = {"strokeWidth": 1.6, "opacity": 0.6, "clip": True}
    return [
        alt.Chart(parts.data(front))
        .mark_line(color=SOFT, strokeWidth=1.4, strokeDash=[5, 3], clip=True)
        .encode(x=x, y=y),
        spread.mark_rule(**bar).encode(x=x, y=parts.reading(y, "low"), y2="high:Q", color=hue),
        source.mark_rule(**bar).encode(x=parts.reading(x, "cost_low"), x2="cost_high:Q", y=y, color=hue),
        source.mark_point(filled=True, size=70, clip=True, opacity=1).encode(x=x, y=y, color=hue, shape=marks),
    ]


def _tags(rows: Sequence[Row], front: Sequence[Row], best: tuple[str, int] | None, plot: _Plot) -> list[alt.Chart]:
    """The best choice ringed and named, dense named, and as many sparsities along the front as find room."""
    here = [row for row in rows if (row["variant"], row["level"]) == best]
    marked = [(row, f"{row['mark']}\n{row['label']}", STATUS_INK["PASS"]) for row in here]
    marked += [(row, f"Dense\n{row['Runtime']}", GREY.ink) for row in rows if row["variant"] == DENSE]
    layers: list[alt.Chart] = []
    if here:
        ring = alt.Chart(parts.data(here)).mark_point(size=260, strokeWidth=2.2, color=STATUS_INK["PASS"], opacity=1)
        layers.append(ring.encode(x=plot.x, y=plot.y))
    places = [plot.pixels(row) for row, _, _ in marked]
    near = len(places) == 2 and abs(places[0][0] - places[1][0]) < 140
    occupied: list[tuple[float, float]] = []
    for (row, text, ink), (left, top) in zip(marked, places, strict=True):
        below = near and top == max(top for _, top in places)  # one above, one below: they do not cover one another
        rightmost = left > (0.85 if below else 0.6) * WIDTH
        dy = 18 if below else -26
        side = {"align": "right", "dx": -14} if rightmost else {"align": "left", "dx": 14}
        tag = parts.note(text, x=plot.x, y=plot.y, rows=[row], dy=dy, color=ink, fontWeight=600, lineBreak="\n", **side)
        # A narrow page has room for one name, and drops the layers that are called labels.
        layers.append(tag.properties(name="labels-dense") if row["variant"] == DENSE else tag)
        middle = left - 60 if rightmost else left + 60
        occupied += [(left, top), (middle, top + dy), (middle, top + dy + 14)]
    quiet = []
    for row in front:
        left, top = plot.pixels(row)
        free = all(abs(left + 30 - x) > 75 or abs(top + 12 - y) > 16 for x, y in occupied)
        if free and row not in here and row["variant"] != DENSE and plot.frame.low <= row["mean"] <= plot.frame.high:
            quiet.append(row)
            occupied.append((left + 30, top + 12))
    if quiet:
        tags = alt.Chart(parts.data(quiet), name="labels-front")
        tags = tags.mark_text(align="left", dx=9, dy=12, color=BLUE.ink, fontSize=11)
        layers.append(tags.encode(x=plot.x, y=plot.y, text="label:N"))
    return layers


@dataclass(frozen=True)
class _Cost:
    """The x axis of quality against cost: money where there is a price, else the time of a unit.

    ``read`` gives the cost of a unit on a point, were it so many times as fast; ``text`` writes it.
    """

    name: str
    title: str
    read: Callable[[Speed, float], float]
    text: Callable[[float], str]


def _cost(card: Scorecard, group: Group) -> _Cost:
    rate = card.rate
    if rate is not None and rate.per_hour > 0:
        name = f"Per million {card.unit}s"
        return _Cost(
            name,
            f"Price of a million {card.unit}s, {rate.currency}",
            lambda point, ratio: card.per_million(point, ratio) or 0.0,
            lambda amount: units.money(amount, rate.currency),
        )
    return _Cost(
        f"Time of a {card.unit}",
        f"Time of one {card.unit}, \u00b5s",
        lambda point, ratio: 1e6 * point.seconds / ratio,
        lambda amount: units.latency(amount / 1e6),
    )


def _place(findings: Findings, card: Scorecard, group: Group, point: Speed, summary: Summary, cost: _Cost) -> Row:
    dense = group.dense
    assert dense is not None
    metric = findings.metric
    status = card.status(point)
    low, high = (1.0, 1.0) if point is dense else (point.high, point.low)
    spot = findings.sweet_spot
    sweet = spot is not None and (spot.variant, spot.level) == (point.variant, point.level)
    return {
        "series": "dense" if point.variant == DENSE else "ticket",
        "variant": point.variant,
        "level": point.level,
        "label": "dense" if point.variant == DENSE else units.share(point.sparsity),
        "mark": "Sweet spot" if sweet else "Best that passes",
        "cost": cost.read(dense, point.speedup),
        "cost_low": cost.read(dense, low),
        "cost_high": cost.read(dense, high),
        "mean": summary.mean,
        "low": summary.low,
        "high": summary.high,
        "Network": display(point.variant),
        "Sparsity": units.share(point.sparsity),
        "Runtime": runtime_name(point.runtime),
        "Quality": measures.value(metric, summary.mean),
        "Interval": measures.interval(metric, summary),
        "Latency": f"{units.latency(point.median_ms / 1000)} a call",
        cost.name: cost.text(cost.read(dense, point.speedup)),
        "Speed-up": ratio(point),
        "Gates": str(status) if status else "reference",
    }


def _front(rows: Sequence[Row], metric: Metric) -> list[Row]:
    """The rows that no other beats in cost and quality, from the cheapest to the dearest."""
    sign = 1.0 if metric.higher_is_better else -1.0
    front: list[Row] = []
    for row in sorted(rows, key=lambda row: (row["cost"], -sign * row["mean"])):
        if not front or sign * row["mean"] > sign * front[-1]["mean"]:
            front.append(row)
    return front


def _best(findings: Findings, group: Group) -> tuple[str, int] | None:
    """The level to mark: the sweet spot, or the candidate where another level that passes is faster."""
    if group.candidate is not None:
        return group.candidate.variant, group.candidate.level
    spot = findings.sweet_spot
    return (spot.variant, spot.level) if spot else None


def _traded(findings: Findings, group: Group) -> str:
    best = group.candidate
    if best is None:
        return "No level that passes its gates was measured"
    if best.low <= 1.0:
        return "At the quality that the gates ask for, nothing sparse is surely cheaper than the best dense"
    summary, dense = findings.summary(best.variant, best.level), findings.summary(DENSE, 0)
    cheaper = f"{100 * (1 - 1 / best.speedup):.0f} % cheaper"
    if summary is None or dense is None:
        return f"{named(best).capitalize()} is {cheaper} to serve"
    own = [v for v in findings.verdicts(best.variant, best.level) if v.gate.metric == findings.metric.name]
    change = ""
    if own and own[0].estimate is not None:
        change = f", {measures.worse(own[0].gate, findings.metric, own[0].estimate)}"
    return f"{begun(named(best))} is {cheaper} to serve{change}"
