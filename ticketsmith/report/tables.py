"""The tables of a report as plain rows of finished text: what the page, the Markdown twin and a notebook all show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ticketsmith import units
from ticketsmith.evidence.cost import Spend
from ticketsmith.evidence.findings import Findings
from ticketsmith.evidence.size import size_of
from ticketsmith.evidence.speed import best, lead, rival
from ticketsmith.evidence.summarise import distinct
from ticketsmith.evidence.variants import DENSE, TICKET, UNSTRUCTURED
from ticketsmith.evidence.verdicts import Verdict
from ticketsmith.report.sentences import measures
from ticketsmith.report.sentences.bottom_line import amount, pays_after
from ticketsmith.report.sentences.names import display, runtime_name
from ticketsmith.report.sentences.verdicts import reason

if TYPE_CHECKING:
    import pandas as pd

NOT_MEASURED = "\u2014"


@dataclass(frozen=True)
class Table:
    """A small table of finished text; its first column names the rows, all others are numbers."""

    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()


@dataclass(frozen=True)
class Row:
    """One level of one variant: a line of the table of the mission.

    ``marks`` say why the level is of interest (``sweet spot``, ``target``, ...). ``status`` is that of the test split's
    gates, ``Reference`` for dense. ``gate`` says in a few words what was measured against them, ``reasons`` in full.
    """

    variant: str
    name: str
    level: int
    marks: tuple[str, ...]
    sparsity: str
    left: str
    quality: str
    seeds: str
    status: str
    gate: str
    reasons: tuple[str, ...]
    speedup: str
    speed_note: str


def mission_rows(findings: Findings) -> list[Row]:
    """Every level of every variant, dense first."""
    return [_row(findings, variant, level) for variant, level in findings.levels]


def headline_rows(findings: Findings, rows: list[Row]) -> list[Row]:
    """The rows that decide: dense, the marked levels of the method, and the controls at the sweet spot (or target)."""
    marked = [row for row in rows if row.variant == findings.subject and row.marks]
    level = findings.sweet_spot.level if findings.sweet_spot else findings.target[0] if findings.target else None
    if level is None and marked:
        level = marked[-1].level
    others = [row for row in rows if row.variant not in (DENSE, findings.subject) and row.level == level]
    return [*(row for row in rows if row.variant == DENSE), *marked, *others]


def _row(findings: Findings, variant: str, level: int) -> Row:
    runs = findings.levels[variant, level]
    size = size_of(runs)
    summary = findings.summary(variant, level)
    verdicts = findings.verdicts(variant, level)
    diverged = len({run.seed for run in runs if run.diverged})
    speedup, speed_note = _speed(findings, variant, level)
    seeds = "no seed left" if diverged else "no finite value"
    if summary:
        seeds = units.replicates(summary.seeds, summary.replicates)
    return Row(
        variant=variant,
        name=display(variant),
        level=level,
        marks=_marks(findings, variant, level),
        sparsity=units.share(size.sparsity),
        left=measures.rest(size),
        quality=measures.quality(findings.metric, summary) if summary else "diverged" if diverged else NOT_MEASURED,
        seeds=f"{seeds}, {diverged} diverged" if diverged else seeds,
        status="Reference" if variant == DENSE else str(findings.statuses.get((variant, level), "Not judged")),
        gate="; ".join(_brief(findings, verdict) for verdict in verdicts),
        reasons=tuple(
            f"{v.gate.metric}: {reason(v, findings.metrics[v.gate.metric], findings.policy)}" for v in verdicts
        ),
        speedup=speedup,
        speed_note=speed_note,
    )


def _marks(findings: Findings, variant: str, level: int) -> tuple[str, ...]:
    if variant != findings.subject:
        return ()
    spot, marks = findings.sweet_spot, []
    if spot and spot.level == level:
        marks.append("sweet spot")
    if findings.target and findings.target[0] == level:
        marks.append("target")
    if level == max(own for name, own in findings.levels if name == variant):
        marks.append("sparsest trained")
    return tuple(marks)


def _brief(findings: Findings, verdict: Verdict) -> str:
    """``0.42 points worse, bound 0.81 points, worst seed 0.55 points worse``: the estimate, its bound, and the worst of all."""
    metric = findings.metrics[verdict.gate.metric]
    if verdict.estimate is None:
        return "diverged" if verdict.diverged else "no value to compare"
    text = measures.worse(verdict.gate, metric, verdict.estimate)
    if len(findings.policy.gates) > 1:
        text = f"{metric.name} {text}"
    if verdict.bound is not None:
        text += f", bound {measures.worsening(verdict.gate, metric, verdict.bound)}"
    if verdict.seeds > 1 and verdict.worst is not None:
        text += f", worst seed {measures.worse(verdict.gate, metric, verdict.worst)}"
    return f"{'diverged; ' if verdict.diverged else ''}{'runs missing; ' if verdict.missing else ''}{text}"


def _speed(findings: Findings, variant: str, level: int) -> tuple[str, str]:
    """The measured speed-up at batch size 1 over the best dense runtime, and on what; never a theoretical figure."""
    if findings.benchmark is None:
        return NOT_MEASURED, "not measured"
    if variant == DENSE:
        cell = lead(findings.speeds, 1)
        if cell is None:
            return NOT_MEASURED, "not measured at batch size 1"
        dense = rival(findings.speeds, cell)
        if dense is None:
            return NOT_MEASURED, "not measured"
        return units.times(1.0), f"{runtime_name(dense.runtime)}, {units.latency(dense.median_ms / 1000)}"
    point = best(findings.speeds, variant, level)
    if point is None:
        return NOT_MEASURED, "not measured"
    doubt = "" if point.claimed else "; no clear difference"
    on = runtime_name(point.runtime)
    return units.times(point.speedup), f"{on} ({units.times(point.low)} to {units.times(point.high)}){doubt}"


def frame(findings: Findings) -> pd.DataFrame:
    """The whole table as numbers, one row a level of a variant; means are those of the test split.

    Columns: variant, level, sparsity (of the prunable weights, 0..1), network_sparsity (of all parameters, missing where
    those were not counted), replicates, then for each metric its mean, ``_low`` and ``_high``, then
    gate, and the measured speed-up at batch size 1 over dense on the best dense runtime, ``against``, with the runtime it
    was measured on (missing where it was not measured).
    """
    import pandas as pd

    rows = []
    for (variant, level), runs in findings.levels.items():
        size = size_of(runs)
        row: dict[str, object] = {
            "variant": variant,
            "level": level,
            "sparsity": size.sparsity,
            "network_sparsity": size.network_sparsity,
            "replicates": len(distinct(runs)),
        }
        for name in findings.metrics:
            summary = findings.summary(variant, level, name)
            row[name] = summary.mean if summary else None
            row[f"{name}_low"] = summary.low if summary else None
            row[f"{name}_high"] = summary.high if summary else None
        status = findings.statuses.get((variant, level))
        row["gate"] = str(status) if status else "reference" if variant == DENSE else None
        point = best(findings.speeds, variant, level) if variant != DENSE else None
        row["speedup"] = point.speedup if point else None
        row["runtime"] = point.runtime if point else None
        row["against"] = point.against if point else None
        rows.append(row)
    return pd.DataFrame(rows)


def pattern_costs(findings: Findings) -> Table:
    """One row a level: the ticket with the recipe's pattern or structure, the one without, and what is lost between them."""
    metric, rows = findings.metric, []
    for one in findings.comparisons:
        ours = findings.summary(findings.subject, one.level)
        free = findings.summary(UNSTRUCTURED, one.level)
        if one.control != UNSTRUCTURED or ours is None or free is None:
            continue
        lines = [measures.difference(metric, -one.advantage.mean)]
        if one.advantage.low is not None and one.advantage.high is not None:
            lines.append(measures.span(metric, -one.advantage.high, -one.advantage.low))
        if not one.significant:
            lines.append("no clear difference")
        sparsity = units.share(findings.size_at(findings.subject, one.level).sparsity)
        rows.append((sparsity, measures.quality(metric, ours), measures.quality(metric, free), "\n".join(lines)))
    header = ("Sparsity", display(findings.subject), display(UNSTRUCTURED), "Lost by the pattern")
    return Table(header, rows) if rows else Table()


def spending(findings: Findings) -> Table:
    """Runs, price, time and arithmetic of finding the ticket, of the controls, of everything."""
    cost = findings.cost
    spot = "all levels"
    if findings.sweet_spot:
        spot = "up to the level that ended the search" if findings.sweet_spot.end else "up to the sweet spot"
    what = "the ticket" if findings.subject == TICKET else "it"
    parts = [
        (f"Finding {what}: dense and {spot}", cost.finding),
        ("of that, dense training", cost.dense),
        *([("Controls", cost.controls)] if cost.controls.runs else []),
        ("Everything that was made", cost.total),
    ]
    priced, gpus = bool(cost.total.currencies), cost.total.gpu_seconds > 0
    rows = []
    for name, spend in parts:
        row = [name, str(spend.runs), *([_spent(spend)] if priced else []), _time(spend)]
        rows.append([*row, *([units.duration(spend.gpu_seconds)] if gpus else []), units.flops(spend.flops)])
    if cost.total.idle_seconds > 0 and cost.total.price is not None:
        idle = ["of that, idle nodes afterwards, at most", "", units.money(cost.total.idle_price, cost.total.currency)]
        rows.append([*idle, units.duration(cost.total.idle_seconds), *([""] if gpus else []), ""])
    header = ["Trained", "Runs", *(["Price"] if priced else []), "Compute time", *(["GPU time"] if gpus else [])]
    return Table((*header, "Training arithmetic"), rows)


def serving(findings: Findings) -> Table:
    """One row a batch size: dense against the ticket, and when that pays."""
    rows = [
        (
            f"Batch size {payback.batch_size}",
            f"{units.latency(payback.dense_seconds)}\n{runtime_name(payback.dense_runtime)}",
            f"{units.latency(payback.ticket_seconds)}\n{runtime_name(payback.runtime)}",
            f"{units.times(payback.speedup)}\n{units.times(payback.low)} to {units.times(payback.high)}",
            "\n".join(filter(None, pays_after(payback))),
        )
        for payback in findings.paybacks
    ]
    unit = findings.paybacks[0].unit if rows else ""
    one = unit.removesuffix("s")
    name = "Ticket" if findings.subject == TICKET else "Pruned"
    return Table(("Served", f"Dense, per {one}", f"{name}, per {one}", "Speed-up", f"Pays after ({unit})"), rows)


def cluster(findings: Findings) -> Table:
    """What a cluster billed, a row a kind of pod; empty without one."""
    bill = findings.cluster
    if bill is None or not bill.pods:
        return Table()

    def row(name: str, pods: int | None, seconds: float, price: float | None) -> tuple[str, str, str, str]:
        money = "not known" if price is None else units.money(price, bill.currency)
        return name, "" if pods is None else str(pods), units.duration(seconds), money

    rows = [row(display(name), part.pods, part.seconds, part.price) for name, part in bill.by_variant.items()]
    if bill.idle_seconds > 0:
        price = None if bill.price is None else bill.idle_price
        rows.append(row("Idle nodes afterwards, at most", None, bill.idle_seconds, price))
    rows.append(row("In all", bill.pods, bill.seconds + bill.idle_seconds, bill.price))
    return Table(("Pods", "Number", "Time", "Price"), rows)


def _spent(spend: Spend) -> str:
    if len(spend.currencies) > 1:
        return units.listed(spend.currencies)
    if spend.money is None:
        return "not known"
    text = units.money(spend.money, spend.currency)
    return f"{text} ({units.plural(spend.unpriced, 'run')} without a price)" if spend.unpriced else text


def _time(spend: Spend) -> str:
    text = amount(spend, "time") if spend.seconds is not None else "not recorded"
    return f"{text} ({units.plural(spend.untimed, 'run')} not timed)" if spend.seconds and spend.untimed else text
