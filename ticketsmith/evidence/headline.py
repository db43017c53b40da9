"""The answer in two sentences: how far pruning goes before quality drops, and whether the ticket is special."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from ticketsmith.evidence import words
from ticketsmith.evidence.controls import Comparison
from ticketsmith.evidence.findings import Findings
from ticketsmith.evidence.gates import TOLERANCE, level_status
from ticketsmith.evidence.resolution import resolution
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
    if not by_level(findings.test, findings.subject):
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
    told = [_against(findings, comparison) for comparison in here]
    told += [_fallen(findings, control, level) for control in findings.controls if _lost(findings, control, level)]
    if level is None or not told:
        return "No control was trained at this sparsity, so that whether the ticket is special there is not known."
    lead = f"At {findings.size_at(findings.subject, level).sparse},"
    return " ".join([f"{lead} {told[0]}.", *(f"{text[0].upper()}{text[1:]}." for text in told[1:])])


def basis(findings: Findings, verdicts: Sequence[Verdict]) -> str:
    """What a claim rests on: ``95 % confidence, 5 seeds`` or ``1 seed: a point estimate, no confidence``."""
    fewest = min(verdicts, key=lambda verdict: verdict.replicates, default=None)
    replicates = fewest.replicates if fewest else 0
    seeds = words.replicates(fewest.seeds if fewest else 0, replicates)
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
    """How far it goes, and what is there to show that it goes no farther."""
    removed = findings.size.removed
    grounds = basis(findings, spot.verdicts)
    without = f"{removed} can go without {condition(findings, dropping=True)} ({grounds})"
    end = spot.end
    if end is None and spot.missing is not None:
        return f"At least {without}; no run of level {spot.missing}, the next, is there."
    if end is None:
        return f"At least {without}; the sparsest level that was trained still passes."
    verdicts = findings.verdicts(spot.variant, end.level)
    failed = [verdict for verdict in verdicts if verdict.status is Status.FAIL]
    if failed and all(map(_by_quality, failed)):
        return f"Up to {removed} can go before {condition(findings)} ({grounds})."
    if end.diverged:
        ended = f"training diverged ({words.seeds(end.diverged)})"
    elif failed:  # its metric is no number
        ended = next(verdict.reason for verdict in failed if not _by_quality(verdict))
    else:
        ended = words.listed(_lacking(verdicts, "planned runs are missing")) or "the seeds cannot tell"
    return f"Up to {without}; at the next level, {findings.size_at(spot.variant, end.level).share}, {ended}."


def _lacking(verdicts: Sequence[Verdict], missing: str) -> list[str]:
    """What one level lacks to be judged, each in words: first planned runs, then what cannot be compared."""
    seeds = sorted({seed for verdict in verdicts for seed in verdict.missing})
    gaps = dict.fromkeys(gap for verdict in verdicts for gap in verdict.gaps)
    return [*([f"{missing} ({words.seeds(seeds)})"] if seeds else []), *gaps]


def _nothing_passes(findings: Findings) -> str:
    """Why not even the mildest level passes, which ended the search."""
    levels = by_level(findings.test, findings.subject)
    order = sorted(levels, key=lambda level: (levels[level][0].sparsity, level))
    first = levels[order[0]]
    status = level_status(first)
    removed = findings.size_at(findings.subject, order[0]).removed
    if findings.search.missing is not None:
        return f"Inconclusive: no run of level {findings.search.missing}, with which the search begins, is there."
    compared = any(verdict.seeds or verdict.gaps for verdicts in levels.values() for verdict in verdicts)
    if status is Status.INCONCLUSIVE and not compared and not findings.diverged:
        return f"Inconclusive: there is no dense baseline of the same seeds to tell whether {condition(findings)}."
    if status is Status.INCONCLUSIVE:
        return _undecided(findings, [levels[level] for level in order])
    failed = [verdict for verdict in first if verdict.status is Status.FAIL]
    if not all(map(_by_quality, failed)):  # it diverged, or its metric is no number
        reason = next(verdict.reason for verdict in failed if not _by_quality(verdict))
        return f"No tested sparsity passes its gate: at the mildest level, {removed}, {reason}."
    return (
        f"No tested sparsity is safe: already at the mildest level, {removed}, {condition(findings)} "
        f"({basis(findings, first)})."
    )


def _undecided(findings: Findings, levels: Sequence[Sequence[Verdict]]) -> str:
    """The mildest level cannot be told; by the point estimate, how far the sequence would go."""
    first = levels[0]
    lacking = _lacking(first, "planned runs are missing at the mildest level")
    if lacking:
        return f"Inconclusive: {words.listed(lacking)}, so that nothing is decided."
    fewest = min(first, key=lambda verdict: verdict.replicates)
    if fewest.seeds > fewest.replicates == 1:
        why = f"the networks of {fewest.seeds} seeds are bit for bit equal, one replicate, which is too few"
    else:
        why = f"{words.plural(fewest.replicates, 'seed')} {'is' if fewest.replicates == 1 else 'are'} too few"
    passing = list(takewhile(lambda verdicts: all(map(_point_passes, verdicts)), levels))
    hint = ""
    if passing:
        removed = findings.size_at(findings.subject, passing[-1][0].level).removed
        hint = f"; by the point estimate {removed} can go (no confidence)"
    return f"Inconclusive: {why} to show at which sparsity {condition(findings)}{hint}."


def _point_passes(verdict: Verdict) -> bool:
    return verdict.estimate is not None and verdict.status is not Status.FAIL and _within(verdict)


def _by_quality(verdict: Verdict) -> bool:
    """Whether a level that fails does so for what was measured of every seed, and not for want of a number."""
    return not verdict.diverged and not verdict.undefined and not _within(verdict)


def _within(verdict: Verdict) -> bool:
    """Whether no measured value speaks against the level; a run that diverged has none."""
    return verdict.estimate is None or verdict.estimate <= verdict.gate.margin + TOLERANCE


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
    seeds = words.seeds(_lost(findings, control, level))
    return f"{in_sentence(control)} diverged for {seeds}, which says nothing of its quality"


def _against(findings: Findings, comparison: Comparison) -> str:
    metric = findings.metrics[comparison.metric]
    name = _yardstick(comparison.control)
    gain = comparison.advantage
    if gain.low is None or gain.high is None:
        verb = "worse" if gain.mean >= 0 else "better"
        amount = words.difference(metric, abs(gain.mean))
        return f"{name} is {amount} {verb} by one replicate (no confidence)"
    level = words.percent(findings.policy.confidence)
    rival = "the recipe's criterion" if findings.subject == POST_TRAINING else in_sentence(findings.subject)
    if not comparison.significant:
        span = f"{words.span(metric, gain.low, gain.high)}{_floor(findings, comparison)}"
        meaning = _meaning(comparison.control, None)
        return f"{name} cannot be told apart from {rival} ({level} interval of the difference: {span}){meaning}"
    nearest, farthest = sorted((abs(gain.low), abs(gain.high)))
    span = f"{level} interval {words.span(metric, nearest, farthest)}{_floor(findings, comparison)}"
    verb = "loses" if gain.mean > 0 else "wins"
    amount = words.difference(metric, abs(gain.mean))
    return f"{name} {verb} {amount} against {rival} ({span}){_meaning(comparison.control, gain.mean > 0)}"


def _floor(findings: Findings, comparison: Comparison) -> str:
    """That the seeds' own spread was not believed."""
    if not comparison.floored:
        return ""
    finest = resolution(findings.results, findings.metrics[comparison.metric], comparison.split)
    return f", the spread taken as {finest}"


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
