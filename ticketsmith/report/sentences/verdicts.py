"""Why a gate says what it says, and what a reader should know of the sweet spot."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

from ticketsmith import units
from ticketsmith.evidence.examples import Difference
from ticketsmith.evidence.findings import Findings
from ticketsmith.evidence.results import Metric, Split
from ticketsmith.evidence.verdicts import GapCause, GatePolicy, Status, SweetSpot, Verdict, level_status
from ticketsmith.report.sentences import looks, measures

_GAPS = {
    GapCause.TICKET_DIVERGED: "the ticket of {seeds}, which it needs, diverged",
    GapCause.DENSE_DIVERGED: "the dense {runs} of {seeds} diverged",
    GapCause.DENSE_UNMEASURED: "dense {metric} was not measured for {seeds}",
    GapCause.DENSE_UNDEFINED: "dense {metric} is not a finite number for {seeds}",
    GapCause.DENSE_ZERO: "a relative change from a dense value of 0 is not defined ({seeds})",
    GapCause.UNMEASURED: "{metric} was not measured for {seeds}",
    GapCause.NO_OUTCOMES: "no outcomes of single examples in {metric} were kept for {seeds} or dense",
}


def reason(verdict: Verdict, metric: Metric, policy: GatePolicy) -> str:
    """All that a verdict rests on: the worsening against the margin, or who diverged, then what is missing."""
    name = verdict.gate.metric
    if verdict.divergences or verdict.undefined:
        lost = [f"{name} is not a finite number for {units.seeds(verdict.undefined)}"] if verdict.undefined else []
        parts = [*_diverged(verdict), *lost]
    elif verdict.estimate is None:
        parts = ["nothing to compare"]
    elif verdict.examples is not None:
        parts = [_by_examples(verdict, verdict.examples, metric, policy.confidence)]
    elif policy.method == "point":
        parts = [_point(verdict, metric)]
    elif policy.method == "examples":
        gate = verdict.gate
        parts = [f"{measures.worse(gate, metric, verdict.estimate)}, margin {measures.margin(gate, metric)}"]
    else:
        parts = [_non_inferiority(verdict, metric)]
        if stage := looks.basis(verdict, policy):
            parts.append(stage)
    parts += _repeated(verdict)
    if verdict.absent:
        parts.append(f"{units.plural(len(verdict.absent), 'replicate')} missing ({units.seeds(verdict.absent)})")
    if verdict.alone:
        parts.append(f"no dense run to compare with for {units.seeds(verdict.alone)}")
    return "; ".join([*parts, *gaps(verdict)])


def gaps(verdict: Verdict) -> list[str]:
    """What cannot be compared, beside runs that are missing, a clause each."""
    return [
        _GAPS[gap.cause].format(
            seeds=units.seeds(gap.seeds), runs="run" if len(gap.seeds) == 1 else "runs", metric=verdict.gate.metric
        )
        for gap in verdict.gaps
    ]


def reservations(findings: Findings, spot: SweetSpot) -> str:
    """What else to know of the sweet spot: levels beyond it, an end that is no cliff, validation that disagrees."""
    return " ".join([*_unclaimed(spot), *_end(spot), *_validation(findings, spot)])


def _diverged(verdict: Verdict) -> list[str]:
    """Who diverged, where and when."""
    if not verdict.divergences:
        return []
    runs = []
    for run in verdict.divergences:
        draw = f" draw {run.draw}" if run.draw else ""
        where = f" at level {run.level}," if run.level != verdict.level else ""
        when = f" at iteration {run.step:,}" if run.step is not None else ""
        runs.append(f"seed {run.seed}{draw}{where}{when}")
    meaning = ": a control that diverged says nothing of quality" if verdict.control else ""
    return [f"diverged: {units.listed(runs)}{meaning}"]


def _repeated(verdict: Verdict) -> list[str]:
    """That several seeds gave one network."""
    if verdict.replicates == verdict.seeds:
        return []
    seeds = units.seeds(verdict.compared)
    if verdict.replicates == 1:
        return [f"{seeds} are bit for bit equal: they are one replicate"]
    return [f"some of {seeds} are bit for bit equal: they are {verdict.replicates} replicates"]


def _point(verdict: Verdict, metric: Metric) -> str:
    assert verdict.estimate is not None
    return (
        f"{measures.worse(verdict.gate, metric, verdict.estimate)} on average, margin "
        f"{measures.margin(verdict.gate, metric)} ({units.plural(verdict.replicates, 'seed')}: a point estimate, no confidence)"
    )


def _non_inferiority(verdict: Verdict, metric: Metric) -> str:
    gate, low, high = verdict.gate, verdict.low, verdict.bound
    assert verdict.estimate is not None
    estimate = measures.worse(gate, metric, verdict.estimate)
    margin = f"margin {measures.margin(gate, metric)}"
    if low is None or high is None:
        return f"{estimate}, {margin}; one replicate has no spread: at least 2 are needed to tell"
    lead = f"{estimate} on average; with {units.percent(1 - verdict.error)} confidence"
    floor = ""
    if verdict.floor is not None:
        spread = measures.resolution(verdict.floor)
        floor = f"; the seeds {measures.agreement(verdict.floor)}: their spread is taken as {spread}"
    if verdict.by_numbers is Status.PASS:
        limit = "at most" if high >= 0 else "at least"
        return f"{lead} {limit} {measures.worse(gate, metric, high)}, {margin}{floor}"
    if verdict.by_numbers is Status.FAIL:
        return f"{lead} at least {measures.worse(gate, metric, low)}, {margin}{floor}"
    span = f"between {measures.worsening(gate, metric, low)} and {measures.worse(gate, metric, high)}"
    needed = verdict.replicates_needed
    more = "more replicates needed"
    if needed in verdict.looks:
        more = f"the look at {needed} replicates would decide it if mean and spread stay"
    elif needed:
        more = f"about {needed} replicates would decide it if mean and spread stay"
    elif verdict.split_error and NormalDist().inv_cdf(1 - verdict.error) * verdict.split_error >= abs(
        gate.margin - verdict.estimate
    ):
        more = "no number of replicates would decide it on so few test examples, if the mean stays"
    return f"{lead} {span}, which holds the {margin}; {more}{floor}"


def _by_examples(verdict: Verdict, examples: Difference, metric: Metric, confidence: float) -> str:
    """The bound over examples, and what it is about; of an open answer, how many more would close it."""
    gate, low, high = verdict.gate, examples.low, examples.high
    lead = (
        f"{measures.worse(gate, metric, examples.estimate)}; with {units.percent(confidence)} confidence over "
        f"{sample(verdict.split, examples)}"
    )
    margin, about = f"margin {measures.margin(gate, metric)}", "of this network, and not of other seeds"
    if verdict.by_numbers is Status.PASS:
        limit = "at most" if high >= 0 else "at least"
        return f"{lead} {limit} {measures.worse(gate, metric, high)}, {margin} ({about})"
    if verdict.by_numbers is Status.FAIL:
        return f"{lead} at least {measures.worse(gate, metric, low)}, {margin} ({about})"
    span = f"between {measures.worsening(gate, metric, low)} and {measures.worse(gate, metric, high)}"
    reach = high - examples.estimate if gate.allows(examples.estimate) else examples.estimate - low
    distance = abs(gate.margin - examples.estimate)
    factor = (reach / distance) ** 2 if distance > 1e-9 else math.inf
    more = "more are needed"
    if factor <= 1000:
        needed = float(f"{factor * examples.examples:.2g}")
        more = f"about {needed:,.0f} of them would decide it if the difference stays"
    return f"{lead} {span}, which holds the {margin}; {more} ({about})"


def sample(split: Split, examples: Difference) -> str:
    """What a comparison of one network rests on: ``360 test examples``, ``1,743 test examples in 20 blocks``."""
    text = f"{examples.examples:,} {split} examples"
    return text if examples.unit == "examples" else f"{text} in {examples.clusters:,} {examples.unit}"


def _unclaimed(spot: SweetSpot) -> list[str]:
    if not spot.beyond:
        return []
    shares = units.listed([units.share(step.sparsity) for step in spot.beyond])
    verb = "passes" if len(spot.beyond) == 1 else "pass"
    return [
        f"Of the sparser levels {shares} {verb} again, beyond one that does not: with enough levels some do by chance, and "
        "nothing is claimed of them."
    ]


def _end(spot: SweetSpot) -> list[str]:
    if spot.missing is not None:
        return [f"No run of level {spot.missing} is there: the search ends before it, so this is a lower limit."]
    if spot.end is None:
        return [
            "The sparsest level that was trained still passes: the cliff was not reached, so this is a lower limit."
        ]
    return []


def _validation(findings: Findings, spot: SweetSpot) -> list[str]:
    """What the validation split says against it; the same networks were measured, on other examples."""
    own: Sequence[Verdict] = findings.verdicts(spot.variant, spot.level, "validation")
    status = level_status(own)
    if not own or status is Status.PASS:
        return []
    reasons = [
        reason(verdict, findings.metrics[verdict.gate.metric], findings.policy)
        for verdict in own
        if verdict.status is not Status.PASS
    ]
    verb = "fails it" if status is Status.FAIL else "cannot tell"
    return [f"The validation split, which has no part in the answer, {verb} ({'; '.join(reasons)})."]
