"""The quality gates: is a pruned level still as good as dense, within a margin that was set beforehand?

Two methods. ``point`` compares the mean worsening with the margin and knows no uncertainty. ``non-inferiority`` is the
paired one-sided t test used where "not worse by more than a margin" has to be shown rather than assumed: FAIL and PASS
are both claims at the policy's confidence, and what the replicates cannot decide is INCONCLUSIVE.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ticketsmith.errors import TicketSmithError
from ticketsmith.evidence import words
from ticketsmith.evidence.results import Metric, Result, Split
from ticketsmith.evidence.statistics import mean, one_sided_bounds, replicates_needed
from ticketsmith.evidence.summarise import groups, measured_value, replicate_values
from ticketsmith.evidence.variants import DENSE
from ticketsmith.evidence.verdicts import Gate, GatePolicy, Status, Verdict

# A drop of exactly the margin passes: 98.9 - 96.9 is 2.0000000000000142 in binary, and nobody means
# that by "more than".
TOLERANCE = 1e-9


@dataclass(frozen=True)
class _Pairs:
    """Worsenings against dense by seed (positive is worse), and what had to be left out."""

    worsening: tuple[float, ...]
    notes: tuple[str, ...]


def judge(results: Sequence[Result], policy: GatePolicy, split: Split) -> list[Verdict]:
    """One verdict for each gate of each level of each variant. Dense is the reference and is not judged.

    Each replicate is compared with the dense run of its own seed. Raises TicketSmithError when a gate names a metric
    that no run measured.
    """
    metrics = {name: metric for run in results for name, metric in run.metrics.items()}
    for gate in policy.gates:
        if results and gate.metric not in metrics:
            raise TicketSmithError(
                f"the gate on {gate.metric!r} cannot be judged: the runs measure {words.listed(sorted(metrics))}"
            )
    dense = [run for run in results if run.variant == DENSE]
    seeds = {run.seed for run in results}
    verdicts = []
    for variant, level in groups(results):
        if variant == DENSE:
            continue
        runs = [run for run in results if (run.variant, run.level) == (variant, level)]
        for gate in policy.gates:
            pairs = _pair(runs, dense, seeds, gate, metrics[gate.metric], policy, split)
            verdicts.append(_verdict(runs, pairs, gate, metrics[gate.metric], policy, split))
    return verdicts


def level_status(verdicts: Iterable[Verdict]) -> Status:
    """The conjunction of one level's gates: FAIL before INCONCLUSIVE before PASS; INCONCLUSIVE without a gate.

    No correction for several gates is due: a level passes only if every one of them does (intersection-union test,
    Berger 1982).
    """
    statuses = {verdict.status for verdict in verdicts}
    if Status.FAIL in statuses:
        return Status.FAIL
    return Status.PASS if statuses == {Status.PASS} else Status.INCONCLUSIVE


def _pair(
    runs: Sequence[Result],
    dense: Sequence[Result],
    seeds: set[int],
    gate: Gate,
    metric: Metric,
    policy: GatePolicy,
    split: Split,
) -> _Pairs:
    here = replicate_values(runs, gate.metric, split, policy.at)
    there = replicate_values(dense, gate.metric, split, policy.at)
    worsening = {}
    for seed in sorted(here.keys() & there.keys()):
        amount = there[seed] - here[seed] if metric.higher_is_better else here[seed] - there[seed]
        if not gate.relative:
            worsening[seed] = amount
        elif there[seed] != 0:
            worsening[seed] = amount / abs(there[seed])
    notes = []
    if missing := sorted(seeds - {run.seed for run in runs}):
        notes.append(f"{words.plural(len(missing), 'replicate')} missing (seed {_seeds(missing)})")
    if unpaired := sorted(here.keys() - there.keys()):
        notes.append(f"no dense run to compare with for seed {_seeds(unpaired)}")
    if undefined := sorted((here.keys() & there.keys()) - worsening.keys()):
        notes.append(f"a relative change from a dense value of 0 is not defined (seed {_seeds(undefined)})")
    return _Pairs(tuple(worsening[seed] for seed in sorted(worsening)), tuple(notes))


def _verdict(
    runs: Sequence[Result], pairs: _Pairs, gate: Gate, metric: Metric, policy: GatePolicy, split: Split
) -> Verdict:
    bounds = one_sided_bounds(pairs.worsening, policy.confidence) if policy.method == "non-inferiority" else None
    broken = [run for run in runs if measured_value(run, gate.metric, split, policy.at) is None]
    if broken:
        status, reason = Status.FAIL, _broken(broken, gate)
    elif not pairs.worsening:
        status, reason = Status.INCONCLUSIVE, "nothing to compare"
    elif policy.method == "point":
        status, reason = _point(pairs.worsening, gate, metric)
    else:
        status, reason = _non_inferiority(pairs.worsening, bounds, gate, metric, policy.confidence)
    return Verdict(
        variant=runs[0].variant,
        level=runs[0].level,
        sparsity=mean([run.sparsity for run in runs]),
        split=split,
        gate=gate,
        status=status,
        estimate=mean(pairs.worsening) if pairs.worsening else None,
        bound=bounds[1] if bounds else None,
        replicates=len(pairs.worsening),
        reason="; ".join((reason, *pairs.notes)),
    )


def _point(worsening: Sequence[float], gate: Gate, metric: Metric) -> tuple[Status, str]:
    estimate = mean(worsening)
    status = Status.PASS if estimate <= gate.margin + TOLERANCE else Status.FAIL
    return status, (
        f"{words.worse(gate, metric, estimate)} on average, margin {words.margin(gate, metric)} "
        f"({words.plural(len(worsening), 'seed')}: a point estimate, no confidence)"
    )


def _non_inferiority(
    worsening: Sequence[float], bounds: tuple[float, float] | None, gate: Gate, metric: Metric, confidence: float
) -> tuple[Status, str]:
    estimate = words.worse(gate, metric, mean(worsening))
    margin = f"margin {words.margin(gate, metric)}"
    if bounds is None:
        return Status.INCONCLUSIVE, f"{estimate}, {margin}; one replicate has no spread: at least 2 are needed to tell"
    low, high = bounds
    sure = f"{estimate} on average; with {words.percent(confidence)} confidence"
    if high <= gate.margin + TOLERANCE:
        limit = "at most" if high >= 0 else "at least"
        return Status.PASS, f"{sure} {limit} {words.worse(gate, metric, high)}, {margin}"
    if low > gate.margin + TOLERANCE:
        return Status.FAIL, f"{sure} at least {words.worse(gate, metric, low)}, {margin}"
    span = f"between {words.worsening(gate, metric, low)} and {words.worse(gate, metric, high)}"
    needed = replicates_needed(worsening, gate.margin, confidence)
    more = f"about {needed} replicates would decide it if mean and spread stay" if needed else "more replicates needed"
    return Status.INCONCLUSIVE, f"{sure} {span}, which holds the {margin}; {more}"


def _broken(broken: Sequence[Result], gate: Gate) -> str:
    diverged: list[str] = []
    undefined: list[str] = []
    for run in broken:
        draw = f" draw {run.draw}" if run.draw else ""
        when = f" at iteration {run.diverged_at:,}" if run.diverged_at is not None else ""
        (diverged if run.diverged else undefined).append(f"seed {run.seed}{draw}{when}")
    told = [f"diverged: {words.listed(diverged)}"] if diverged else []
    return "; ".join(told + ([f"{gate.metric} is not a number: {words.listed(undefined)}"] if undefined else []))


def _seeds(seeds: Sequence[int]) -> str:
    return words.listed([str(seed) for seed in seeds])
