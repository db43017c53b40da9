"""What does serving look like? The spread of latencies, quality against cost, and the load that a machine bears."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import altair as alt

from ticketsmith.evidence import words
from ticketsmith.evidence.deployment import conditions, named
from ticketsmith.evidence.findings import Findings
from ticketsmith.evidence.results import Metric
from ticketsmith.evidence.scorecard import Group, Load, Scorecard
from ticketsmith.evidence.serving import LoadTest
from ticketsmith.evidence.speed import Speed
from ticketsmith.evidence.variants import DENSE, display
from ticketsmith.evidence.verdicts import Summary
from ticketsmith.report.figures.base import (
    HEIGHT,
    Figure,
    Label,
    Row,
    colour,
    dash,
    data,
    end_labels,
    faded,
    file_name,
    finished,
    log_ticks,
    note,
    reading,
    rule,
    shape,
)
from ticketsmith.report.figures.quality import framed, gate_height
from ticketsmith.report.theme import BLUE, GREY, SOFT, STATUS_INK, Series

WIDTH = 640  # pixels of a plot on a desk, about: labels that would cover one another there are left out

_DENSE, _TICKET = Series("dense", "Dense", GREY), Series("ticket", "Ticket", BLUE)


def serving_figures(findings: Findings) -> list[Figure]:
    """Three at most, each where there is something measured to draw."""
    card = findings.scorecard
    if card is None or card.lead is None:
        return []
    figures = (_latencies(card, card.lead), _quality(findings, card, card.lead), *map(_load, card.loads))
    return [figure for figure in figures if figure is not None]


def _latencies(card: Scorecard, group: Group) -> Figure | None:
    """A bar from p10 to p90 and a line to p99 for every dense rival and for the ticket that may be deployed."""
    level = group.candidate.level if group.candidate else None
    rivals = [point for point in group.points if point.variant == DENSE and point.dense]
    tickets = [
        p
        for p in group.points
        if (p.variant, p.level) == (card.subject, level) and (not p.dense or p == group.candidate)
    ]
    points = sorted(rivals, key=_median)[:6] + sorted(tickets, key=_median)[:3]
    if not points:
        return None
    longest = max(point.p99_ms or point.p90_ms for point in points)
    size, unit = next(
        (s, u) for s, u in ((1.0, "s"), (1e-3, "ms"), (1e-6, "\u00b5s")) if longest >= 1000 * s or u == "\u00b5s"
    )
    rows = [_bar(point, size) for point in points]
    low, high = min(row["p10"] for row in rows) * 0.9, longest / 1000 / size
    series = [_DENSE, _TICKET]
    x = alt.X(
        "p10:Q",
        scale=alt.Scale(type="log", domain=[low, high * 1.04], nice=False),
        axis=alt.Axis(
            title=f"Latency of a call, {unit} (log scale)",
            values=_ticks(low, high),
            labelExpr="format(datum.value, '~g')",
        ),
    )
    y = alt.Y("Name:N", sort=[row["Name"] for row in rows], axis=None)
    base = alt.Chart(data(rows)).encode(y=y, color=colour(series))
    bars = base.mark_bar(height=12, yOffset=17, cornerRadius=2, opacity=0.55).encode(x=x, x2="p90:Q")
    tails = (
        alt.Chart(data([row for row in rows if row["p99"] is not None]))
        .mark_rule(strokeWidth=2, yOffset=17)
        .encode(y=y, x=_reading(x, "p90"), x2="p99:Q", color=colour(series))
    )
    middles = base.mark_tick(thickness=3, height=20, yOffset=17).encode(x=_reading(x, "middle"))
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


def _median(point: Speed) -> float:
    return point.median_ms


def _slower(group: Group) -> str:
    dense, best = group.dense, group.candidate
    if dense is None or best is None:
        return "How long a call takes"
    if best.low <= 1.0:
        before = words.latency(dense.median_ms / 1000)
        return f"Dense on {words.runtime(dense.runtime)} answers in {before}; nothing that passes is surely faster"
    below = best.p99_ms is not None and best.p99_ms < dense.median_ms
    tail = "; even its p99 is below dense's median" if below else ""
    before, after = words.latency(dense.median_ms / 1000), words.latency(best.median_ms / 1000)
    name = named(best)
    return f"{name[:1].upper()}{name[1:]} answers in {after}, dense in {before}{tail}"


def _bar(point: Speed, size: float) -> Row:
    name = "Dense" if point.variant == DENSE else f"{_who(point)}, {words.share(point.sparsity)}"
    p99 = None if point.p99_ms is None else words.latency(point.p99_ms / 1000)
    p50 = words.latency(point.median_ms / 1000)
    return {
        "series": "dense" if point.variant == DENSE else "ticket",
        "Name": f"{name}: {words.runtime(point.runtime)}",
        "Network": display(point.variant),
        "Runtime": words.runtime(point.runtime),
        "p10": point.p10_ms / 1000 / size,
        "middle": point.median_ms / 1000 / size,
        "p50": p50,
        "p90": point.p90_ms / 1000 / size,
        "p99": None if point.p99_ms is None else point.p99_ms / 1000 / size,
        "told": f"p50 {p50}" if p99 is None else f"p50 {p50}, p99 {p99}",
        "p10 to p90": f"{words.latency(point.p10_ms / 1000)} to {words.latency(point.p90_ms / 1000)}",
        "p99 latency": p99 or "not measured",
        "Against dense": f"{words.times(point.speedup)} ({words.times(point.low)} to {words.times(point.high)})",
    }


def _who(point: Speed) -> str:
    return "Ticket" if point.variant == "ticket" else display(point.variant)


def _quality(findings: Findings, card: Scorecard, group: Group) -> Figure | None:
    """Quality against the cost of a unit: every level on its fastest runtime, dense on the best dense one."""
    metric = findings.metric
    points = [*([group.dense] if group.dense else []), *(row for row in group.rows if row.variant == card.subject)]
    known = [(point, summary) for point in points if (summary := findings.summary(point.variant, point.level))]
    if len(known) < 2 or group.dense is None:
        return None
    cost = _cost(card, group)
    rows = [_place(findings, card, group, point, summary, cost) for point, summary in known]
    front = _front(rows, metric)
    best = _best(findings, group)
    dense = findings.summary(DENSE, 0)
    gate = next((gate for gate in findings.policy.gates if gate.metric == metric.name), None)
    limit = gate_height(dense, gate, metric)
    frame = framed(rows, dense, limit, metric)
    low, high = min(row["cost_low"] for row in rows), max(row["cost_high"] for row in rows)
    room = (high / low) ** 0.06
    x = alt.X(
        "cost:Q",
        scale=alt.Scale(type="log", domain=[low / room, high * room], nice=False),
        axis=alt.Axis(title=cost.title, values=_ticks(low / room, high * room), labelExpr="format(datum.value, '~g')"),
    )
    y = alt.Y(
        "mean:Q",
        scale=alt.Scale(domain=[frame.low, frame.high], zero=False, nice=False),
        axis=alt.Axis(title=f"Test {metric.name}{f', {metric.unit}' if metric.unit else ''}", tickCount=6),
    )
    series = [_DENSE, _TICKET]
    source = data(rows)
    base = alt.Chart(source).encode(x=x, y=y, color=colour(series))
    layers: list[alt.Chart] = []
    if limit is not None and gate is not None:
        text = f"Gate: dense {words.MINUS if metric.higher_is_better else '+'} {words.margin(gate, metric)}"
        look = {"align": "left", "dx": 4, "dy": -9 if metric.higher_is_better else 12, "color": STATUS_INK["FAIL"]}
        layers.append(rule(limit, y, "#D55E00", 1.6, (7, 4)))
        layers.append(note(text, x=alt.value(0), y=reading(y, "y"), rows=[{"y": limit}], **look))
    spread = data([row for row in rows if row["low"] is not None])
    layers += [
        alt.Chart(data(front)).mark_line(color=SOFT, strokeWidth=1.4, strokeDash=[5, 3], clip=True).encode(x=x, y=y),
        alt.Chart(spread).mark_rule(strokeWidth=1.6, opacity=0.6, clip=True)
        .encode(x=x, y=reading(y, "low"), y2="high:Q", color=colour(series)),
        alt.Chart(source).mark_rule(strokeWidth=1.6, opacity=0.6, clip=True)
        .encode(x=_reading(x, "cost_low"), x2="cost_high:Q", y=y, color=colour(series)),
        base.mark_point(filled=True, size=70, clip=True, opacity=1).encode(
            shape=alt.Shape("series:N", scale=alt.Scale(domain=["dense", "ticket"], range=["square", "circle"]), legend=None)
        ),
    ]  # fmt: skip
    fields = ("Network", "Sparsity", "Runtime", "Quality", "Interval", "Latency", cost.name, "Speed-up", "Gates")
    hover = (
        base.properties(name="hover")
        .mark_point(filled=True, size=420, opacity=0, clip=True)
        .encode(tooltip=[alt.Tooltip(f"{f}:N") for f in fields])
    )
    here = [row for row in rows if (row["variant"], row["level"]) == best]
    if here:
        ring = alt.Chart(data(here)).mark_point(size=260, strokeWidth=2.2, color=STATUS_INK["PASS"], opacity=1)
        layers.append(ring.encode(x=x, y=y))
    dense_row = [row for row in rows if row["variant"] == DENSE]

    def pixels(row: Row) -> tuple[float, float]:
        return WIDTH * math.log(row["cost"] / low * room) / math.log(high / low * room**2), frame.place(row["mean"])

    taken: list[tuple[float, float]] = []
    marked = [(row, f"{row['mark']}\n{row['label']}", STATUS_INK["PASS"]) for row in here]
    marked += [(row, f"Dense\n{row['Runtime']}", GREY.ink) for row in dense_row]
    near = len(marked) == 2 and abs(pixels(marked[0][0])[0] - pixels(marked[1][0])[0]) < 140
    lowest = max((pixels(row)[1] for row, _, _ in marked), default=0.0)
    for row, text, ink in marked:
        left, top = pixels(row)
        below = near and top == lowest
        right = left > (0.85 if below else 0.6) * WIDTH
        dy = 18 if below else -26
        tag = _tag(row, text, x, y, right, dy, ink)
        layers.append(tag.properties(name="labels-dense") if row["variant"] == DENSE else tag)
        taken += [
            (left, top),
            (left + (-60 if right else 60), top + dy),
            (left + (-60 if right else 60), top + dy + 14),
        ]
    quiet = []
    for row in front:
        place = pixels(row)
        label = place[0] + 30, place[1] + 12
        if row in here or row["variant"] == DENSE or not frame.low <= row["mean"] <= frame.high:
            continue
        if all(abs(label[0] - x0) > 75 or abs(label[1] - y0) > 16 for x0, y0 in taken):
            quiet.append(row)
            taken.append(label)
    if quiet:
        tags = alt.Chart(data(quiet), name="labels-front")
        tags = tags.mark_text(align="left", dx=9, dy=12, color=BLUE.ink, fontSize=11)
        layers.append(tags.encode(x=x, y=y, text="label:N"))
    title = _traded(findings, group, cost.name)
    better = "up" if metric.higher_is_better else "down"
    return Figure(
        name="quality-cost",
        section="speed",
        title=title,
        caption=(
            f"{conditions(group).capitalize()}; further left is cheaper, further {better} is better. "
            "Each level on its fastest runtime; the dashed line joins those that nothing else beats in both (Pareto front). "
            f"The square is dense. Bars are {words.percent(card.confidence)} intervals."
            f"{' The axis is cut: levels beyond it leave it.' if frame.cut else ''}"
        ),
        alt=f"Test {file_name(metric.name)} against {cost.name.lower()} for every level. {title}.",
        spec=finished(alt.layer(*layers, hover)),
    )


@dataclass(frozen=True)
class _Cost:
    """The x axis of quality against cost: money where there is a price, else the time of a unit.

    ``read`` gives the cost of a unit on a point, were it so many times as fast; ``told`` writes it.
    """

    name: str
    title: str
    read: Callable[[Speed, float], float]
    told: Callable[[float], str]


def _cost(card: Scorecard, group: Group) -> _Cost:
    rate = card.rate
    if rate is not None and rate.per_hour > 0:
        name = f"Per million {card.unit}s"
        return _Cost(
            name,
            f"Price of a million {card.unit}s, {rate.currency} (log scale)",
            lambda point, ratio: card.per_million(point, ratio) or 0.0,
            lambda amount: words.money(amount, rate.currency),
        )
    return _Cost(
        f"Time of a {card.unit}",
        f"Time of one {card.unit}, \u00b5s (log scale)",
        lambda point, ratio: 1e6 * point.seconds / ratio,
        lambda amount: words.latency(amount / 1e6),
    )


def _place(findings: Findings, card: Scorecard, group: Group, point: Speed, summary: Summary, cost: _Cost) -> Row:
    dense = group.dense
    assert dense is not None
    metric = findings.metric
    status = card.statuses.get((point.variant, point.level))
    low, high = (1.0, 1.0) if point is dense else (point.high, point.low)
    spread = "one seed"
    if summary.low is not None and summary.high is not None:
        spread = f"{words.value(metric, summary.low)} to {words.value(metric, summary.high)}"
    spot = findings.sweet_spot
    sweet = spot is not None and (spot.variant, spot.answer[0]) == (point.variant, point.level)
    return {
        "series": "dense" if point.variant == DENSE else "ticket",
        "variant": point.variant,
        "level": point.level,
        "label": "dense" if point.variant == DENSE else words.share(point.sparsity),
        "mark": "Sweet spot" if sweet else "Best that passes",
        "cost": cost.read(dense, point.speedup),
        "cost_low": cost.read(dense, low),
        "cost_high": cost.read(dense, high),
        "mean": summary.mean,
        "low": summary.low,
        "high": summary.high,
        "Network": display(point.variant),
        "Sparsity": words.share(point.sparsity),
        "Runtime": words.runtime(point.runtime),
        "Quality": words.value(metric, summary.mean),
        "Interval": spread,
        "Latency": f"{words.latency(point.median_ms / 1000)} a call",
        cost.name: cost.told(cost.read(dense, point.speedup)),
        "Speed-up": f"{words.times(point.speedup)} ({words.times(point.low)} to {words.times(point.high)})",
        "Gates": str(status) if status else "reference",
    }


def _front(rows: Sequence[Row], metric: Metric) -> list[Row]:
    """The rows that no other beats in cost and quality, from the cheapest to the dearest."""
    sign = 1.0 if metric.higher_is_better else -1.0
    kept: list[Row] = []
    for row in sorted(rows, key=lambda row: (row["cost"], -sign * row["mean"])):
        if not kept or sign * row["mean"] > sign * kept[-1]["mean"]:
            kept.append(row)
    return kept


def _best(findings: Findings, group: Group) -> tuple[str, int] | None:
    """The level to mark: the sweet spot, or the candidate where another level that passes is faster."""
    if group.candidate is not None:
        return group.candidate.variant, group.candidate.level
    spot = findings.sweet_spot
    return (spot.variant, spot.answer[0]) if spot else None


def _tag(row: Row, text: str, x: alt.X, y: alt.Y, right: bool, dy: int, ink: str) -> alt.Chart:
    side = {"align": "right", "dx": -14} if right else {"align": "left", "dx": 14}
    return note(text, x=x, y=y, rows=[row], dy=dy, color=ink, fontWeight=600, lineBreak="\n", **side)


def _traded(findings: Findings, group: Group, name: str) -> str:
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
    change = words.worse(own[0].gate, findings.metric, own[0].estimate) if own and own[0].estimate is not None else ""
    start = named(best)
    return f"{start[:1].upper()}{start[1:]} is {cheaper} to serve{f', {change}' if change else ''}"


def _load(load: Load) -> Figure | None:
    """Latency against the rate of arrivals, for dense and the ticket, with the target."""
    tests = [(series, test) for series, test in ((_DENSE, load.dense), (_TICKET, load.ticket)) if test and test.steps]
    if not tests:
        return None
    target = tests[0][1].target_ms
    series = [Series(entry.key, _load_name(entry, test), entry.style) for entry, test in tests]
    rows = [
        _step(entry, test, index)
        for entry, (_, test) in zip(series, tests, strict=True)
        for index in range(len(test.steps))
    ]
    rows = [row for row in rows if row["mean"] > 0 and row["rate"] > 0]
    if not rows:
        return None
    low, high = min(target, *(row["mean"] for row in rows)) * 0.8, 1.25 * max(target, *(row["mean"] for row in rows))
    high = min(high, 60 * target)  # beyond the target a queue grows without end

    def place(value: float) -> float:
        return math.log(high / value) / math.log(high / low) * HEIGHT

    rates = [row["rate"] for row in rows]
    x = alt.X(
        "rate:Q",
        scale=alt.Scale(type="log", domain=[min(rates) * 0.9, max(rates) * 1.05], nice=False),
        axis=alt.Axis(
            title="Requests a second (log scale)",
            values=_ticks(min(rates) * 0.9, max(rates) * 1.05),
            labelExpr="format(datum.value, ',~r')",
        ),
    )
    percentile = f"p{100 * tests[0][1].percentile:g}"
    y = alt.Y(
        "mean:Q",
        scale=alt.Scale(type="log", domain=[low, high], nice=False),
        axis=alt.Axis(
            title=f"{percentile} latency, ms (log scale)",
            values=log_ticks(low, high),
            labelExpr="format(datum.value, '~g')",
        ),
    )
    base = alt.Chart(data(rows)).encode(x=x, y=y, color=colour(series))
    line = base.mark_line(strokeWidth=2.2, clip=True).encode(strokeDash=dash(series), opacity=faded())
    marks = base.mark_point(filled=True, size=60, clip=True).encode(shape=shape(series), opacity=faded())
    fields = ("Network", "Requests a second", "Answered a second", "p50", "Latency", "Target")
    hover = base.properties(name="hover").mark_point(filled=True, size=420, opacity=0, clip=True)
    hover = hover.encode(tooltip=[alt.Tooltip(f"{f}:N") for f in fields])
    limit = [
        rule(target, y, "#D55E00", 1.6, (7, 4)),
        note(f"target {words.latency(target / 1000)}", x=alt.value(0), y=reading(y, "y"), rows=[{"y": target}],
             align="left", dx=6, dy=-9, color=STATUS_INK["FAIL"]),
    ]  # fmt: skip
    ends = [Label(entry, [r["mean"] for r in rows if r["series"] == entry.key][-1], entry.label) for entry in series]
    first = tests[0][1]
    title = _borne(load)
    return Figure(
        name=f"load-{first.precision}-{first.threads}",
        section="speed",
        title=title,
        caption=(
            f"Requests arrive at random (Poisson), whether or not earlier ones were answered; latency includes waiting. "
            f"{words.percent(first.percentile)} must be answered within {words.latency(target / 1000)} "
            f"({words.plural(first.threads, 'thread')}, {first.precision})."
        ),
        alt=f"{percentile} latency against the rate of requests. {title}.",
        spec=finished(alt.layer(*limit, line, marks, hover, *end_labels(ends, place)), height=HEIGHT - 60),
        legend=tuple(series) if len(series) > 1 else (),
    )


def _load_name(entry: Series, test: LoadTest) -> str:
    return f"{entry.label}, {words.runtime(test.runtime)}"


def _step(entry: Series, test: LoadTest, index: int) -> Row:
    step = test.steps[index]
    return {
        "series": entry.key,
        "rate": step.rate,
        "mean": step.percentile_ms,
        "Network": entry.label,
        "Requests a second": words.rate(step.rate),
        "Answered a second": words.rate(step.answered_rate),
        "p50": words.latency(step.median_ms / 1000),
        "Latency": words.latency(step.percentile_ms / 1000),
        "Target": "kept" if step.kept else "missed",
    }


def _borne(load: Load) -> str:
    dense, ticket = load.dense, load.ticket
    if dense is None or ticket is None or not dense.highest_rate or not ticket.highest_rate:
        known = ticket or dense
        rate = known.highest_rate if known else 0.0
        who = "the ticket" if ticket else "dense"
        return (
            f"Within the target, {who} serves {words.rate(rate)} requests a second"
            if rate
            else "No rate keeps the target"
        )
    many = ticket.highest_rate / dense.highest_rate
    return (
        f"Within the target the ticket serves {words.rate(ticket.highest_rate)} requests a second, {words.times(many)} what "
        f"dense does ({words.rate(dense.highest_rate)})"
    )


def _reading(axis: alt.X, field: str) -> alt.X:
    other: alt.X = axis.copy()
    other.shorthand = f"{field}:Q"
    return other


def _ticks(low: float, high: float) -> list[float]:
    """Round values on a log axis; more of them where the range is narrow."""
    ticks = log_ticks(low, high)
    if len(ticks) >= 3:
        return ticks
    step = 10 ** math.floor(math.log10((high - low) / 3))
    step *= next(m for m in (1, 2, 5, 10) if (high - low) / (m * step) <= 5)
    return [step * i for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
