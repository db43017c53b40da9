"""The best deployable choice in plain words, or that sparsity does not pay on this machine and why."""

from __future__ import annotations

from ticketsmith import units
from ticketsmith.evidence.break_even import BreakEven
from ticketsmith.evidence.findings import Findings
from ticketsmith.evidence.scorecard import Group, Load, Scorecard
from ticketsmith.evidence.serving import LoadTest
from ticketsmith.evidence.speed import Speed, fastest
from ticketsmith.evidence.variants import is_control, ordered
from ticketsmith.report.sentences.names import begun, in_sentence, runtime_name

DAYS = 30
"""Days of a month, for what is saved in one."""

NOT_MEASURED = "Inference was not measured, so that nothing can be said of speed."
NO_RIVAL = (
    "Inference was measured without a dense runtime, so that nothing can be said of speed: measure one beside it "
    "(ticketsmith benchmark)."
)


def answer(findings: Findings) -> str:
    """One sentence: the best deployable choice with its interval, or that sparsity does not pay here.

    Where candidates were judged as files, it says that it is of one precision alone: the verdict on them is another.
    """
    text = _answer(findings)
    lead = findings.scorecard.lead if findings.scorecard else None
    if findings.choice is None or lead is None:
        return text
    return f"Within {lead.cell.precision} alone: {text[:1].lower()}{text[1:]}"


def _answer(findings: Findings) -> str:
    card = findings.scorecard
    if card is None or card.lead is None:
        return NO_RIVAL if findings.benchmark and findings.benchmark.timings else NOT_MEASURED
    lead, dense = card.lead, card.lead.dense
    served = f"dense on {runtime_name(dense.runtime)} {_takes(dense, card)}" if dense else ""
    if lead.choice is not None:
        start = "Best choice that passes its gates"
        if not lead.judged:
            start = f"With {lead.cell.precision} weights, whose quality the gates did not judge"
        return (
            f"{start}: {_of_network(findings, lead.choice)} on {runtime_name(lead.choice.runtime)}. "
            f"It {_takes(lead.choice, card)}, {ratio(lead.choice)} as fast as {_rival(lead.choice)}, the best dense "
            f"runtime measured ({conditions(lead)})."
        )
    if not findings.policy.gates:
        return f"No quality gate was set, so that no sparse network can be called deployable; {served}."
    if not card.deployable:
        return f"No sparsity is shown to pass its gates, so that there is no sparse network to deploy; {served}."
    if lead.candidate is None:
        return f"No sparsity that passes its gates was measured; {served}."
    return (
        f"Unstructured sparsity does not pay here: no sparsity that passes its gates is surely faster than "
        f"{_rival(lead.candidate)}, the best dense runtime measured ({conditions(lead)})."
    )


def reasons(findings: Findings) -> list[str]:
    """What else to know of the answer, a sentence each: why it does not pay, what it saves, what other settings say."""
    card = findings.scorecard
    if card is None or card.lead is None:
        return []
    sentences = []
    if card.lead.choice is not None:
        sentences += [*_saves(card, card.lead), *_own_gain(card.lead)]
    elif card.lead.candidate is not None:
        sentences += _why_not(findings, card, card.lead)
    sentences += _other_methods(card)
    sentences += _elsewhere(card)
    sentences += _low_precision(card)
    sentences += [load_line(load) for load in card.loads]
    return [line for line in sentences if line]


def named(speed: Speed) -> str:
    """``the ticket at 83.2 % sparsity``."""
    return f"{in_sentence(speed.variant)} at {units.share(speed.sparsity)} sparsity"


def _of_network(findings: Findings, speed: Speed) -> str:
    """The same, with the share of the network where that is another."""
    whole = findings.network_sparsity(speed.variant, speed.level)
    if whole is None or not findings.size.partial:
        return named(speed)
    return f"{named(speed)} of the prunable weights ({units.share(whole)} of the network)"


def ratio(speed: Speed) -> str:
    """``5.10\u00d7 (4.90\u00d7 to 5.30\u00d7)``."""
    return f"{units.times(speed.speedup)} ({units.times(speed.low)} to {units.times(speed.high)})"


def conditions(group: Group) -> str:
    """``batch size 1, 1 thread``, with the phase and the precision where those are not the usual ones."""
    parts = [group.cell.phase] if group.cell.phase else []
    parts += [f"batch size {group.cell.batch_size}", units.plural(group.cell.threads, "thread")]
    parts += [] if group.cell.precision == "float32" else [f"{group.cell.precision} weights"]
    return ", ".join(parts)


def break_even(even: BreakEven) -> str:
    """From which sparsity on it pays: ``50 % (49 % to 51 %)``, ``below 50 %``, ``none up to 98.0 %``."""
    match even.kind:
        case "always":
            return "at every sparsity"
        case "below":
            return f"below {_percent(even.high)}"
        case "at":
            low, high = _percent(even.low), _percent(even.high)
            return _percent(even.sparsity) + (f" ({low} to {high})" if low != high else "")
        case "between":
            if even.low is None:
                return f"at {_percent(even.high)} or below"
            return f"between {_percent(even.low)} and {_percent(even.high)}"
        case "none":
            return f"none up to {_percent(even.high)}"
        case "unclear":
            return "not clear"


def _percent(sparsity: float | None) -> str:
    """Whole per cents: more would claim more than an interpolation knows; beyond 98 % they would all look alike."""
    assert sparsity is not None
    return f"{100 * sparsity:.0f} %" if sparsity < 0.98 else units.share(sparsity)


def load_line(load: Load) -> str:
    """Which rate of requests dense and the ticket can serve within the target."""
    either = load.ticket or load.dense
    if either is None:
        return ""
    weights = "" if either.precision == "float32" else f"{either.precision} weights and "
    target = f"{weights}{units.percent(either.percentile)} of requests answered within {units.latency(either.target_ms / 1000)}"
    clauses = [
        f"{in_sentence(test.variant)} on {runtime_name(test.runtime)} {served(test)}"
        for test in (load.ticket, load.dense)
        if test is not None
    ]
    if load.ticket is None:
        clauses.append("nothing that passes its gates was tested")
    return f"With {target}, arriving at random: {units.listed(clauses)}."


def served(test: LoadTest) -> str:
    """``serves 12,000 requests a second``, with the next rate that was tried and missed."""
    missed = min((step.rate for step in test.steps if not step.kept and step.rate > test.highest_rate), default=None)
    if test.highest_rate <= 0:
        return (
            f"misses it even at {units.rate(missed)} requests a second"
            if missed is not None
            else "was tried at no rate"
        )
    beyond = f" (and misses it at {units.rate(missed)})" if missed is not None else ""
    return f"serves {units.rate(test.highest_rate)} requests a second{beyond}"


def _takes(speed: Speed, card: Scorecard) -> str:
    latency = units.latency(speed.median_ms / 1000)
    match speed.phase:
        case "decode":
            return f"takes {latency} an output token"
        case "prefill":
            return f"gives its first token after {latency}"
        case _:
            article = "an" if card.unit[:1] in "aeiou" else "a"
            one = f"{article} {card.unit}" if speed.batch_size == 1 else f"a batch of {speed.batch_size}"
            units_a_call = speed.throughput * speed.median_ms / 1000 / speed.batch_size
            if units_a_call > 1.5:  # a call of a model of sequences: a window of tokens
                return f"takes {latency} for {units.plural(round(units_a_call * speed.batch_size), card.unit)}"
            if units_a_call < 0.75:  # a picture of a model that is called again and again for it
                latency = units.latency(speed.batch_size * speed.seconds)
            return f"takes {latency} {one}"


def _rival(speed: Speed) -> str:
    return f"dense on {runtime_name(speed.against)}"


def _saves(card: Scorecard, group: Group) -> list[str]:
    """What a million cost and what a million a day save in a month; nothing without a price."""
    ticket, dense, rate = group.choice, group.dense, card.rate
    if ticket is None or dense is None or rate is None or not rate.per_hour:
        return []
    before, after = card.per_million(dense), card.per_million(dense, ticket.speedup)
    assert before is not None
    assert after is not None
    month = [DAYS * before * (1.0 - 1.0 / speedup) for speedup in (ticket.speedup, ticket.low, ticket.high)]
    saved, low, high = (units.money(amount, rate.currency) for amount in month)
    sizes = f"{units.money(after, rate.currency)} instead of {units.money(before, rate.currency)}"
    return [
        f"A million {card.unit}s cost {sizes} on {rate.machine} at {units.hourly(rate.per_hour, rate.currency)} an "
        f"hour: a million a day save {saved} a month ({low} to {high}), as far as the machine is kept busy."
    ]


def _own_gain(group: Group) -> list[str]:
    own, choice = group.own_gain, group.choice
    if own is None or choice is None:
        return []
    return [
        f"Not all of it is sparsity's doing: the dense network on {runtime_name(own.runtime)} is {ratio(own)} as fast "
        f"already; removing weights gives the other {units.times(choice.speedup / own.speedup)}."
    ]


def _why_not(findings: Findings, card: Scorecard, group: Group) -> list[str]:
    """Why the lead has no choice: nothing skipped zeros, or break-even lies beyond what passes, or nowhere."""
    candidate = group.candidate
    assert candidate is not None
    own = [point for point in group.points if point.variant == card.subject]
    passing = [point for point in own if point.level in card.deployable]
    nearest = fastest(point for point in passing if not point.dense)
    if nearest is None:
        return [
            f"The nearest, {named(candidate)} on {runtime_name(candidate.runtime)}, is {ratio(candidate)} as fast.",
            "Only dense runtimes ran what passes its gates, and they multiply zeros like any other number"
            f"{_refused(findings, card)}.",
        ]
    on = runtime_name(nearest.runtime)
    sentences = [
        f"Where zeros are skipped or removed, the nearest is {named(nearest)} on {on}: {ratio(nearest)} as fast."
    ]
    deepest = units.share(max(point.sparsity for point in passing))
    ahead = {name: even for name, even in group.break_even.items() if even.kind in ("at", "between")}
    sentences += [
        f"Break-even on {runtime_name(name)}: {break_even(even)} sparsity; what passes its gates ends at {deepest}."
        for name, even in ahead.items()
    ]
    if not ahead:
        most = units.share(max(point.sparsity for point in own))
        sentences.append(
            f"No sparsity up to {most}, passing or not, is shown to be faster throughout on any runtime tried."
        )
    return sentences


def _refused(findings: Findings, card: Scorecard) -> str:
    refusals = findings.benchmark.refusals if findings.benchmark else ()
    own = {r.runtime: r.reason for r in refusals if r.variant == card.subject and r.level in card.deployable}
    if not own:
        return "; no runtime that skips zeros was tried"
    refused = [f"{runtime_name(name)} refused: {reason.rstrip('.')}" for name, reason in own.items()]
    return f" ({'; '.join(refused)})"


def _other_methods(card: Scorecard) -> list[str]:
    """Rivals of the subject that go further: their own sequence passes that far, and they are surely faster than the choice."""
    lead = card.lead
    assert lead is not None
    sentences = []
    for variant in ordered(row.variant for row in lead.rows):
        if variant == card.subject or is_control(variant, card.subject):
            continue
        levels = card.passing.get(variant, frozenset())
        best = fastest(row for row in lead.rows if row.variant == variant and row.level in levels)
        if best is not None and best.low > max(1.0, lead.choice.high if lead.choice else 1.0):
            sentences.append(
                f"{begun(named(best))} passes its gates too, and is {ratio(best)} as fast as {_rival(best)}."
            )
    return sentences


def _elsewhere(card: Scorecard) -> list[str]:
    """The other cells of the same precision, in one sentence."""
    lead = card.lead
    assert lead is not None
    others = [
        g for g in card.groups[1:] if g.cell.precision == lead.cell.precision and g.candidate is not None and g.dense
    ]
    if not others:
        return []
    pays = [f"{_short(group, lead)}: {units.times(group.choice.speedup)}" for group in others if group.choice]
    not_ = [_short(group, lead) for group in others if not group.choice]
    if not pays:
        start = "Nor does it pay" if lead.choice is None else "It does not pay"
        return [f"{start} in any other setting that was measured ({'; '.join(not_)})."]
    start = "It is surely faster than the best dense elsewhere too" if lead.choice else "Elsewhere it does pay"
    beside = f"; not surely at {'; '.join(not_)}" if not_ else ""
    return [f"{start} ({'; '.join(pays)}){beside}."]


def _low_precision(card: Scorecard) -> list[str]:
    """Rounded weights: beside dense ones that are rounded alike. Nobody has judged their quality."""
    lead = card.lead
    assert lead is not None
    sentences = []
    for group in card.groups:
        same = group.cell._replace(precision=lead.cell.precision) == lead.cell
        if not same or group.cell.precision == lead.cell.precision or group.choice is None:
            continue
        if lead.choice is not None and group.choice.seconds >= lead.choice.seconds:
            sentences.append(
                f"Rounding to {group.cell.precision} gives nothing here: {named(group.choice)} {_takes(group.choice, card)} with "
                f"{group.cell.precision} weights, and the best choice with float32 {units.latency(lead.choice.median_ms / 1000)}."
            )
            continue
        plain = f"; dense with float32 {_takes(group.plain, card)}" if group.plain else ""
        sentences.append(
            f"With {group.cell.precision} weights {named(group.choice)} {_takes(group.choice, card)}, {ratio(group.choice)} as "
            f"fast as dense with {group.cell.precision} weights on {runtime_name(group.choice.against)}{plain}. The gates "
            "judged float32: measure the quality of rounded weights before they are served."
        )
    return sentences


def _short(group: Group, lead: Group) -> str:
    """What tells a cell from the lead: ``batches of 32``, ``2 threads``, ``prefill``."""
    parts = [group.cell.phase or "whole calls"] if group.cell.phase != lead.cell.phase else []
    if group.cell.batch_size != lead.cell.batch_size:
        parts.append(f"batches of {group.cell.batch_size}")
    if group.cell.threads != lead.cell.threads:
        parts.append(units.plural(group.cell.threads, "thread"))
    return ", ".join(parts)
