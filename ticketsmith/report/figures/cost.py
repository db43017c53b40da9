"""What did the evidence cost? By variant; level by level, as the ticket grows; and when serving earns it back."""

from __future__ import annotations

import altair as alt

from ticketsmith import units
from ticketsmith.evidence.cost import Spend
from ticketsmith.evidence.findings import Findings
from ticketsmith.report.figures.parts import HEIGHT, Figure, Row, colour, data, finished, hover, note, reading, rule
from ticketsmith.report.sentences.bottom_line import amount, best_kind
from ticketsmith.report.sentences.names import display, runtime_name
from ticketsmith.report.theme import BLUE, SOFT, variant_series

_TOP = 220.0  # per cent earned back, the height of the chart
_SCALES = ((1e12, "trillions"), (1e9, "billions"), (1e6, "millions"), (1e3, "thousands"))


def cost_figures(findings: Findings) -> list[Figure]:
    """Three figures at most: by variant; by level where there are levels; when it pays, where it does."""
    figures = (_by_variant(findings), _by_level(findings), _payback(findings))
    return [figure for figure in figures if figure is not None]


_DID = {"money": "cost {}", "time": "took {} of compute", "arithmetic": "took {} of training arithmetic"}
_NOTES = {
    "money": "Runs that were made side by side share the machine's hour.",
    "time": (
        "Compute time adds up single runs, which may have run side by side: it is not the time that somebody waited."
    ),
    "arithmetic": "Shown as training arithmetic, because not every run recorded its time.",
}


def _size(spend: Spend, kind: str) -> float:
    sizes = {"money": spend.money, "time": spend.seconds, "arithmetic": spend.flops}
    return sizes[kind] or 0.0


def _by_variant(findings: Findings) -> Figure | None:
    total = findings.cost.total
    kind = best_kind(total) if total.money != 0 else "time"  # bars of nothing show nothing
    rows: list[Row] = []
    for variant, part in findings.cost.by_variant.items():
        rows.append(
            {
                "series": variant,
                "Variant": display(variant),
                "amount": _size(part, kind),
                "label": amount(part, kind),
                "Runs": str(part.runs),
                "Price": amount(part, "money") if part.priced else "not known",
                "Compute time": units.duration(part.seconds) if part.seconds is not None else "not recorded",
                "Training arithmetic": units.flops(part.flops),
            }
        )
    most = max(row["amount"] for row in rows)
    if most == 0:
        return None
    series = variant_series(findings.variants)
    y = alt.Y("Variant:N", sort=[row["Variant"] for row in rows], axis=None)
    x = alt.X("amount:Q", axis=None, scale=alt.Scale(domain=[0, most * 1.35]))
    base = alt.Chart(data(rows)).encode(x=x, y=y)
    fields = ("Variant", "Runs", *(["Price"] if kind == "money" else []), "Compute time", "Training arithmetic")
    bars = base.mark_bar(cornerRadiusEnd=3, height=16, yOffset=8).encode(
        color=colour(series), tooltip=[alt.Tooltip(f"{name}:N") for name in fields]
    )
    amounts = base.mark_text(align="left", dx=6, dy=8).encode(text="label:N")
    # The names stand above their bars: beside them they would leave a phone no room for the bars.
    names = base.mark_text(align="left", dy=-12, fontWeight=600).encode(x=alt.value(0), text="Variant:N")
    return Figure(
        name="cost-variants",
        section="cost",
        title=f"All the evidence {_DID[kind].format(amount(total, kind))}",
        caption=f"{units.plural(total.runs, 'run')}, all seeds. {_NOTES[kind]}",
        alt="Training by variant: " + "; ".join(f"{row['Variant']} {row['label']}" for row in rows) + ".",
        spec=finished(alt.layer(bars, amounts, names), height=46 * len(rows)),
    )


def _by_level(findings: Findings) -> Figure | None:
    parts = [(level, part) for variant, level, part in findings.cost.by_level if variant == findings.subject]
    kind = best_kind(findings.cost.dense, *(part for _, part in parts))
    base_amount = _size(findings.cost.dense, kind)
    if not parts or not base_amount:
        return None
    sparsity = {run.level: run.sparsity for run in findings.results if run.variant == findings.subject}
    rows: list[Row] = []
    so_far = base_amount
    for level, part in [(0, findings.cost.dense), *parts]:
        so_far += _size(part, kind) if level else 0.0
        rows.append(
            {
                "level": level,
                "times": so_far / base_amount,
                "Level": "dense" if level == 0 else f"{level} ({units.share(1 - sparsity[level])} left)",
                "So far": f"{so_far / base_amount:.1f}\u00d7 training dense once",
                "Spent": _amount(so_far, kind, findings.cost.dense.currency),
            }
        )
    spot = findings.sweet_spot
    x = alt.X("level:O", axis=alt.Axis(title="Pruning level", labelAngle=0, labelOverlap="greedy"))
    y = alt.Y("times:Q", axis=alt.Axis(title="Times the cost of dense training", tickCount=5))
    price = [row for row in rows if spot is None or row["level"] <= spot.located][-1]
    chart = alt.Chart(data(rows)).encode(x=x, y=y)
    bars = chart.mark_bar(cornerRadiusEnd=3, width={"band": 0.7}).encode(
        color=alt.condition(f"datum.level <= {price['level']}", alt.value(BLUE.colour), alt.value("#C5DCEA")),
        tooltip=[alt.Tooltip(f"{name}:N") for name in ("Level", "So far", "Spent")],
    )
    layers = [bars]
    if spot is not None:
        here = [row for row in rows if row["level"] == spot.level]
        layers.append(note("sweet spot", x=x, y=alt.Y("times:Q"), rows=here, dy=-8, dx=14, align="right"))
    goal = "Finding the sweet spot" if spot else "All levels together"
    what = {"money": "Price of training", "time": "Training time", "arithmetic": "Training arithmetic"}[kind]
    pale = ""
    if spot:
        pale = " The level after the sweet spot had to be trained to find it." if spot.end else ""
        pale += " Pale: not needed to find it." if price is not rows[-1] else ""
    return Figure(
        name="cost-levels",
        section="cost",
        title=f"{goal} cost {price['times']:.1f}\u00d7 one dense training",
        caption=f"{what} of dense and all levels so far, relative to training the same seeds densely once.{pale}",
        alt=f"Cumulative cost by pruning level. {goal} cost {price['times']:.1f} times one dense training.",
        spec=finished(alt.layer(*layers), height=HEIGHT - 100),
    )


def _amount(size: float, kind: str, currency: str) -> str:
    if kind == "money":
        return units.money(size, currency)
    return units.duration(size) if kind == "time" else units.flops(size)


def _payback(findings: Findings) -> Figure | None:
    """How much of what finding cost is earned back, against the requests that were served."""
    payback = next((p for p in findings.paybacks if p.requests is not None and p.requests.middle > 0), None)
    if payback is None or payback.requests is None:
        return None
    span = payback.requests
    most = 2.2 * span.middle
    size, name = next(((s, n) for s, n in _SCALES if most >= 2 * s), (1.0, ""))
    rows: list[Row] = [
        {
            "served": served / size,
            "middle": 100 * served / span.middle,
            "low": 100 * served / span.high,
            "high": 100 * served / span.low,
            "Served": f"{units.count(served)} {payback.unit}" if served else f"no {payback.unit}",
            "Earned back": f"{100 * served / span.middle:.0f} %",
            "Interval": f"{100 * served / span.high:.0f} % to {100 * served / span.low:.0f} %",
        }
        for served in (most * step / 44 for step in range(45))
    ]
    x = alt.X(
        "served:Q",
        scale=alt.Scale(domain=[0, most / size], nice=False),
        axis=alt.Axis(
            title=f"{payback.unit.capitalize()} served{f' ({name})' if name else ''}",
            tickCount=6,
            labelExpr="format(datum.value, ',.9~f')",
        ),
    )
    y = alt.Y(
        "middle:Q",
        scale=alt.Scale(domain=[0, _TOP], nice=False),
        axis=alt.Axis(
            title="Earned back of what finding it cost", values=[0, 50, 100, 150, 200], labelExpr="datum.label + ' %'"
        ),
    )
    chart = alt.Chart(data(rows)).encode(x=x)
    band = chart.mark_area(opacity=0.16, color=BLUE.colour, clip=True).encode(y=reading(y, "low"), y2="high:Q")
    line = chart.mark_line(color=BLUE.colour, strokeWidth=2.4, clip=True).encode(y=y)
    here = [{"served": span.middle / size, "middle": 100.0}]
    point = alt.Chart(data(here)).mark_point(filled=True, size=90, color=BLUE.ink, opacity=1).encode(x=x, y=y)
    label = note(units.count(span.middle), x=x, y=y, rows=here, dx=12, dy=16, align="left", fontWeight=600)
    pointer = hover(chart, ("Served", "Earned back", "Interval"), y=y)
    paid = note(
        "paid for itself", x=alt.value(0), y=reading(y, "y"), rows=[{"y": 100.0}], align="left", dx=6, dy=-8, color=SOFT
    )
    where = f"{payback.machine}, " if payback.machine else ""
    level = units.percent(findings.benchmark.confidence) if findings.benchmark else ""
    batches = "" if payback.batch_size == 1 else f"in batches of {payback.batch_size}, "
    return Figure(
        name="cost-payback",
        section="cost",
        title=f"{batches}it has paid for itself after {units.count(span.middle)} {payback.unit}".capitalize(),
        caption=(
            f"What finding it cost beyond training dense, against what it saves at every request: {where}"
            f"{runtime_name(payback.runtime)}, batch size {payback.batch_size}. Band: {level} interval of the measured speed-up."
        ),
        alt=(
            f"Share of the cost of finding that is earned back against {payback.unit} served: all of it after "
            f"{units.count(span.middle)} ({units.count(span.low)} to {units.count(span.high)})."
        ),
        spec=finished(
            alt.layer(rule(100.0, y, SOFT, 1.4, (4, 3)), paid, band, line, point, label, pointer), height=HEIGHT - 100
        ),
    )
