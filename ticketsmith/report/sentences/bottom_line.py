"""What finding the ticket cost, and after how many served requests that has paid for itself, in plain words."""

from __future__ import annotations

from ticketsmith import units
from ticketsmith.evidence.billing import ClusterBill
from ticketsmith.evidence.cost import Spend
from ticketsmith.evidence.findings import Findings
from ticketsmith.evidence.payback import Payback
from ticketsmith.evidence.variants import TICKET
from ticketsmith.report.sentences.choice import paid
from ticketsmith.report.sentences.names import runtime_name

_DEVICES = {"cpu": "a CPU", "cuda": "a GPU"}


def bottom_line(findings: Findings) -> str:
    """Two or three sentences: the price of finding it, and when it is earned back, or that it never is."""
    return f"{_price(findings)} {_return(findings)}"


def amount(spend: Spend, kind: str) -> str:
    """A sum as ``money``, as compute ``time`` or as ``arithmetic``: the kind that everything beside it is told in."""
    if kind == "money" and spend.money is not None:
        return units.money(spend.money, spend.currency)
    if kind != "arithmetic" and spend.seconds is not None:
        return units.duration(spend.seconds)
    return units.flops(spend.flops) if spend.flops > 0 else "not recorded"


def best_kind(*spends: Spend) -> str:
    """Money where every run of all sums has its price, else time where every run has its time, else arithmetic."""
    if all(spend.priced for spend in spends) and len({spend.currency for spend in spends}) == 1:
        return "money"
    return "time" if all(spend.timed for spend in spends) else "arithmetic"


def pays_after(payback: Payback) -> tuple[str, str]:
    """After how many requests one batch size pays, and the interval: ``12 million``, ``10 million to 15 million``.

    Or ``never``, ``not shown``, ``cannot be said``, ``at once``, and no interval.
    """
    if payback.outcome != "pays":
        return "never" if payback.outcome == "never" else "not shown", ""
    if payback.requests is None:
        return "cannot be said", ""
    span = payback.requests
    if span.middle <= 0:
        return "at once", ""
    return units.count(span.middle), f"{units.count(span.low)} to {units.count(span.high)}"


def cluster_line(findings: Findings) -> str:
    """What the cluster billed in all, and how much of it was the work itself; empty without a cluster."""
    bill = findings.cluster
    if bill is None or not bill.pods:
        return ""
    sum_ = f"billed {units.money(bill.price, bill.currency)}" if bill.price is not None else "was used"
    share = min(1.0, bill.useful_seconds / bill.seconds) if bill.seconds > 0 else 0.0
    idle = ""
    if bill.idle_seconds > 0:
        money = f" ({units.money(bill.idle_price, bill.currency)} of it)" if bill.price is not None else ""
        idle = (
            f" Afterwards nodes idled for up to {units.duration(bill.idle_seconds)} until they were scaled down{money}."
        )
    use = "" if bill.utilisation is None else f" GPUs were used {100 * bill.utilisation:.0f} % on average."
    return (
        f"The cluster {sum_}: {units.plural(bill.pods, 'pod')} took {units.duration(bill.seconds)}, of which the runs "
        f"themselves were {100 * share:.0f} % and starting, loading, measuring and lost work the rest.{idle}"
        f"{_mishaps(bill)}{use}"
    )


def _mishaps(bill: ClusterBill) -> str:
    text = ""
    if bill.failed.pods:
        reasons = units.listed([f"{count} {reason}" for reason, count in bill.reasons.items()])
        price = "" if bill.failed.price is None else f", {units.money(bill.failed.price, bill.currency)}"
        took = f"{units.duration(bill.failed.seconds)}{price}"
        text = f" {units.plural(bill.failed.pods, 'pod')} ended without success ({reasons}), after {took}."
    if bill.again:
        verb = "was" if bill.again == 1 else "were"
        text += f" {units.plural(bill.again, 'pod')} {verb} started in the place of another."
    return text


def notes(findings: Findings) -> list[str]:
    """What a reader should know of the numbers: where prices come from, and what is not in them."""
    scope = (
        "Prices are of machines alone: storage, network, the cluster's own nodes, tax and discounts are not in them."
    )
    parts = [*_prices(findings), *_gaps(findings), *_pods(findings)]
    return parts if findings.cost.total.price is None else [*parts, scope]


def _prices(findings: Findings) -> list[str]:
    sentences = []
    for machine in findings.cost.machines:
        kind = ", spot" if machine.spot else ""
        source = ", ".join(part for part in (machine.source, machine.dated and f"dated {machine.dated}") if part)
        price = units.hourly(machine.per_hour, machine.currency)
        sentences.append(f"{machine.name}{kind}: {price} an hour{f' ({source})' if source else ''}.")
    return sentences


def _gaps(findings: Findings) -> list[str]:
    total, sentences = findings.cost.total, []
    if len(total.currencies) > 1:
        sentences.append(
            f"Prices are in {units.listed(list(total.currencies))}: they were not added, and costs are told in time."
        )
    elif total.price is not None and total.unpriced:
        verb = "has" if total.unpriced == 1 else "have"
        sentences.append(
            f"{total.unpriced} of {units.plural(total.runs, 'run')} {verb} no price, since no `--machine` was given when "
            "they were made: sums that they belong to are told in time."
        )
    if total.seconds is not None and total.untimed:
        verb = "did" if total.untimed == 1 else "do"
        sentences.append(f"{total.untimed} of {units.plural(total.runs, 'run')} {verb} not know how long it took.")
    copied = {run.key for run in findings.results if run.bill and run.bill.copied}
    if copied:
        verb = "was" if len(copied) == 1 else "were"
        sentences.append(
            f"{units.plural(len(copied), 'run')} {verb} made for another experiment and copied: the cost is counted here "
            "too, and was paid once."
        )
    return sentences


def _pods(findings: Findings) -> list[str]:
    bill = findings.cluster
    if bill is None:
        return []
    sentences = []
    if bill.unpriced:
        sentences.append(f"{units.plural(bill.unpriced, 'pod')} without a price: the bill of the cluster is not known.")
    if bill.running:
        sentences.append(f"{units.plural(bill.running, 'pod')} had not ended: counted as far as it was known.")
    if bill.unreadable:
        sentences.append(f"{units.plural(bill.unreadable, 'record')} of pods could not be read and are not counted.")
    return sentences


def _price(findings: Findings) -> str:
    cost = findings.cost
    kind = best_kind(cost.finding, cost.dense)
    verb = "cost" if kind == "money" else "took"
    what = {"money": "", "time": " of compute", "arithmetic": " of training arithmetic"}[kind]
    dense = f"dense alone: {amount(cost.dense, kind)}"
    sum_ = f"{amount(cost.finding, kind)}{what}"
    if findings.sweet_spot is None:
        return f"The search {verb} {sum_} ({dense})."
    name = "the ticket" if findings.subject == TICKET else "it"
    return f"Finding {name} {verb} {sum_} ({dense})."


def _return(findings: Findings) -> str:
    if findings.sweet_spot is None and findings.choice is None:
        return "No level passed its gates: there is nothing yet that could earn it back."
    if findings.choice is not None:
        return paid(findings, findings.choice)
    if findings.benchmark is None:
        return "Inference was not measured, so nothing can be said of when that pays for itself."
    if not findings.paybacks:
        return "No network that passes its gates was measured against dense, so nothing can be said of when that pays for itself."
    payback = findings.paybacks[0]
    one = payback.unit.removesuffix("s")
    batches = "" if payback.batch_size == 1 else f" in batches of {payback.batch_size}"
    ticket = f"{units.latency(payback.ticket_seconds)} per {one}{batches}"
    dense = f"{units.latency(payback.dense_seconds)} for dense on {runtime_name(payback.dense_runtime)}"
    if payback.outcome != "pays":
        interval = f"{units.times(payback.low)} to {units.times(payback.high)}"
        ends = (
            "it never pays for itself: it is slower"
            if payback.outcome == "never"
            else "it is not shown to pay for itself: the measured speed-up cannot be told from 1"
        )
        return (
            f"At the measured {ticket} on {runtime_name(payback.runtime)}, against {dense}, {ends} "
            f"({interval}).{_elsewhere(findings)}"
        )
    if payback.requests is None or payback.requests_with_dense is None:
        return (
            f"The measured time is {ticket}, against {dense}; after how many that pays for itself cannot be said: "
            f"{_obstacle(findings, payback)}."
        )
    if payback.requests.middle <= 0:
        return f"At the measured {ticket}, against {dense}, it pays from the first {one} on."
    level = units.percent(findings.benchmark.confidence)
    where = (
        f" served on {payback.machine} at {units.hourly(payback.per_hour, payback.currency)} an hour"
        if payback.currency and payback.per_hour is not None
        else ", served on the machine that trained it"
    )
    span = payback.requests
    return (
        f"At the measured {ticket}, against {dense}, it has paid for itself after "
        f"{units.count(span.middle)} {payback.unit}{where} ({level} interval {units.count(span.low)} to "
        f"{units.count(span.high)}). That earns back what it cost beyond training dense; with dense training too, "
        f"{units.count(payback.requests_with_dense.middle)}."
    )


def _obstacle(findings: Findings, payback: Payback) -> str:
    """Why what finding cost and what serving saves cannot be compared."""
    cost, card = findings.cost, findings.scorecard
    assert card is not None
    match payback.obstacle:
        case "currencies":
            serving = card.rate.currency if card.rate else ""
            return f"training is priced in {cost.finding.currency} and serving in {serving}, which cannot be compared"
        case "devices":
            trained = " and ".join(_DEVICES.get(device, device) for device in cost.devices)
            return (
                f"it was trained on {trained} and measured on {_DEVICES.get(card.device_kind, card.device_kind)}, and what an "
                "hour of both costs is not known (`--machine`)"
            )
        case _:
            return "not every run recorded its time"


def _elsewhere(findings: Findings) -> str:
    """A larger batch may pay where the smallest does not."""
    other = next((p for p in findings.paybacks[1:] if p.requests is not None), None)
    if other is None or other.requests is None:
        return ""
    return (
        f" In batches of {other.batch_size}, on {runtime_name(other.runtime)}, it does, after "
        f"{units.count(other.requests.middle)} {other.unit}."
    )
