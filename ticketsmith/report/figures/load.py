"""Which load does the machine bear? Latency against the rate of arrivals, dense and ticket, with the target."""

from __future__ import annotations

import math

import altair as alt

from ticketsmith import units
from ticketsmith.evidence.findings import Findings
from ticketsmith.evidence.scorecard import Load
from ticketsmith.evidence.serving import LoadTest
from ticketsmith.evidence.variants import TICKET
from ticketsmith.report.figures import parts
from ticketsmith.report.figures.parts import HEIGHT, Figure, Label, Row
from ticketsmith.report.sentences.names import in_sentence, runtime_name
from ticketsmith.report.theme import STATUS_INK, Series, dense_and_ticket

_HEIGHT = HEIGHT - 60


def load_figures(findings: Findings) -> list[Figure]:
    """One figure for each target, precision and number of threads that was tested."""
    loads = findings.scorecard.loads if findings.scorecard else ()
    return [figure for figure in map(_load, loads) if figure is not None]


def _load(load: Load) -> Figure | None:
    """Latency against the rate of arrivals, for dense and the ticket, with the target."""
    looks = dense_and_ticket(load.ticket.variant if load.ticket else TICKET)
    tests = [(look, test) for look, test in zip(looks, (load.dense, load.ticket), strict=True) if test and test.steps]
    if not tests or tests[0][1].target_ms <= 0:
        return None
    target = tests[0][1].target_ms
    series = [Series(entry.key, f"{entry.label}, {runtime_name(test.runtime)}", entry.style) for entry, test in tests]
    rows = [
        _step(entry, test, index)
        for entry, (_, test) in zip(series, tests, strict=True)
        for index in range(len(test.steps))
    ]
    # The search for the highest rate goes back and forth; a curve does not.
    rows = sorted((row for row in rows if row["mean"] > 0 and row["rate"] > 0), key=lambda row: float(row["rate"]))
    if not rows:
        return None
    low, high = min(target, *(row["mean"] for row in rows)) * 0.8, 1.25 * max(target, *(row["mean"] for row in rows))
    high = min(high, 60 * target)  # beyond the target a queue grows without end

    def place(value: float) -> float:
        return math.log(high / value) / math.log(high / low) * _HEIGHT

    rates = [row["rate"] for row in rows]
    x = alt.X(
        "rate:Q",
        scale=alt.Scale(type="log", domain=[min(rates) * 0.9, max(rates) * 1.05], nice=False),
        axis=alt.Axis(
            title="Requests a second (log scale)",
            values=parts.round_ticks(min(rates) * 0.9, max(rates) * 1.05),
            labelExpr="format(datum.value, ',~r')",
        ),
    )
    percentile = f"p{100 * tests[0][1].percentile:g}"
    ticks = parts.log_ticks(low, high)
    y = parts.log_axis(alt.Y, "mean:Q", f"{percentile} latency, ms", (low, high), ticks)
    base = alt.Chart(parts.data(rows)).encode(x=x, y=y, color=parts.colour(series))
    line = base.mark_line(strokeWidth=2.2, clip=True).encode(strokeDash=parts.dash(series), opacity=parts.faded())
    marks = base.mark_point(filled=True, size=60, clip=True).encode(shape=parts.shape(series), opacity=parts.faded())
    fields = ("Network", "Requests a second", "Answered a second", "p50", "Latency", "Target")
    hover = parts.hover(base, fields)
    limit = [
        parts.rule(target, y, "#D55E00", 1.6, (7, 4)),
        parts.note(f"target {units.latency(target / 1000)}", x=alt.value(0), y=parts.reading(y, "y"), rows=[{"y": target}],
             align="left", dx=6, dy=-9, color=STATUS_INK["FAIL"]),
    ]  # fmt: skip
    last = {row["series"]: row["mean"] for row in rows}
    ends = [Label(entry, last[entry.key], entry.label) for entry in series if entry.key in last]
    first = tests[0][1]
    title = _borne(load)
    return Figure(
        name=f"load-{first.precision}-{first.threads}",
        section="speed",
        title=title,
        caption=(
            f"Requests arrive at random (Poisson), whether or not earlier ones were answered; latency includes waiting. "
            f"{units.percent(first.percentile)} must be answered within {units.latency(target / 1000)} "
            f"({units.plural(first.threads, 'thread')}, {first.precision})."
        ),
        alt=f"{percentile} latency against the rate of requests. {title}.",
        spec=parts.finished(
            alt.layer(*limit, line, marks, hover, *parts.end_labels(ends, place, _HEIGHT)), height=_HEIGHT
        ),
        legend=tuple(series) if len(series) > 1 else (),
    )


def _step(entry: Series, test: LoadTest, index: int) -> Row:
    step = test.steps[index]
    return {
        "series": entry.key,
        "rate": step.rate,
        "mean": step.percentile_ms,
        "Network": entry.label,
        "Requests a second": units.rate(step.rate),
        "Answered a second": units.rate(step.answered_rate),
        "p50": units.latency(step.median_ms / 1000),
        "Latency": units.latency(step.percentile_ms / 1000),
        "Target": "kept" if step.kept else "missed",
    }


def _borne(load: Load) -> str:
    dense, ticket = load.dense, load.ticket
    if dense is None or ticket is None or not dense.highest_rate or not ticket.highest_rate:
        either = ticket or dense
        rate = either.highest_rate if either else 0.0
        who = in_sentence(either.variant) if either else ""
        return (
            f"Within the target, {who} serves {units.rate(rate)} requests a second"
            if rate
            else "No rate keeps the target"
        )
    many = ticket.highest_rate / dense.highest_rate
    return (
        f"Within the target {in_sentence(ticket.variant)} serves {units.rate(ticket.highest_rate)} requests a second, "
        f"{units.times(many)} what dense does ({units.rate(dense.highest_rate)})"
    )
