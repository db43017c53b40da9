"""The serving scorecard as tables of finished text, as CSV and as JSON: the page, its twin and the command show these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ticketsmith import units
from ticketsmith.evidence.break_even import BreakEven
from ticketsmith.evidence.findings import Findings
from ticketsmith.evidence.scorecard import Group, Scorecard
from ticketsmith.evidence.speed import Speed
from ticketsmith.evidence.variants import DENSE
from ticketsmith.report import candidates
from ticketsmith.report.sentences.deployment import answer, break_even, conditions, reasons
from ticketsmith.report.sentences.names import display, runtime_name
from ticketsmith.report.tables import Table
from ticketsmith.report.tidy import as_csv

NONE = "\u2014"

_LATENCY = {"": "Latency p50", "decode": "Time per output token, p50", "prefill": "Time to first token, p50"}

_FIELDS = (
    "experiment", "variant", "level", "sparsity", "network_sparsity", "gate", "deployable", "phase", "precision",
    "batch_size", "threads", "runtime", "dense_runtime", "best_runtime", "median_ms", "p10_ms", "p90_ms", "p99_ms",
    "throughput", "unit", "against", "speedup", "speedup_low", "speedup_high", "roofline", "peak_bytes",
    "resident_bytes", "file_bytes", "max_error", "tolerance", "agreement", "per_million", "currency", "machine",
)  # fmt: skip


def shown(findings: Findings) -> Table:
    """The cell that leads, at the levels that decide: dense, the best choice, the sweet spot, the target, the sparsest."""
    card = findings.scorecard
    if card is None or card.lead is None:
        return Table()
    lead = card.lead
    own = [row.level for row in lead.rows if row.variant == card.subject]
    levels = {max(own)} if own else set()
    levels |= {lead.candidate.level} if lead.candidate else set()
    levels |= {findings.sweet_spot.answer[0]} if findings.sweet_spot else set()
    levels |= {findings.target[0]} if findings.target else set()
    return table(card, lead, [row for row in lead.rows if row.variant == card.subject and row.level in levels])


def table(card: Scorecard, group: Group, rows: Sequence[Speed] | None = None) -> Table:
    """One cell: dense on its best runtime, then each level on its own. A second line of a number is relative to dense.

    Columns that nobody measured are left out.
    """
    dense = [group.dense] if group.dense else []
    plain = [group.plain] if group.plain else []
    points = [*dense, *plain, *(group.rows if rows is None else rows)]
    columns: dict[str, list[str]] = {
        "Network": [_name(point, group) for point in points],
        _LATENCY.get(group.cell.phase, "Latency p50"): [_milliseconds(point.median_ms) for point in points],
        "p99": [_milliseconds(point.p99_ms) for point in points],
        "Speed-up": [_speedup(point, group) for point in points],
        f"{card.unit.capitalize()}s/s": [units.rate(point.throughput) for point in points],
        "Memory": [_bytes(point, group, "peak_bytes") for point in points],
        "On disk": [_bytes(point, group, "file_bytes") for point in points],
        "Per million": [_price(card, point, group) for point in points],
        "Outputs differ by": [_difference(point) for point in points],
        "Gates": [_gate(card, point) for point in points],
    }
    columns = {name: cells for name, cells in columns.items() if set(cells) != {NONE}}
    return Table(tuple(columns), [tuple(row) for row in zip(*columns.values(), strict=True)])


def settings(card: Scorecard) -> Table:
    """One row a cell: the best dense, the best that passes its gates, and from where on sparsity pays."""
    rows = []
    for group in card.groups:
        dense, best = group.dense, group.candidate
        setting = conditions(group).capitalize() + ("" if group.judged else "\nnot judged by the gates")
        rival = f"{_milliseconds(dense.median_ms)}\n{runtime_name(dense.runtime)}" if dense else NONE
        choice = NONE
        if best:
            choice = f"{_milliseconds(best.median_ms)}\n{units.share(best.sparsity)}, {runtime_name(best.runtime)}"
        rows.append((setting, rival, choice, _interval(best) if best else NONE, _evens(group)))
    return Table(("Setting", "Best dense", "Best that passes", "Speed-up", "Break-even sparsity"), rows)


def layers(card: Scorecard) -> Table:
    """One row a shape of a layer: from which sparsity on skipping its zeros pays, and the speed-ups that were measured."""
    if not card.layers:
        return Table()
    sparsities = sorted({point.sparsity for layer in card.layers for point in layer.speeds})
    rows = []
    for layer in card.layers:
        points = {point.sparsity: point for point in layer.speeds}
        cells = [units.times(points[one].speedup) if one in points else NONE for one in sparsities]
        name = f"{layer.kind.capitalize()}\n{layer.shape}, batch {layer.batch_size}"
        rows.append((name, break_even(layer.break_even) if layer.break_even else NONE, *cells))
    return Table(("Layer alone", "Break-even sparsity", *(f"at {units.percent(one)}" for one in sparsities)), rows)


def loads(card: Scorecard) -> Table:
    """Every load test: the highest rate within the target."""
    rows = [
        (
            f"{display(test.variant)}{'' if test.variant == DENSE else f', {units.share(test.sparsity)}'}",
            runtime_name(test.runtime) + ("" if test.precision == "float32" else f", {test.precision}"),
            f"{units.percent(test.percentile)} within {units.latency(test.target_ms / 1000)}",
            f"{units.rate(test.highest_rate)} a second" if test.highest_rate > 0 else "none that was tried",
        )
        for test in card.load_tests
    ]
    return Table(("Network", "Runtime", "Target", "Highest rate"), rows)


def note(card: Scorecard) -> str:
    """How to read the table."""
    rate = card.rate
    price = "Prices appear once the benchmark knows its machine (--machine)."
    if rate is not None:
        price = (
            f"Prices are for a million {card.unit}s: {rate.machine} at {units.hourly(rate.per_hour, rate.currency)} an hour, "
            "taken to be as fast as the measured machine, fully used, "
            f"{units.plural(card.streams(1), 'call')} of one thread side by side."
        )
    return (
        "Sparsity is that of the prunable weights. Each network on its fastest runtime, p50 and p99 of the latency of a "
        "call. Speed-up: against the dense network on the dense runtime that is fastest for it, measured side by side, with "
        f"{units.percent(card.confidence)} intervals; below 1\u00d7 it is slower. {_compared(card)}{price}"
    )


def _compared(card: Scorecard) -> str:
    """How far outputs were allowed to be from those of PyTorch; empty for a benchmark that does not tell."""
    points = [point for group in card.groups for point in group.points]
    allowed = {point.precision: point.tolerance for point in points if point.tolerance is not None}
    if not allowed:
        return ""
    limits = units.listed([_allowed(precision, limit) for precision, limit in allowed.items()])
    same = [point.agreement for point in points if point.agreement is not None]
    classes = f" At low precision at least {units.share(min(same))} of the inputs got the same class." if same else ""
    return f"Before timing, all outputs were compared with the model's own; allowed was {limits}.{classes} "


def _allowed(precision: str, limit: float) -> str:
    if precision == "float32":
        return f"a difference of {limit:g} (relative to the largest output, where that is above 1)"
    return f"{units.percent(limit)} of the largest output with {precision} weights"


def scorecard_csv(experiments: Sequence[Findings]) -> bytes:
    """UTF-8 with a header, one row a level of a variant on a runtime in a cell; empty where not measured."""
    cards = ((one, one.scorecard) for one in experiments)
    groups = ((one, card, group) for one, card in cards if card is not None for group in card.groups)
    rows = ({"experiment": one.name, **row} for one, card, group in groups for row in _rows(one, card, group))
    return as_csv(_FIELDS, rows)


def document(findings: Findings) -> dict[str, Any]:
    """The scorecard as plain data for ``json.dumps``. Raises nothing; without a benchmark ``groups`` is empty."""
    card = findings.scorecard
    named: dict[str, Any] = {"experiment": findings.name, "answer": answer(findings), "reasons": reasons(findings)}
    if findings.choice is not None:
        named["candidates"] = candidates.document(findings)
    if card is None:
        return {**named, "pays": None, "choice": None, "groups": []}
    choice = card.choice
    return {
        **named,
        "pays": card.pays,
        "choice": _row(findings, card, card.groups[0], choice) if choice else None,
        "unit": card.unit,
        "confidence": card.confidence,
        "device": card.device,
        "machine": dict(card.machine),
        "rate": asdict(card.rate) if card.rate else None,
        "groups": [
            {
                **group.cell._asdict(),
                "dense": _row(findings, card, group, group.dense) if group.dense else None,
                "dense_float32": _row(findings, card, group, group.plain) if group.plain else None,
                "choice": _row(findings, card, group, group.choice) if group.choice else None,
                "rows": _rows(findings, card, group),
                "break_even": {name: _even(even) for name, even in group.break_even.items()},
            }
            for group in card.groups
        ],
        "layers": [{**asdict(layer), "break_even": _even(layer.break_even)} for layer in card.layers],
        "loads": [asdict(test) for test in card.load_tests],
    }


def _rows(findings: Findings, card: Scorecard, group: Group) -> list[dict[str, Any]]:
    return [
        {**_row(findings, card, group, point), "best_runtime": point in group.rows or point == group.dense}
        for point in group.points
    ]


def _row(findings: Findings, card: Scorecard, group: Group, point: Speed) -> dict[str, Any]:
    status = card.status(point)
    derived = {
        "network_sparsity": findings.network_sparsity(point.variant, point.level),
        "gate": None if status is None else str(status),
        "deployable": card.may_deploy(point),
        "dense_runtime": point.dense,
        "unit": card.unit,
        "speedup_low": point.low,
        "speedup_high": point.high,
        "per_million": card.price(group, point),
        "currency": card.rate.currency if card.rate else None,
        "machine": card.rate.machine if card.rate else None,
    }
    names = [name for name in _FIELDS if name not in ("experiment", "best_runtime")]
    return {name: derived[name] if name in derived else getattr(point, name) for name in names}


def _even(even: BreakEven | None) -> Mapping[str, Any] | None:
    return None if even is None else {**asdict(even), "text": break_even(even)}


def _name(point: Speed, group: Group) -> str:
    on = runtime_name(point.runtime)
    if point is group.plain:
        return f"Dense, float32, for comparison\non {on}"
    if point.variant == DENSE:
        return f"Dense{'' if point.precision == 'float32' else f', {point.precision}'}\non {on}"
    return f"{display(point.variant)}\n{units.share(point.sparsity)} sparsity, on {on}"


def _milliseconds(value: float | None) -> str:
    return NONE if value is None else units.latency(value / 1000)


def _interval(point: Speed) -> str:
    doubt = "" if point.claimed else "\nno clear difference"
    return f"{units.times(point.speedup)}\n{units.times(point.low)} to {units.times(point.high)}{doubt}"


def _speedup(point: Speed, group: Group) -> str:
    if point is group.dense:
        return units.times(1.0)
    return NONE if point is group.plain else _interval(point)


def _bytes(point: Speed, group: Group, field: str) -> str:
    amount: float | None = getattr(point, field)
    dense: float | None = getattr(group.dense, field, None)
    if amount is None:
        return NONE
    if not dense or point in (group.dense, group.plain):
        return units.size(amount)
    return f"{units.size(amount)}\n{_change(amount / dense)}"


def _difference(point: Speed) -> str:
    if point.tolerance is None:
        return NONE
    same = "" if point.agreement is None else f"\n{units.share(point.agreement)} same class"
    return f"{point.max_error:.1g}{same}"


def _price(card: Scorecard, point: Speed, group: Group) -> str:
    price = card.price(group, point)
    if price is None or card.rate is None:
        return NONE
    text = units.money(price, card.rate.currency)
    return text if point in (group.dense, group.plain) else f"{text}\n{_change(1 / point.speedup)}"


def _evens(group: Group) -> str:
    """The break-even of every runtime that has one; that none has, where none has."""
    evens = {name: even for name, even in group.break_even.items() if even.kind != "none"}
    if not evens and group.break_even:
        return break_even(next(iter(group.break_even.values())))
    return "\n".join(f"{break_even(even)}\n{runtime_name(name)}" for name, even in evens.items()) or NONE


def _change(factor: float) -> str:
    """``\u221263 %`` of what dense takes, ``3.1\u00d7`` where it is more than double."""
    if factor >= 2:
        return f"{units.times(factor)} dense"
    change = round(100 * (factor - 1))
    return f"{units.MINUS if change < 0 else '+'}{abs(change)} %" if change else "as dense"


def _gate(card: Scorecard, point: Speed) -> str:
    return "Reference" if point.variant == DENSE else str(card.status(point) or NONE)
