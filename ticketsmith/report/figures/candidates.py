"""Prune, quantise, both or neither? Every candidate by its quality, and by its latency, its size and its memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from ticketsmith import units
from ticketsmith.evidence.choice import Candidate, Choice, Kind, Setting, Time
from ticketsmith.evidence.findings import Findings
from ticketsmith.evidence.variants import DENSE
from ticketsmith.report.figures import parts
from ticketsmith.report.figures.parts import Figure, Row
from ticketsmith.report.figures.quality import framed, gate_height, gate_line
from ticketsmith.report.sentences import choice as words
from ticketsmith.report.sentences import measures
from ticketsmith.report.sentences.names import display
from ticketsmith.report.theme import BLUE, GREEN, GREY, ORANGE, SOFT, STATUS_INK, Series

_SERIES: dict[Kind, Series] = {
    "neither": Series("neither", "Dense, float32", GREY),
    "quantise": Series("quantise", "Quantised", ORANGE),
    "prune": Series("prune", "Pruned", BLUE),
    "both": Series("both", "Pruned and quantised", GREEN),
}
_SHAPES = ["square", "triangle-up", "circle", "diamond"]


@dataclass(frozen=True)
class _Cost:
    """The x axis: what ``read`` gives with its bounds, and what it is called."""

    name: str
    title: str
    better: str
    read: Callable[[Setting, Time], tuple[float, float, float] | None]


def _latency(setting: Setting, time: Time) -> tuple[float, float, float]:
    one = setting.latency(time)
    return 1e3 * one.median, 1e3 * one.low, 1e3 * one.high


def _size(setting: Setting, time: Time) -> tuple[float, float, float]:
    sizes = [judgement.bytes / 1e3 for judgement in time.candidate.judgements]
    return time.candidate.bytes / 1e3, min(sizes), max(sizes)


def _memory(setting: Setting, time: Time) -> tuple[float, float, float] | None:
    if time.memory is None:
        return None
    value = time.memory.private_bytes / 1e6
    return value, value, value


_COSTS = (
    _Cost("latency", "Time of a call, \u00b5s", "faster", _latency),
    _Cost("size", "Size of the file, kB", "smaller", _size),
    _Cost("memory", "Memory of a process that serves it, MB", "less", _memory),
)


def candidate_figures(findings: Findings) -> list[Figure]:
    """Quality against latency, size and memory, in the setting that leads; none without candidates."""
    choice = findings.choice
    if choice is None:
        return []
    figures = (_figure(findings, choice, cost) for cost in _COSTS)
    return [figure for figure in figures if figure is not None]


def _figure(findings: Findings, choice: Choice, cost: _Cost) -> Figure | None:
    lead = choice.lead
    rows = [row for time in lead.times if (row := _row(choice, lead, time, cost))]
    if len(rows) < 2:
        return None
    gate = next((gate for gate in findings.policy.gates if gate.metric == choice.metric.name), None)
    dense = findings.summary(DENSE, 0, choice.metric.name, at="final")
    limit = gate_height(dense, gate, choice.metric)
    frame = framed(rows, dense, limit, choice.metric)
    low, high = min(row["cost_low"] for row in rows), max(row["cost_high"] for row in rows)
    room = (high / low) ** 0.06 * 1.02
    x = parts.log_axis(
        alt.X, "cost:Q", cost.title, (low / room, high * room), parts.round_ticks(low / room, high * room)
    )
    y = frame.axis(choice.metric)
    series = [one for kind, one in _SERIES.items() if any(row["series"] == kind for row in rows)]
    passing = [row for row in rows if row["passes"]]
    fields = ("Network", "Form", "Quality", "Interval", "Latency", "Size", "Memory", "Load", "Gates", "File")
    layers: list[alt.Chart] = []
    if limit is not None and gate is not None:
        dy = -9 if choice.metric.higher_is_better else 12
        layers += gate_line(limit, y, gate, choice.metric, alt.value(0), align="left", dx=4, dy=dy)
    layers += _points(rows, _front(passing, choice), series, x, y)
    layers += _tags([row for row in rows if row["mark"]], x, y)
    layers.append(parts.hover(alt.Chart(parts.data(rows)).encode(x=x, y=y), fields, size=200))
    title = _title(choice, cost)
    return Figure(
        name=f"candidates-{cost.name}",
        section="candidates",
        title=title,
        caption=(
            f"{words.setting(lead).capitalize()}; each point is a file, judged by running it and timed as it is. Further left is "
            f"{cost.better}. Hollow points did not pass their gates; the dashed line joins the passing ones that nothing else "
            f"beats in both (Pareto front). Bars are {units.percent(choice.confidence)} intervals"
            f"{' and the range over replicates of sizes' if cost.name == 'size' else ''}."
            f"{' Memory is at its peak, without the libraries, which processes share.' if cost.name == 'memory' else ''}"
            f"{' The axis is cut: candidates beyond it leave it.' if frame.cut else ''}"
        ),
        alt=f"Test {parts.file_name(choice.metric.name)} against the {cost.name} of every candidate. {title}.",
        spec=parts.finished(alt.layer(*layers)),
        legend=tuple(series),
    )


def _row(choice: Choice, setting: Setting, time: Time, cost: _Cost) -> Row | None:
    one = time.candidate
    costs = cost.read(setting, time)
    if one.quality is None or costs is None:
        return None
    value, low, high = costs
    best, rival = setting.choice, setting.rival
    mark = "To deploy" if time is best else "Best dense" if time is rival else ""
    bounds = _bounds(choice, one)
    return {
        "series": one.kind,
        "passes": one.passes,
        "mark": f"{mark}\n{words.way(one)}" if mark else "",
        "ink": STATUS_INK["PASS"] if time is best else GREY.ink,
        "cost": value,
        "cost_low": low,
        "cost_high": high,
        "mean": one.quality.mean,
        "low": bounds[0],
        "high": bounds[1],
        "Network": "Dense" if one.variant == DENSE else f"{display(one.variant)}, {units.share(one.sparsity)}",
        "Form": words.way(one),
        "Quality": measures.value(choice.metric, one.quality.mean),
        "Interval": "none"
        if bounds[0] is None or bounds[1] is None
        else f"{measures.value(choice.metric, bounds[0])} to {measures.value(choice.metric, bounds[1])}",
        "Latency": f"{words.took(time)} a call",
        "Size": units.size(one.bytes),
        "Memory": units.size(time.memory.private_bytes) if time.memory else "not measured",
        "Load": units.latency(time.memory.load_ms / 1e3) if time.memory else "not measured",
        "Gates": str(one.status),
        "File": time.entry.sha256[:12],
    }


def _bounds(choice: Choice, one: Candidate) -> tuple[float | None, float | None]:
    """Of the mean over replicates; of one replicate, what its examples say of the difference from dense."""
    quality = one.quality
    assert quality is not None
    if quality.low is not None and quality.high is not None:
        return quality.low, quality.high
    for verdict in one.verdicts:
        if verdict.gate.metric == choice.metric.name and not verdict.gate.relative and verdict.estimate is not None:
            if verdict.low is None or verdict.bound is None:
                break
            worse, better = verdict.bound - verdict.estimate, verdict.estimate - verdict.low
            if choice.metric.higher_is_better:
                return quality.mean - worse, quality.mean + better
            return quality.mean - better, quality.mean + worse
    return None, None


def _points(rows: Sequence[Row], front: Sequence[Row], series: Sequence[Series], x: alt.X, y: alt.Y) -> list[alt.Chart]:
    hue = parts.colour(series)
    shapes = [_SHAPES[list(_SERIES).index(one.key)] for one in series]  # type: ignore[arg-type]
    shape = alt.Shape("series:N", scale=alt.Scale(domain=[one.key for one in series], range=shapes), legend=None)
    bar: dict[str, Any] = {"strokeWidth": 1.4, "clip": True}
    spread = alt.Chart(parts.data([row for row in rows if row["low"] is not None]))
    faint, strong = parts.faded(0.35, 0.05), parts.faded()
    source = alt.Chart(parts.data(rows))
    filled, hollow = (
        alt.Chart(parts.data([row for row in rows if row["passes"] is passes])) for passes in (True, False)
    )
    return [
        alt.Chart(parts.data(front))
        .mark_line(color=SOFT, strokeWidth=1.4, strokeDash=[5, 3], clip=True)
        .encode(x=x, y=y),
        spread.mark_rule(**bar).encode(x=x, y=parts.reading(y, "low"), y2="high:Q", color=hue, opacity=faint),
        source.mark_rule(**bar).encode(x=parts.reading(x, "cost_low"), x2="cost_high:Q", y=y, color=hue, opacity=faint),
        hollow.mark_point(filled=False, size=55, clip=True).encode(x=x, y=y, color=hue, shape=shape, opacity=strong),
        filled.mark_point(filled=True, size=70, clip=True).encode(x=x, y=y, color=hue, shape=shape, opacity=strong),
    ]


def _tags(rows: Sequence[Row], x: alt.X, y: alt.Y) -> list[alt.Chart]:
    """What to deploy, ringed and named above; the best dense named below."""
    layers: list[alt.Chart] = []
    for row in rows:
        first = row["mark"].startswith("To deploy")
        if first:
            ring = alt.Chart(parts.data([row])).mark_point(size=260, strokeWidth=2.2, color=row["ink"], opacity=1)
            layers.append(ring.encode(x=x, y=y))
        dy = -28 if first else 20
        look: dict[str, Any] = {"color": row["ink"], "fontWeight": 600, "lineBreak": "\n", "align": "left", "dx": 12}
        tag = parts.note(row["mark"], x=x, y=y, rows=[row], dy=dy, **look)
        layers.append(tag if first else tag.properties(name="labels-rival"))
    return layers


def _front(rows: Sequence[Row], choice: Choice) -> list[Row]:
    """The rows that no other beats in cost and quality, from the cheapest to the dearest."""
    sign = 1.0 if choice.metric.higher_is_better else -1.0
    front: list[Row] = []
    for row in sorted(rows, key=lambda row: (row["cost"], -sign * row["mean"])):
        if not front or sign * row["mean"] > sign * front[-1]["mean"]:
            front.append(row)
    return front


def _title(choice: Choice, cost: _Cost) -> str:
    best, rival = choice.lead.choice, choice.lead.rival
    if best is None:
        return "No candidate passes its gates as it is served"
    name = words.named(best.candidate)
    if cost.name == "size":
        smallest = min(choice.lead.passing, key=lambda time: time.candidate.bytes).candidate
        return f"The smallest file that passes: {words.named(smallest)}, {units.size(smallest.bytes)}"
    if cost.name == "memory":
        weighed = [time for time in choice.lead.passing if time.memory]
        if not weighed:
            return "What it takes to serve each candidate"
        least = min(weighed, key=lambda time: time.memory.private_bytes if time.memory else 0)
        assert least.memory is not None
        return f"The least memory that passes: {words.named(least.candidate)}, {units.size(least.memory.private_bytes)}"
    if rival is None or rival is best:
        return f"The fastest that passes: {name}"
    return (
        f"{name[:1].upper()}{name[1:]}: {units.times(choice.lead.ratio(rival, best).median)} as fast as the best dense"
    )
