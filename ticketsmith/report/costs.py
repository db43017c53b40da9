"""The small tables of the section on costs: what was spent, when serving earns it back, what a cluster billed."""

from __future__ import annotations

from ticketsmith import units
from ticketsmith.evidence.cost import Spend
from ticketsmith.evidence.findings import Findings
from ticketsmith.evidence.variants import TICKET
from ticketsmith.report.sentences.bottom_line import amount, pays_after
from ticketsmith.report.sentences.names import display, runtime_name
from ticketsmith.report.tables import Table


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
        row = [name, str(spend.runs), *([_price(spend)] if priced else []), _time(spend)]
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
        rows.append(
            row(
                "Idle nodes afterwards, at most",
                None,
                bill.idle_seconds,
                None if bill.price is None else bill.idle_price,
            )
        )
    rows.append(row("In all", bill.pods, bill.seconds + bill.idle_seconds, bill.price))
    return Table(("Pods", "Number", "Time", "Price"), rows)


def _price(spend: Spend) -> str:
    if len(spend.currencies) > 1:
        return units.listed(spend.currencies)
    if spend.money is None:
        return "not known"
    text = units.money(spend.money, spend.currency)
    return f"{text} ({units.plural(spend.unpriced, 'run')} without a price)" if spend.unpriced else text


def _time(spend: Spend) -> str:
    text = amount(spend, "time") if spend.seconds is not None else "not recorded"
    return f"{text} ({units.plural(spend.untimed, 'run')} not timed)" if spend.seconds and spend.untimed else text
