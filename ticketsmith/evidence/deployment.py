"""The best deployable choice in plain words, or that sparsity does not pay on this machine and why."""

from __future__ import annotations

from collections.abc import Sequence

from ticketsmith.evidence import words
from ticketsmith.evidence.findings import Findings
from ticketsmith.evidence.scorecard import Group, Load, Scorecard
from ticketsmith.evidence.serving import LoadTest
from ticketsmith.evidence.speed import Speed, fastest
from ticketsmith.evidence.variants import in_sentence, is_control, ordered

DAYS = 30
"""Days of a month, for what is saved in one."""

NOT_MEASURED = "Inference was not measured, so that nothing can be said of speed."
NO_RIVAL = (
    "Inference was measured without a dense runtime, so that nothing can be said of speed: measure one beside it "
    "(ticketsmith benchmark)."
)


def answer(findings: Findings) -> str:
    """One sentence: the best deployable choice with its interval, or that sparsity does not pay here."""
    card = findings.scorecard
    if card is None or card.lead is None:
        return NO_RIVAL if findings.benchmark and findings.benchmark.timings else NOT_MEASURED
    lead, dense = card.lead, card.lead.dense
    served = f"dense on {words.runtime(dense.runtime)} {_takes(dense, card)}" if dense else ""
    if lead.choice is not None:
        start = "Best choice that passes its gates"
        if not lead.judged:
            start = f"With {lead.precision} weights, whose quality the gates did not judge"
        return (
            f"{start}: {_of_network(findings, lead.choice)} on {words.runtime(lead.choice.runtime)}. "
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
    told = []
    if card.lead.choice is not None:
        told += [*_saves(card, card.lead), *_own_gain(card.lead)]
    elif card.lead.candidate is not None:
        told += _why_not(findings, card, card.lead)
    told += _other_methods(card)
    told += _elsewhere(card)
    told += _low_precision(card)
    told += [load_line(load) for load in card.loads]
    return [line for line in told if line]


def named(speed: Speed) -> str:
    """``the ticket at 83.2 % sparsity``."""
    return f"{in_sentence(speed.variant)} at {words.share(speed.sparsity)} sparsity"


def _of_network(findings: Findings, speed: Speed) -> str:
    """The same, with the share of the network where that is another."""
    whole = findings.network_sparsity(speed.variant, speed.level)
    if whole is None or not findings.size.partial:
        return named(speed)
    return f"{named(speed)} of the prunable weights ({words.share(whole)} of the network)"


def ratio(speed: Speed) -> str:
    """``5.10\u00d7 (4.90\u00d7 to 5.30\u00d7)``."""
    return f"{words.times(speed.speedup)} ({words.times(speed.low)} to {words.times(speed.high)})"


def conditions(group: Group) -> str:
    """``batch size 1, 1 thread``, with the phase and the precision where those are not the usual ones."""
    parts = [group.phase] if group.phase else []
    parts += [f"batch size {group.batch_size}", words.plural(group.threads, "thread")]
    parts += [] if group.precision == "float32" else [f"{group.precision} weights"]
    return ", ".join(parts)


def load_line(load: Load) -> str:
    """Which rate of requests dense and the ticket can serve within the target."""
    known = load.ticket or load.dense
    if known is None:
        return ""
    weights = "" if known.precision == "float32" else f"{known.precision} weights and "
    target = f"{weights}{words.percent(known.percentile)} of requests answered within {words.latency(known.target_ms / 1000)}"
    told = [
        f"{in_sentence(test.variant)} on {words.runtime(test.runtime)} {served(test)}"
        for test in (load.ticket, load.dense)
        if test is not None
    ]
    if load.ticket is None:
        told.append("nothing that passes its gates was tested")
    return f"With {target}, arriving at random: {words.listed(told)}."


def served(test: LoadTest) -> str:
    """``serves 12,000 requests a second``, with the next rate that was tried and missed."""
    missed = min((step.rate for step in test.steps if not step.kept and step.rate > test.highest_rate), default=None)
    if test.highest_rate <= 0:
        return (
            f"misses it even at {words.rate(missed)} requests a second"
            if missed is not None
            else "was tried at no rate"
        )
    beyond = f" (and misses it at {words.rate(missed)})" if missed is not None else ""
    return f"serves {words.rate(test.highest_rate)} requests a second{beyond}"


def _takes(speed: Speed, card: Scorecard) -> str:
    latency = words.latency(speed.median_ms / 1000)
    match speed.phase:
        case "decode":
            return f"takes {latency} an output token"
        case "prefill":
            return f"gives its first token after {latency}"
        case _:
            article = "an" if card.unit[:1] in "aeiou" else "a"
            one = f"{article} {card.unit}" if speed.batch_size == 1 else f"a batch of {speed.batch_size}"
            made = speed.throughput * speed.median_ms / 1000 / speed.batch_size
            if made > 1.5:  # a call of a model of sequences: a window of tokens
                return f"takes {latency} for {words.plural(round(made * speed.batch_size), card.unit)}"
            if made < 0.75:  # a picture of a model that is called again and again for it
                latency = words.latency(speed.batch_size * speed.seconds)
            return f"takes {latency} {one}"


def _rival(speed: Speed) -> str:
    return f"dense on {words.runtime(speed.against)}"


def _saves(card: Scorecard, group: Group) -> list[str]:
    """What a million cost and what a million a day save in a month; nothing without a price."""
    ticket, dense, rate = group.choice, group.dense, card.rate
    if ticket is None or dense is None or rate is None or not rate.per_hour:
        return []
    before, after = card.per_million(dense), card.per_million(dense, ticket.speedup)
    assert before is not None
    assert after is not None
    month = [DAYS * before * (1.0 - 1.0 / speedup) for speedup in (ticket.speedup, ticket.low, ticket.high)]
    saved, low, high = (words.money(amount, rate.currency) for amount in month)
    sizes = f"{words.money(after, rate.currency)} instead of {words.money(before, rate.currency)}"
    return [
        f"A million {card.unit}s cost {sizes} on {rate.machine} at {words.hourly(rate.per_hour, rate.currency)} an "
        f"hour: a million a day save {saved} a month ({low} to {high}), as far as the machine is kept busy."
    ]


def _own_gain(group: Group) -> list[str]:
    own, choice = group.own_gain, group.choice
    if own is None or choice is None:
        return []
    return [
        f"Not all of it is sparsity's doing: the dense network on {words.runtime(own.runtime)} is {ratio(own)} as fast "
        f"already; removing weights gives the other {words.times(choice.speedup / own.speedup)}."
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
            f"The nearest, {named(candidate)} on {words.runtime(candidate.runtime)}, is {ratio(candidate)} as fast.",
            "Only dense runtimes ran what passes its gates, and they multiply zeros like any other number"
            f"{_refused(findings, card)}.",
        ]
    on = words.runtime(nearest.runtime)
    told = [f"Where zeros are skipped or removed, the nearest is {named(nearest)} on {on}: {ratio(nearest)} as fast."]
    deepest = words.share(max(point.sparsity for point in passing))
    ahead = {name: even for name, even in group.break_even.items() if even.kind in ("at", "between")}
    told += [
        f"Break-even on {words.runtime(name)}: {even} sparsity; what passes its gates ends at {deepest}."
        for name, even in ahead.items()
    ]
    if not ahead:
        most = words.share(max(point.sparsity for point in own))
        told.append(f"No sparsity up to {most}, passing or not, is shown to be faster throughout on any runtime tried.")
    return told


def _refused(findings: Findings, card: Scorecard) -> str:
    refusals = findings.benchmark.refusals if findings.benchmark else ()
    own = {r.runtime: r.reason for r in refusals if r.variant == card.subject and r.level in card.deployable}
    if not own:
        return "; no runtime that skips zeros was tried"
    told = [f"{words.runtime(name)} refused: {reason.rstrip('.')}" for name, reason in own.items()]
    return f" ({'; '.join(told)})"


def _other_methods(card: Scorecard) -> list[str]:
    """Rivals of the subject that go further: their own sequence passes that far, and they are surely faster than the choice."""
    lead = card.lead
    assert lead is not None
    told = []
    for variant in ordered(row.variant for row in lead.rows):
        if variant == card.subject or is_control(variant, card.subject):
            continue
        levels = card.passing.get(variant, frozenset())
        best = fastest(row for row in lead.rows if row.variant == variant and row.level in levels)
        if best is not None and best.low > max(1.0, lead.choice.high if lead.choice else 1.0):
            told.append(f"{_begun(named(best))} passes its gates too, and is {ratio(best)} as fast as {_rival(best)}.")
    return told


def _elsewhere(card: Scorecard) -> list[str]:
    """The other cells of the same precision, in one sentence."""
    lead = card.lead
    assert lead is not None
    others = [g for g in card.groups[1:] if g.precision == lead.precision and g.candidate is not None and g.dense]
    if not others:
        return []
    pays = [f"{_short(group, lead)}: {words.times(group.choice.speedup)}" for group in others if group.choice]
    not_ = [_short(group, lead) for group in others if not group.choice]
    if not pays:
        return (
            [f"Nor does it pay in any other setting that was measured ({_joined(not_)})."]
            if lead.choice is None
            else [f"It does not pay in any other setting that was measured ({_joined(not_)})."]
        )
    start = "It is surely faster than the best dense elsewhere too" if lead.choice else "Elsewhere it does pay"
    beside = f"; not surely at {_joined(not_)}" if not_ else ""
    return [f"{start} ({'; '.join(pays)}){beside}."]


def _low_precision(card: Scorecard) -> list[str]:
    """Rounded weights: beside dense ones that are rounded alike. Nobody has judged their quality."""
    lead = card.lead
    assert lead is not None
    told = []
    for group in card.groups:
        same = (group.phase, group.batch_size, group.threads) == (lead.phase, lead.batch_size, lead.threads)
        if not same or group.precision == lead.precision or group.choice is None:
            continue
        if lead.choice is not None and group.choice.seconds >= lead.choice.seconds:
            told.append(
                f"Rounding to {group.precision} gives nothing here: {named(group.choice)} {_takes(group.choice, card)} with "
                f"{group.precision} weights, and the best choice with float32 {words.latency(lead.choice.median_ms / 1000)}."
            )
            continue
        plain = f"; dense with float32 {_takes(group.plain, card)}" if group.plain else ""
        told.append(
            f"With {group.precision} weights {named(group.choice)} {_takes(group.choice, card)}, {ratio(group.choice)} as "
            f"fast as dense with {group.precision} weights on {words.runtime(group.choice.against)}{plain}. The gates "
            "judged float32: measure the quality of rounded weights before they are served."
        )
    return told


def _begun(text: str) -> str:
    """As the beginning of a sentence."""
    return f"{text[:1].upper()}{text[1:]}"


def _short(group: Group, lead: Group) -> str:
    """What tells a cell from the lead: ``batches of 32``, ``2 threads``, ``prefill``."""
    parts = [group.phase or "whole calls"] if group.phase != lead.phase else []
    if group.batch_size != lead.batch_size:
        parts.append(f"batches of {group.batch_size}")
    if group.threads != lead.threads:
        parts.append(words.plural(group.threads, "thread"))
    return ", ".join(parts)


def _joined(names: Sequence[str]) -> str:
    return "; ".join(names)
