"""What single examples add to the gates: with one seed they take the place of replicates, with several they are a second
source of chance beside them, if runs have kept their outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ticketsmith.errors import TicketSmithError
from ticketsmith.evidence.examples import Difference, difference, sampling
from ticketsmith.evidence.outcomes import Outcomes
from ticketsmith.evidence.resolution import Resolution
from ticketsmith.evidence.results import At, Result, Split
from ticketsmith.evidence.statistics import Sampling
from ticketsmith.evidence.summarise import measured_value
from ticketsmith.evidence.variants import DENSE
from ticketsmith.evidence.verdicts import Gate, GatePolicy

_SPLITS: tuple[Split, ...] = ("validation", "test")


def settled(policy: GatePolicy, results: Sequence[Result]) -> GatePolicy:
    """The policy with the method that these results allow: its ``fallback``, if it has one and outcomes are lacking.

    Raises TicketSmithError when several seeds are to be judged as one network.
    """
    if policy.method != "examples":
        return policy
    seeds = {run.seed for run in results}
    if policy.fallback is None and len(seeds) > 1:
        raise TicketSmithError(
            f"gates.method: examples judges one network, and there are {len(seeds)} seeds: write non-inferiority, or leave "
            "the method out."
        )
    if policy.fallback is not None and (len(seeds) > 1 or not _complete(policy, results)):
        return replace(policy, method=policy.fallback, fallback=None)
    return replace(policy, fallback=None)


def worsening(
    runs: Sequence[Result],
    dense: Sequence[Result],
    gate: Gate,
    finest: Resolution,
    policy: GatePolicy,
    split: Split,
) -> Difference | None:
    """How much worse the networks of ``runs`` are than those of ``dense``, all of one seed, in the terms of the gate.

    Several draws are averaged example by example. None where a run that measures the metric has no outcomes of it.
    """
    there, here = (measured_outcomes(side, gate.metric, split, policy.at) for side in (dense, runs))
    if not there or not here:
        return None
    own = there[0].metric if gate.relative else 1.0
    try:
        return difference(
            there,
            here,
            policy.confidence,
            higher_is_better=finest.metric.higher_is_better,
            relative=gate.relative,
            resolution=finest.amount / abs(own) if own else 0.0,
        )
    except ValueError as error:
        raise TicketSmithError(
            f"{runs[0].path} and {dense[0].path} cannot be compared by {gate.metric}: {error}"
        ) from error


def sampling_error(
    runs: Sequence[Result],
    dense: Sequence[Result],
    seeds: Sequence[int],
    gate: Gate,
    finest: Resolution,
    policy: GatePolicy,
    split: Split,
) -> Sampling | None:
    """What the draw of the examples does to a mean worsening over ``seeds``, in the terms of the gate.

    None where a run that measures the metric has no outcomes of it.
    """
    pairs = []
    for seed in seeds:
        there, here = (
            measured_outcomes([run for run in side if run.seed == seed], gate.metric, split, policy.at)
            for side in (dense, runs)
        )
        if not there or not here:
            return None
        pairs.append((there, here))
    try:
        return sampling(pairs, higher_is_better=finest.metric.higher_is_better, relative=gate.relative)
    except ValueError as error:
        raise TicketSmithError(f"{runs[0].path} and others cannot be compared by {gate.metric}: {error}") from error


def measured_outcomes(runs: Sequence[Result], metric: str, split: Split, at: At) -> list[Outcomes]:
    """Those of the runs that measured the metric; none at all where one of these has none."""
    measured = [_outcomes(run, metric, split, at) for run in runs if measured_value(run, metric, split, at) is not None]
    there = [one for one in measured if one is not None]
    return there if len(there) == len(measured) else []


def _complete(policy: GatePolicy, results: Sequence[Result]) -> bool:
    """Whether every run that is judged has the outcomes of every gate, and dense has them too; a value that is no finite number
    has none, and passes no gate anyway."""
    sound = [run for run in results if not run.diverged]
    if not any(run.variant != DENSE for run in sound) or any(run.outcomes is None for run in sound):
        return False
    return all(
        _outcomes(run, gate.metric, split, policy.at) is not None
        for run in sound
        for gate in policy.gates
        for split in _SPLITS
        if measured_value(run, gate.metric, split, policy.at) is not None
    )


def _outcomes(run: Result, metric: str, split: Split, at: At) -> Outcomes | None:
    return None if run.outcomes is None else run.outcomes.of(metric, split, at)
