"""Many experiments side by side: one row each, and the curves of their tickets in one chart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

import altair as alt

from ticketsmith import units
from ticketsmith.evidence.findings import Findings
from ticketsmith.evidence.results import Metric
from ticketsmith.evidence.speed import best
from ticketsmith.evidence.variants import DENSE
from ticketsmith.evidence.verdicts import Status
from ticketsmith.report.figures.parts import Figure, Row, band_lines, density_axis, file_name, finished
from ticketsmith.report.figures.quality import framed
from ticketsmith.report.sentences import measures
from ticketsmith.report.sentences.bottom_line import amount, best_kind
from ticketsmith.report.sentences.headline import headline
from ticketsmith.report.sentences.names import display, runtime_name
from ticketsmith.report.tables import NOT_MEASURED
from ticketsmith.report.theme import CYCLE, Series

COLUMNS = ("Experiment", "Dense", "Sweet spot", "Quality there", "Gate Status", "Speedup (BS=1)", "Runs", "Cost")
NUMERIC = (1, 2, 3, 5, 6, 7)


@dataclass(frozen=True)
class Line:
    """One experiment of the table, as finished text."""

    name: str
    link: str
    about: str
    headline: str
    dense: str
    spot: str
    left: str
    quality: str
    change: str
    status: str
    speedup: str
    speed_note: str
    runs: str
    cost: str


@dataclass(frozen=True)
class Comparison:
    """Everything that the comparing page says."""

    headline: str
    rows: tuple[Line, ...]
    note: str
    footer: str
    columns: tuple[str, ...] = COLUMNS
    numeric: tuple[int, ...] = NUMERIC


def compare(findings: Sequence[Findings]) -> tuple[Comparison, list[Figure]]:
    """The rows, by name, and one chart for each quality measure that experiments share."""
    ordered = sorted(findings, key=lambda one: one.name)
    rows = tuple(_line(one) for one in ordered)
    comparison = Comparison(
        headline=_headline(ordered),
        rows=rows,
        note=(
            "Sweet spot: the last level, from the mildest on, at which every gate passes; the share is that of the prunable "
            "weights. Quality and gate status are those of the test split "
            "there; speed-up is measured, against dense on the best dense runtime of those tried; cost is the training of "
            "everything, controls included. Experiments may differ in their gates: each report states its own."
        ),
        footer=f"Made by TicketSmith from {units.plural(sum(len(one.results) for one in ordered), 'sealed run')}.",
    )
    metrics = {one.metric.name: one.metric for one in ordered}
    figures = [_figure([one for one in ordered if one.metric.name == name], metric) for name, metric in metrics.items()]
    return comparison, [figure for figure in figures if figure is not None]


def _headline(findings: Sequence[Findings]) -> str:
    spots = [one for one in findings if one.sweet_spot]
    count = units.plural(len(findings), "experiment")
    if not spots:
        return f"{count}; none has a sparsity that is shown to be safe yet"
    whole = [one.size.network_sparsity for one in spots]
    counted = [share for share in whole if share is not None]
    shares = counted if len(counted) == len(whole) else [one.size.sparsity for one in spots]
    low, high = units.share(min(shares)), units.share(max(shares))
    span = high if low == high else f"{low} to {high}"
    part = "network" if shares is counted else "prunable weights"
    where = "" if len(spots) == len(findings) else f" in {len(spots)} of them"
    return f"{count}; quality holds with up to {span} of the {part} removed{where}"


def _line(findings: Findings) -> Line:
    dense, spot = findings.summary(DENSE, 0), findings.sweet_spot
    level = spot.level if spot else None
    there = findings.summary(findings.subject, level) if level is not None else None
    verdicts = findings.verdicts(findings.subject, level) if level is not None else []
    own = [verdict for verdict in verdicts if verdict.gate.metric == findings.metric.name]
    estimate = own[0].estimate if own else None
    point = best(findings.speeds, findings.subject, level) if level is not None else None
    status = "none passes" if spot is None else str(Status.PASS)
    total = findings.cost.total
    return Line(
        name=findings.name,
        link=f"../{quote(findings.name)}/report/index.html",
        about=", ".join(findings.facts[name] for name in ("Data", "Model") if name in findings.facts),
        headline=headline(findings),
        dense=f"{measures.quality(findings.metric, dense)}" if dense else NOT_MEASURED,
        spot=units.share(spot.sparsity) if spot else "none",
        left=measures.rest(findings.size) if spot else "",
        quality=measures.quality(findings.metric, there) if there else NOT_MEASURED,
        change=measures.worse(own[0].gate, findings.metric, estimate) if estimate is not None else "",
        status=status,
        speedup=units.times(point.speedup) if point else NOT_MEASURED,
        speed_note=(
            f"{runtime_name(point.runtime)}, dense on {runtime_name(point.against)}" if point else "not measured"
        ),
        runs=str(len(findings.results)),
        cost=amount(total, best_kind(total)),
    )


def _figure(findings: Sequence[Findings], metric: Metric) -> Figure | None:
    series = [Series(one.name, one.name, CYCLE[index % len(CYCLE)]) for index, one in enumerate(findings)]
    rows = [row for one in findings for row in _rows(one, metric)]
    if not rows:
        return None
    frame = framed(rows, None, None, metric)
    y = frame.axis(metric)
    x = density_axis([row["density"] for row in rows])
    name = metric.name.replace("_", " ").capitalize()
    quality = alt.Tooltip("value:N", title=name)
    tooltip = ("Experiment", "Variant", "Weights remaining", "Sparsity", quality, "Seeds")
    layers = band_lines(rows, series, x, y, tooltip, frame.place)
    title = f"{name} of the sparse networks against their sparsity"
    return Figure(
        name=f"tickets-{file_name(metric.name)}",
        section="quality",
        title=title,
        caption=(
            "Mean over seeds on the test split; bands are over seeds, not over the draw of test examples. Every curve starts "
            "at its dense network."
        ),
        alt=f"{title}: {units.listed([one.name for one in findings])}.",
        spec=finished(alt.layer(*layers)),
        legend=tuple(series),
    )


def _rows(findings: Findings, metric: Metric) -> list[Row]:
    dense = findings.summary(DENSE, 0, metric.name)
    own = findings.series(findings.subject, metric.name)
    return [
        {
            "series": findings.name,
            "density": 100 * (1 - summary.sparsity),
            "mean": summary.mean,
            "low": summary.low,
            "high": summary.high,
            "Experiment": findings.name,
            "Variant": display(summary.variant),
            "Weights remaining": units.share(1 - summary.sparsity),
            "Sparsity": units.share(summary.sparsity),
            "value": measures.value(metric, summary.mean),
            "Seeds": str(summary.replicates),
        }
        for summary in ([dense] if dense else []) + own
    ]
