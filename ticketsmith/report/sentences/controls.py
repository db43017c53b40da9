"""Whether the ticket is special: the controls, or other criteria of pruning, against it."""

from __future__ import annotations

from ticketsmith import units
from ticketsmith.evidence.controls import Comparison
from ticketsmith.evidence.findings import Findings
from ticketsmith.evidence.variants import POST_RANDOM, POST_TRAINING, RANDOM_REINIT, RANDOM_TICKET, UNSTRUCTURED
from ticketsmith.report.sentences import measures
from ticketsmith.report.sentences.names import begun, in_sentence
from ticketsmith.report.sentences.verdicts import sample


def special(findings: Findings) -> str:
    """Some sentences on the controls: does the ticket beat them, and so prove anything? And what does its pattern cost?"""
    return " ".join(text for text in (_of_controls(findings), _price(findings)) if text)


def _of_controls(findings: Findings) -> str:
    comparisons = [comparison for comparison in findings.comparisons if comparison.control != UNSTRUCTURED]
    if not comparisons and findings.subject == POST_TRAINING:
        return (
            "No other criterion was tried, so that this result says nothing of whether this one is better than chance."
        )
    if not comparisons and not findings.controls:
        return "No control was trained, so that this result says nothing of whether these weights are special."
    level = _level_of_interest(findings)
    here = [comparison for comparison in comparisons if comparison.level == level]
    clauses = [_against(findings, comparison) for comparison in here]
    clauses += [_fallen(findings, control, level) for control in findings.controls if _lost(findings, control, level)]
    if level is None or not clauses:
        return "No control was trained at this sparsity, so that whether the ticket is special there is not known."
    lead = f"At {measures.sparsity(findings.size_at(findings.subject, level))},"
    return " ".join([f"{lead} {clauses[0]}.", *(f"{begun(text)}." for text in clauses[1:])])


def _price(findings: Findings) -> str:
    """What the recipe's pattern or structure costs: the ticket against the one without it; empty without such a rival."""
    level = _level_of_interest(findings)
    for comparison in findings.comparisons:
        if (comparison.control, comparison.level) == (UNSTRUCTURED, level):
            where = measures.sparsity(findings.size_at(findings.subject, comparison.level))
            return f"At {where}, the {_against(findings, comparison)}."
    return ""


def _level_of_interest(findings: Findings) -> int | None:
    """The level that the headline names; else the target; else the sparsest level that has controls."""
    if findings.sweet_spot:
        return findings.sweet_spot.level
    if findings.target:
        return findings.target[0]
    return max((comparison.level for comparison in findings.comparisons), default=None)


def _lost(findings: Findings, control: str, level: int | None) -> list[int]:
    """The seeds of a control that diverged at a level."""
    return sorted({run.seed for run in findings.diverged if (run.variant, run.level) == (control, level)})


def _fallen(findings: Findings, control: str, level: int | None) -> str:
    seeds = units.seeds(_lost(findings, control, level))
    return f"{in_sentence(control)} diverged for {seeds}, which says nothing of its quality"


def _against(findings: Findings, comparison: Comparison) -> str:
    metric = findings.metrics[comparison.metric]
    name = _yardstick(comparison.control)
    gain = comparison.advantage
    if gain.low is None or gain.high is None:
        verb = "worse" if gain.mean >= 0 else "better"
        amount = measures.difference(metric, abs(gain.mean))
        return f"{name} is {amount} {verb} by one replicate (no confidence)"
    level = units.percent(findings.policy.confidence)
    rival = "the recipe's criterion" if findings.subject == POST_TRAINING else in_sentence(findings.subject)
    if not comparison.significant:
        span = f"{measures.span(metric, gain.low, gain.high)}{_floor(comparison)}"
        meaning = _meaning(comparison, None)
        whence = f"{level} interval of the difference{_about(comparison)}"
        return f"{name} cannot be told apart from {rival} ({whence}: {span}){meaning}"
    nearest, farthest = sorted((abs(gain.low), abs(gain.high)))
    whence = f"{level} interval{_about(comparison)}{':' if comparison.examples else ''}"
    span = f"{whence} {measures.span(metric, nearest, farthest)}{_floor(comparison)}"
    verb = "loses" if gain.mean > 0 else "wins"
    amount = measures.difference(metric, abs(gain.mean))
    return f"{name} {verb} {amount} against {rival} ({span}){_meaning(comparison, gain.mean > 0)}"


def _floor(comparison: Comparison) -> str:
    """That the seeds' own spread was not believed."""
    return "" if comparison.floor is None else f", the spread taken as {measures.resolution(comparison.floor)}"


def _about(comparison: Comparison) -> str:
    """What the interval rests on, where that is no seeds: `` over 360 test examples``."""
    return f" over {sample(comparison.split, comparison.examples)}" if comparison.examples else ""


def _meaning(comparison: Comparison, ticket_better: bool | None) -> str:
    """What it means that the ticket is better (True), worse (False), or that neither could be shown (None)."""
    if comparison.examples:
        return ", of these very networks, and not of other seeds"
    control = comparison.control
    if control == UNSTRUCTURED:
        prices = {False: ", which is what the pattern costs", None: ", so that no price of the pattern is shown"}
        return prices.get(ticket_better, "")
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
