"""Prune, quantise, both or neither, in plain words."""

from __future__ import annotations

from ticketsmith import units
from ticketsmith.evidence.choice import Candidate, Choice, Setting, Time
from ticketsmith.evidence.findings import Findings
from ticketsmith.evidence.interaction import Square
from ticketsmith.evidence.rounds import Ratio
from ticketsmith.evidence.variants import DENSE
from ticketsmith.report.sentences import measures
from ticketsmith.report.sentences.names import in_sentence, runtime_name

_VERDICT = {
    "neither": "Neither prune nor quantise",
    "quantise": "Quantise, do not prune",
    "prune": "Prune, do not quantise",
    "both": "Prune and quantise",
}
_OPEN = {
    "neither": "Do not quantise; whether to prune is open",
    "quantise": "Quantise; whether to prune is open",
}
"""The same where a sparse candidate would be faster, and nobody knows yet whether it passes."""


def verdict(findings: Findings, choice: Choice) -> str:
    """One sentence: which of the four, and the numbers that say so."""
    lead, best = choice.lead, choice.lead.choice
    if best is None:
        if not findings.policy.gates:
            return "No quality gate was set, so that nobody can say whether to prune or to quantise."
        return (
            f"Nothing to deploy yet: of {units.plural(len(choice.candidates), 'candidate')}, none that was timed is shown to "
            "pass its gates as it is served."
        )
    rival, kind = lead.rival, best.candidate.kind
    start = f"{_word(lead, best)}: {named(best.candidate)} takes {took(best)} a call"
    end = f" ({setting(lead)})."
    if kind in ("prune", "both"):
        if rival is None:
            return f"{start}; no dense candidate passes its gates{end}"
        return (
            f"{start}, {ratio(lead.ratio(rival, best))} as fast as the fastest dense candidate of any precision that passes its "
            f"gates, {named(rival.candidate)}{end}"
        )
    plain = lead.best.get("neither")
    if kind == "quantise" and plain is not None:
        start += f", {ratio(lead.ratio(plain, best))} as fast as {named(plain.candidate)}"
    return f"{start}; {_no_sparse(lead, best)}{end}"


def reasons(choice: Choice) -> list[str]:
    """What else to know of the verdict, a sentence each."""
    lead, sentences = choice.lead, []
    best, rival = lead.choice, lead.rival
    if best is not None and best.candidate.variant != DENSE and rival is not None:
        within = lead.within(best)
        if within is not None and within is not rival:
            sentences.append(
                f"Within {best.candidate.precision} alone it is {ratio(lead.ratio(within, best))} as fast as dense: "
                f"{named(within.candidate)}."
            )
    others = [f"{setting(one)}: {_short(one)}" for one in choice.settings[1:] if one.choice is not None]
    if others:
        sentences.append(f"In other settings: {'; '.join(others)}.")
    lost = [one for one in choice.candidates if one.status == "FAIL"]
    if lost:
        names = units.listed(list(dict.fromkeys(named(one) for one in lost))[:3])
        more = f" and {len(lost) - 3} more" if len(lost) > 3 else ""
        sentences.append(f"Lost their gates as they are served: {names}{more}.")
    if choice.lacks:
        count, first = units.plural(len(choice.lacks), "candidate"), choice.lacks[0]
        sentences.append(f"{count} could not be measured: {first.form} of {first.variant}: {first.reason}")
    return sentences


def interaction(choice: Choice, square: Square) -> str:
    """Do the losses add, do they multiply, and the speed-ups?"""
    metric, excess = choice.metric, square.excess
    low = named(square.corners["both"])
    over = "examples" if square.examples else units.plural(excess.n, "replicate")
    amount = measures.difference(metric, abs(excess.mean))
    what = f"{amount} {'more' if excess.mean >= 0 else 'less'} than the sum of the two losses"
    if excess.low is None or excess.high is None:
        return f"{low}: together they lose {what}; one replicate gives no interval."
    span = measures.span(metric, excess.low, excess.high)
    add = "the losses may simply add" if square.adds else "the losses do not simply add"
    text = f"{low}: together they lose {what} ({span}, over {over}): {add}"
    if square.ratio is not None and square.ratio.low is not None and square.ratio.high is not None:
        held = "may multiply" if square.ratio.low <= 1 <= square.ratio.high else "does not multiply"
        text += (
            f"; what is left {held} ({_four(square.ratio.mean)} of the product, {_four(square.ratio.low)} to "
            f"{_four(square.ratio.high)})"
        )
    if square.speed is not None:
        text += f"; the speed-up is {ratio(square.speed)} the product of the two"
    return f"{text[:1].upper()}{text[1:]}."


def paid(findings: Findings, choice: Choice) -> str:
    """When pruning has paid for itself against the fastest dense candidate, or that it does not; empty without a verdict."""
    best = choice.lead.choice
    if best is None:
        return "No candidate passes its gates as it is served, so that nothing could earn it back yet."
    if best.candidate.variant == DENSE:
        does = (
            "Whether pruning pays for itself is open"
            if choice.lead.undecided
            else "Pruning does not pay for itself here"
        )
        return f"{does}: {_no_sparse(choice.lead, best)} ({named(best.candidate)})."
    own = next((one for one in findings.payoffs if one.time is best), None)
    if own is None or own.units is None:
        return "After how many units that pays for itself cannot be said: what finding it cost is not known."
    low, middle, high = (units.count(max(0.0, bound)) for bound in (own.units.low, own.units.middle, own.units.high))
    return (
        f"Against {named(own.base.candidate)}, {named(best.candidate)} has paid for itself after {middle} {choice.unit}s "
        f"({low} to {high}; {setting(choice.lead)})."
    )


def named(candidate: Candidate) -> str:
    """``dense in int8 (dynamic) on ONNX Runtime``, ``the ticket at 90.1 % sparsity in float32 on TicketSmith sparse``."""
    network = in_sentence(candidate.variant)
    if candidate.variant != DENSE:
        network += f" at {units.share(candidate.sparsity)} sparsity"
    return f"{network} in {way(candidate)}"


def way(candidate: Candidate) -> str:
    """``int8 (static-minmax) on ONNX Runtime``."""
    method = candidate.form.removeprefix(candidate.runtime).removeprefix(f"-{candidate.precision}").strip("-")
    how = f" ({method})" if method else ""
    return f"{candidate.precision}{how} on {runtime_name(candidate.runtime)}"


def ratio(value: Ratio) -> str:
    """``2.10\u00d7 (2.00\u00d7 to 2.20\u00d7)``."""
    return f"{units.times(value.median)} ({units.times(value.low)} to {units.times(value.high)})"


def setting(one: Setting) -> str:
    """``batch size 1, 1 thread``, with the phase before it."""
    phase = f"{one.phase}, " if one.phase else ""
    return f"{phase}batch size {one.batch_size}, {units.plural(one.threads, 'thread')}"


def took(time: Time) -> str:
    """The median of its calls."""
    return units.latency(time.median_ms / 1000)


def _no_sparse(lead: Setting, best: Time) -> str:
    """What speaks against pruning: the fastest sparse candidate that passes, or that there is none. Or what may speak for it."""
    if (time := lead.undecided) is not None:
        few, all_of_them = len(time.candidate.judgements), len(best.candidate.judgements)
        judged = f", judged on {few} of {units.plural(all_of_them, 'replicate')}" if few < all_of_them else ""
        return f"{named(time.candidate)} is {ratio(lead.ratio(best, time))} as fast, and its gates are inconclusive{judged}"
    own = (time for time in lead.passing if time.candidate.variant != DENSE)
    sparse = next((time for time in own if not time.candidate.in_vain), None)
    if sparse is None:
        return "no sparse candidate that skips zeros and was timed passes its gates"
    against = lead.ratio(best, sparse)
    doubt = "" if against.high < 1.0 else ", which is not surely faster"
    return f"the fastest sparse candidate that passes, {named(sparse.candidate)}, is {ratio(against)} as fast{doubt}"


def _word(one: Setting, best: Time) -> str:
    return (_OPEN if one.undecided else _VERDICT)[best.candidate.kind]


def _short(one: Setting) -> str:
    best, rival = one.choice, one.rival
    assert best is not None
    word = _word(one, best).lower()
    if rival is None or best is rival:
        return f"{word} ({way(best.candidate)})"
    return f"{word} ({units.times(one.ratio(rival, best).median)} as fast as {named(rival.candidate)})"


def _four(value: float) -> str:
    return f"{value:.4f}"
