"""The answer in two sentences: how far pruning goes before quality drops, and whether the ticket is special."""

from __future__ import annotations

from ticketsmith.evidence import words
from ticketsmith.evidence.controls import Comparison
from ticketsmith.evidence.findings import Findings
from ticketsmith.evidence.gates import TOLERANCE, level_status
from ticketsmith.evidence.sweet_spot import by_level
from ticketsmith.evidence.variants import (
    DENSE,
    POST_RANDOM,
    POST_TRAINING,
    RANDOM_REINIT,
    RANDOM_TICKET,
    in_sentence,
)
from ticketsmith.evidence.verdicts import Status, SweetSpot, Verdict


def headline(findings: Findings) -> str:
    """One honest sentence that answers "at what sparsity does quality actually drop?" with numbers."""
    if not findings.policy.gates:
        return "No quality gate was set, so that nothing was judged: the curves below are measurements only."
    dense = [run for run in findings.results if run.variant == DENSE]
    if dense and all(run.diverged for run in dense):
        return (
            "The dense baseline diverged (its loss is not a finite number), so that there is nothing to compare with."
        )
    if not by_level(findings.validation, findings.subject):
        return "Only the dense baseline has been trained so far: there is nothing to compare it with yet."
    spot = findings.sweet_spot
    return _found(findings, spot) if spot else _nothing_passes(findings)


def special(findings: Findings) -> str:
    """One or two sentences on the controls: does the ticket beat them, and so prove anything?"""
    if not findings.comparisons and findings.subject == POST_TRAINING:
        return (
            "No other criterion was tried, so that this result says nothing of whether this one is better than chance."
        )
    if not findings.comparisons and not findings.controls:
        return "No control was trained, so that this result says nothing of whether these weights are special."
    level = _level_of_interest(findings)
    here = [comparison for comparison in findings.comparisons if comparison.level == level]
    if not here:
        return "No control was trained at this sparsity, so that whether the ticket is special there is not known."
    lead = f"At {words.share(here[0].sparsity)} sparsity"
    told = [_against(findings, comparison) for comparison in here]
    return " ".join([f"{lead} {told[0]}.", *(f"{text[0].upper()}{text[1:]}." for text in told[1:])])


def basis(findings: Findings, replicates: int) -> str:
    """What a claim rests on: ``95 % confidence, 5 seeds`` or ``1 seed: a point estimate, no confidence``."""
    seeds = words.plural(replicates, "seed")
    if findings.policy.method == "point" or replicates < 2:
        return f"{seeds}: a point estimate, no confidence"
    return f"{words.percent(findings.policy.confidence)} confidence, {seeds}"


def condition(findings: Findings, dropping: bool = False, split: str = "test ") -> str:
    """The gates in words: ``test accuracy drops by more than 2 points or test loss rises by more than 5 %``."""
    parts = []
    for gate in findings.policy.gates:
        metric = findings.metrics[gate.metric]
        verb = ("dropping" if dropping else "drops") if metric.higher_is_better else ("rising" if dropping else "rises")
        name = metric.name.replace("_", " ")
        parts.append(f"{split}{name} {verb} by more than {words.margin(gate, metric)}")
    return words.listed(parts, "or")


def _found(findings: Findings, spot: SweetSpot) -> str:
    sparsity = words.share(spot.sparsity)
    replicates = min((verdict.replicates for verdict in spot.verdicts), default=0)
    grounds = basis(findings, replicates)
    if spot.status is not Status.PASS:
        return _unconfirmed(findings, spot, replicates)
    if not spot.cliff_reached:
        return (
            f"At least {sparsity} of the weights can go without {condition(findings, dropping=True)} ({grounds}); "
            "the sparsest level that was trained still passes."
        )
    scope = "" if spot.contiguous or findings.policy.method == "point" else ", at this level alone"
    return f"Up to {sparsity} of the weights can go before {condition(findings)} ({grounds}{scope})."


def _unconfirmed(findings: Findings, spot: SweetSpot, replicates: int) -> str:
    """Leads with what both splits support, if there is such a level, then says what test did not confirm."""
    chosen = words.share(spot.sparsity)
    if spot.status is Status.FAIL:
        doubt = f"{chosen} passed on the validation split, but not on the test split"
    else:
        doubt = f"{chosen} passed on the validation split, but the test split cannot tell yet"
    if spot.confirmed is None:
        seeds = words.plural(replicates, "seed")
        if spot.status is Status.FAIL:
            return f"Not confirmed: {doubt}, where {condition(findings, split='')} ({seeds})."
        return f"Not confirmed: {doubt} whether {condition(findings, split='')} ({seeds})."
    grounds = basis(findings, replicates)
    safe = f"Up to {words.share(spot.confirmed[1])} of the weights can go before {condition(findings)}"
    return f"{safe} ({grounds}); {doubt}."


def _nothing_passes(findings: Findings) -> str:
    levels = by_level(findings.validation, findings.subject)
    shallowest = min(levels.values(), key=lambda verdicts: verdicts[0].sparsity)
    replicates = min(verdict.replicates for verdict in shallowest)
    if not any(verdict.replicates for verdicts in levels.values() for verdict in verdicts) and not findings.diverged:
        return f"Inconclusive: there is no dense baseline of the same seeds to tell whether {condition(findings)}."
    if any(level_status(verdicts) is Status.INCONCLUSIVE for verdicts in levels.values()):
        seeds, verb = words.plural(replicates, "seed"), "is" if replicates == 1 else "are"
        estimates = [verdicts[0].sparsity for verdicts in levels.values() if all(map(_point_passes, verdicts))]
        hint = f"; by the point estimate {words.share(max(estimates))} can go (no confidence)" if estimates else ""
        return f"Inconclusive: {seeds} {verb} too few to show at which sparsity {condition(findings)}{hint}."
    if any(
        _within(verdict) and verdict.status is Status.FAIL for verdict in shallowest
    ):  # not for its quality: diverged
        reason = next(verdict.reason for verdict in shallowest if verdict.status is Status.FAIL)
        return f"No tested sparsity passes its gate: the mildest, {words.share(shallowest[0].sparsity)}, {reason}."
    return (
        f"No tested sparsity is safe: already at {words.share(shallowest[0].sparsity)}, the mildest level, "
        f"{condition(findings, split='validation ')} ({basis(findings, replicates)})."
    )


def _point_passes(verdict: Verdict) -> bool:
    return verdict.estimate is not None and verdict.status is not Status.FAIL and _within(verdict)


def _within(verdict: Verdict) -> bool:
    """Whether no measured value speaks against the level; a run that diverged has none."""
    return verdict.estimate is None or verdict.estimate <= verdict.gate.margin + TOLERANCE


def _level_of_interest(findings: Findings) -> int | None:
    """The level that the headline names; else the target; else the sparsest level that has controls."""
    if findings.sweet_spot:
        return findings.sweet_spot.answer[0]
    if findings.target:
        return findings.target[0]
    return max((comparison.level for comparison in findings.comparisons), default=None)


def _against(findings: Findings, comparison: Comparison) -> str:
    metric = findings.metrics[comparison.metric]
    name = _yardstick(comparison.control)
    gain = comparison.advantage
    if gain.low is None or gain.high is None:
        verb = "worse" if gain.mean >= 0 else "better"
        amount = words.difference(metric, abs(gain.mean))
        return f"{name} is {amount} {verb} in the one seed that was trained (no confidence)"
    level = words.percent(findings.policy.confidence)
    rival = "the recipe's criterion" if findings.subject == POST_TRAINING else in_sentence(findings.subject)
    if not comparison.significant:
        span = words.span(metric, gain.low, gain.high)
        meaning = _meaning(comparison.control, None)
        return f"{name} cannot be told apart from {rival} ({level} interval of the difference: {span}){meaning}"
    nearest, farthest = sorted((abs(gain.low), abs(gain.high)))
    span = f"{level} interval {words.span(metric, nearest, farthest)}"
    verb = "loses" if gain.mean > 0 else "wins"
    amount = words.difference(metric, abs(gain.mean))
    return f"{name} {verb} {amount} against {rival} ({span}){_meaning(comparison.control, gain.mean > 0)}"


def _meaning(control: str, ticket_better: bool | None) -> str:
    """What it means that the ticket is better (True), worse (False), or that neither could be shown (None)."""
    if ticket_better is False:
        criterion = control.startswith("post_")
        return (
            ", so that the recipe's criterion is not the best" if criterion else ", so that the ticket is not special"
        )
    if control == POST_RANDOM:
        if ticket_better:
            return ", so that it matters which weights are removed, not only how many"
        return ", so that nothing here shows that it matters which weights are removed"
    if control == RANDOM_REINIT:
        if ticket_better:
            return ", so that the initial weights matter, not only the sparsity pattern"
        return ", so that nothing here shows that the initial weights matter beyond the sparsity pattern"
    if control == RANDOM_TICKET:
        if ticket_better:
            return ", so that it matters which weights are kept, not only how many in each layer"
        return ", so that nothing here shows that it matters which weights of a layer are kept"
    return ""


def _yardstick(variant: str) -> str:
    """``random re-initialisation``; ``removing weights by magnitude``."""
    if not variant.startswith("post_"):
        return in_sentence(variant)
    how = "at random" if variant == POST_RANDOM else f"by {variant.removeprefix('post_')}"
    return f"removing weights {how}"
