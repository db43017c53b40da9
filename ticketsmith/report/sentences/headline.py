"""The answer in a sentence: how far pruning goes before quality drops."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from ticketsmith import units
from ticketsmith.evidence.findings import Findings
from ticketsmith.evidence.variants import DENSE
from ticketsmith.evidence.verdicts import Status, SweetSpot, Verdict, by_level, level_status
from ticketsmith.report.sentences import looks, measures
from ticketsmith.report.sentences.names import in_sentence
from ticketsmith.report.sentences.verdicts import gaps, reason, sample


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
    return _passing(findings, spot) if spot else _nothing_passes(findings)


def basis(findings: Findings, verdicts: Sequence[Verdict]) -> str:
    """What a claim rests on: ``95 % confidence, look 2 of 3, mean of 5 seeds``, ``95 % confidence over test examples, one
    network``, or ``1 seed: a point estimate, no confidence``."""
    fewest = min(verdicts, key=lambda verdict: verdict.replicates, default=None)
    replicates = fewest.replicates if fewest else 0
    seeds = units.replicates(fewest.seeds if fewest else 0, replicates)
    if verdicts and all(verdict.examples for verdict in verdicts):
        return f"{units.percent(findings.policy.confidence)} confidence over test examples, one network"
    if findings.policy.method == "point" or replicates < 2:
        return f"{seeds}: a point estimate, no confidence"
    return f"{looks.confidence(findings, verdicts)}, mean of {seeds}"


def _worst(findings: Findings, verdicts: Sequence[Verdict]) -> str:
    """The seed that is the worst against its margin: a mean says nothing of those that fail now and then."""
    known = [
        (verdict.worst, verdict)
        for verdict in verdicts
        if verdict.worst is not None and verdict.beyond[1] > 1 and not verdict.examples
    ]
    if not known or findings.policy.method == "point":
        return ""
    amount, verdict = max(known, key=lambda one: one[0] - one[1].gate.margin)
    where = f" in {verdict.gate.metric.replace('_', ' ')}" if len(verdicts) > 1 else ""
    return f", the worst {measures.worse(verdict.gate, findings.metrics[verdict.gate.metric], amount)}{where}"


def condition(findings: Findings, dropping: bool = False, split: str = "test ") -> str:
    """The gates in words: ``test accuracy drops by more than 2 points or test loss rises by more than 5 %``."""
    parts = []
    for gate in findings.policy.gates:
        metric = findings.metrics[gate.metric]
        verb = ("dropping" if dropping else "drops") if metric.higher_is_better else ("rising" if dropping else "rises")
        name = metric.name.replace("_", " ")
        parts.append(f"{split}{name} {verb} by more than {measures.margin(gate, metric)}")
    return units.listed(parts, "or")


def _passing(findings: Findings, spot: SweetSpot) -> str:
    """How far it goes, and what is there to show that it goes no farther."""
    removed = units.removed(findings.size)
    grounds = f"{basis(findings, spot.verdicts)}{_worst(findings, spot.verdicts)}"
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
        ended = f"training diverged ({units.seeds(end.diverged)})"
    elif failed:  # its metric is no number
        ended = _first_reason(findings, failed)
    else:
        ended = units.listed(_lacking(verdicts, "planned runs are missing")) or _who_cannot_tell(findings)
    return f"Up to {without}; at the next level, {measures.removed_share(findings.size_at(spot.variant, end.level))}, {ended}."


def _who_cannot_tell(findings: Findings) -> str:
    return f"the {'test examples' if findings.policy.method == 'examples' else 'seeds'} cannot tell"


def _lacking(verdicts: Sequence[Verdict], missing: str) -> list[str]:
    """What one level lacks to be judged, each in words: first planned runs, then what cannot be compared."""
    seeds = sorted({seed for verdict in verdicts for seed in verdict.missing})
    clauses = dict.fromkeys(clause for verdict in verdicts for clause in gaps(verdict))
    return [*([f"{missing} ({units.seeds(seeds)})"] if seeds else []), *clauses]


def _first_reason(findings: Findings, failed: Sequence[Verdict]) -> str:
    """Why the first gate failed that failed for want of a number."""
    verdict = next(verdict for verdict in failed if not _by_quality(verdict))
    return reason(verdict, findings.metrics[verdict.gate.metric], findings.policy)


def _nothing_passes(findings: Findings) -> str:
    """Why not even the mildest level passes, which ended the search."""
    levels = by_level(findings.test, findings.subject)
    order = sorted(levels, key=lambda level: (levels[level][0].sparsity, level))
    first = levels[order[0]]
    status = level_status(first)
    removed = units.removed(findings.size_at(findings.subject, order[0]))
    if findings.search.missing is not None:
        return f"Inconclusive: no run of level {findings.search.missing}, with which the search begins, is there."
    compared = any(verdict.seeds or verdict.gaps for verdicts in levels.values() for verdict in verdicts)
    if status is Status.INCONCLUSIVE and not compared and not findings.diverged:
        return f"Inconclusive: there is no dense baseline of the same seeds to tell whether {condition(findings)}."
    if status is Status.INCONCLUSIVE:
        return _undecided(findings, [levels[level] for level in order])
    failed = [verdict for verdict in first if verdict.status is Status.FAIL]
    if not all(map(_by_quality, failed)):  # it diverged, or its metric is no number
        return (
            f"No tested sparsity passes its gate: at the mildest level, {removed}, {_first_reason(findings, failed)}."
        )
    others = _controls_that_pass(findings)
    what = f"sparsity of {in_sentence(findings.subject)}" if others else "sparsity"
    return (
        f"No tested {what} is safe: already at the mildest level, {removed}, {condition(findings)} "
        f"({basis(findings, first)}){others}."
    )


def _controls_that_pass(findings: Findings) -> str:
    """That a control is as good as dense where the method is not: how far each passes, in the order of its tests."""
    clauses = []
    for control in findings.controls:
        levels = by_level(findings.test, control)
        passing = list(takewhile(lambda level: level_status(levels[level]) is Status.PASS, sorted(levels)))  # noqa: B023
        if passing:
            share = measures.removed_share(findings.size_at(control, passing[-1]))
            clauses.append(f"{in_sentence(control)} passes up to {share}")
    return f"; but {units.listed(clauses)}" if clauses else ""


def _undecided(findings: Findings, levels: Sequence[Sequence[Verdict]]) -> str:
    """The mildest level cannot be told; by the point estimate, how far the sequence would go."""
    first = levels[0]
    lacking = _lacking(first, "planned runs are missing at the mildest level")
    if lacking:
        return f"Inconclusive: {units.listed(lacking)}, so that nothing is decided."
    fewest = min(first, key=lambda verdict: verdict.replicates)
    if fewest.examples:
        why = f"{sample(fewest.split, fewest.examples)} are too few"
    elif fewest.seeds > fewest.replicates == 1:
        why = f"the networks of {fewest.seeds} seeds are bit for bit equal, one replicate, which is too few"
    else:
        why = f"{units.plural(fewest.replicates, 'seed')} {'is' if fewest.replicates == 1 else 'are'} too few"
    if stage := looks.basis(fewest, findings.policy) if fewest.declared else "":
        why = f"at {stage.partition(',')[0]}, {why}"
    passing = list(takewhile(lambda verdicts: all(map(_point_passes, verdicts)), levels))
    hint = ""
    if passing:
        removed = units.removed(findings.size_at(findings.subject, passing[-1][0].level))
        hint = f"; by the point estimate {removed} can go (no confidence)"
    return f"Inconclusive: {why} to show at which sparsity {condition(findings)}{hint}."


def _point_passes(verdict: Verdict) -> bool:
    return verdict.estimate is not None and verdict.status is not Status.FAIL and verdict.within


def _by_quality(verdict: Verdict) -> bool:
    """Whether a level that fails does so for what was measured of every seed, and not for want of a number."""
    return not verdict.diverged and not verdict.undefined and not verdict.within
