"""Everything that the evidence says of one experiment, concluded once and then only read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from ticketsmith.errors import TicketSmithError
from ticketsmith.evidence import sweet_spot as spots
from ticketsmith.evidence.billing import Billed, Pod, billed
from ticketsmith.evidence.controls import Comparison, Regime, compare, regimes
from ticketsmith.evidence.cost import Cost, cost
from ticketsmith.evidence.gates import judge, level_status
from ticketsmith.evidence.learning import EarlyStop, early_stops
from ticketsmith.evidence.payback import Payback, paybacks
from ticketsmith.evidence.results import At, Metric, Result, Split
from ticketsmith.evidence.scorecard import Scorecard, scorecard
from ticketsmith.evidence.serving import Benchmark
from ticketsmith.evidence.summarise import grouped, summarise
from ticketsmith.evidence.variants import DENSE, is_control, ordered, subject
from ticketsmith.evidence.verdicts import GatePolicy, Status, Summary, SweetSpot, Verdict


@dataclass(frozen=True)
class Findings:
    """One experiment, concluded. Build it with :func:`conclude`.

    ``subject`` is the variant that the experiment is about (the winning ticket, unless there is none). ``planned``
    counts the runs that the plan asked for. ``facts`` are lines for a reader, in order (``Data`` -> ``MNIST, 55,000
    training images``); ``environment`` is what the runs recorded of their machine and versions. ``scorecard``: what serving
    costs, None without a benchmark; ``paybacks``: one for each batch size at which a deployable level was measured.
    ``billed``: what a cluster's pods took, None without any.
    """

    name: str
    recipe_text: str
    results: tuple[Result, ...]
    policy: GatePolicy
    subject: str
    metrics: Mapping[str, Metric]
    metric: Metric
    summaries: tuple[Summary, ...]
    validation: tuple[Verdict, ...]
    test: tuple[Verdict, ...]
    sweet_spot: SweetSpot | None
    target: tuple[int, Status] | None
    knee: Summary | None
    learning: tuple[EarlyStop, ...]
    comparisons: tuple[Comparison, ...]
    regimes: Mapping[int, Regime]
    cost: Cost
    planned: int
    benchmark: Benchmark | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    scorecard: Scorecard | None = None
    paybacks: tuple[Payback, ...] = ()
    billed: Billed | None = None

    @property
    def variants(self) -> tuple[str, ...]:
        """The variants that were trained, in the order of the story."""
        return ordered(run.variant for run in self.results)

    @property
    def controls(self) -> tuple[str, ...]:
        return tuple(variant for variant in self.variants if is_control(variant, self.subject))

    @property
    def diverged(self) -> tuple[Result, ...]:
        return tuple(run for run in self.results if run.diverged)

    @property
    def replicates(self) -> int:
        """How many seeds were trained at all."""
        return len({run.seed for run in self.results})

    @cached_property
    def levels(self) -> dict[tuple[str, int], list[Result]]:
        """The runs of every level of every variant."""
        return grouped(self.results)

    def summary(
        self, variant: str, level: int, metric: str | None = None, split: Split = "test", at: At | None = None
    ) -> Summary | None:
        """The mean of one level, by default of the experiment's own metric on the test split; None if not measured."""
        name, moment = metric or self.metric.name, at or self.policy.at
        found = (entry for entry in self._series.get((variant, name, split, moment), ()) if entry.level == level)
        return next(found, None)

    def series(
        self, variant: str, metric: str | None = None, split: Split = "test", at: At | None = None
    ) -> list[Summary]:
        """The summaries of all levels of one variant, from dense to sparse."""
        name, moment = metric or self.metric.name, at or self.policy.at
        chosen = self._series.get((variant, name, split, moment), [])
        return sorted(chosen, key=lambda entry: (entry.sparsity, entry.level))

    def verdicts(self, variant: str, level: int, split: Split = "test") -> list[Verdict]:
        """The verdicts of one level, one for each gate."""
        return self._verdicts.get((split, variant, level), [])

    @cached_property
    def _series(self) -> dict[tuple[str, str, Split, At], list[Summary]]:
        found: dict[tuple[str, str, Split, At], list[Summary]] = {}
        for entry in self.summaries:
            found.setdefault((entry.variant, entry.metric, entry.split, entry.at), []).append(entry)
        return found

    @cached_property
    def _verdicts(self) -> dict[tuple[Split, str, int], list[Verdict]]:
        found: dict[tuple[Split, str, int], list[Verdict]] = {}
        for verdict in (*self.validation, *self.test):
            found.setdefault((verdict.split, verdict.variant, verdict.level), []).append(verdict)
        return found


def conclude(
    name: str,
    results: Sequence[Result],
    policy: GatePolicy,
    *,
    recipe_text: str = "",
    planned: int | None = None,
    benchmark: Benchmark | None = None,
    facts: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
    pods: Sequence[Pod] = (),
    unreadable_pods: int = 0,
) -> Findings:
    """Judge, summarise and count: all evidence from the sealed runs of one experiment.

    ``pods`` are the records of a cluster's pods, if there are any. The order of ``results`` does not matter. Raises
    TicketSmithError when there are none, or when a gate asks for a metric that they do not hold.
    """
    if not results:
        raise TicketSmithError(f"experiment {name!r} has no runs yet: nothing to report. Train it first.")
    runs = tuple(sorted(results, key=lambda run: (run.variant, run.level, run.seed, run.draw, run.key)))
    metrics = {metric: run.metrics[metric] for run in runs for metric in run.metrics}
    if not metrics:
        raise TicketSmithError(f"the runs of experiment {name!r} measured nothing: their metrics are empty.")
    validation, test = judge(runs, policy, "validation"), judge(runs, policy, "test")
    metric = metrics[policy.gates[0].metric if policy.gates else next(iter(metrics))]
    about = subject(run.variant for run in runs)
    splits: tuple[Split, ...] = ("validation", "test")
    moments: tuple[At, ...] = ("final", "early_stop")
    summaries = tuple(
        summary
        for split in splits
        for at in moments
        for summary in summarise(runs, metrics, split, at, policy.confidence)
    )
    spot = spots.find(validation, test, about)
    curve = [
        summary
        for summary in summaries
        if summary.variant in (DENSE, about)
        and (summary.metric, summary.split, summary.at) == (metric.name, "validation", policy.at)
    ]
    level = spot.answer[0] if spot else None
    spent = cost(runs, level, about)
    statuses = _statuses((*validation, *test))
    card = scorecard(benchmark, about, _deployable(spot, test, statuses), statuses) if benchmark else None
    return Findings(
        name=name,
        recipe_text=recipe_text,
        results=runs,
        policy=policy,
        subject=about,
        metrics=metrics,
        metric=metric,
        summaries=summaries,
        validation=tuple(validation),
        test=tuple(test),
        sweet_spot=spot,
        target=spots.target(test, policy, about),
        knee=spots.knee(curve, metric.higher_is_better),
        learning=tuple(early_stops(runs, policy.confidence)),
        comparisons=tuple(compare(runs, metric, "test", policy.at, policy.confidence, about)),
        regimes=regimes(test, about),
        cost=spent,
        planned=len(runs) if planned is None else planned,
        benchmark=benchmark,
        facts=dict(facts or {}),
        environment=dict(environment or {}),
        scorecard=card,
        paybacks=tuple(paybacks(spent, card)),
        billed=billed(pods, runs, unreadable_pods),
    )


def _statuses(verdicts: Sequence[Verdict]) -> dict[tuple[str, int], Status]:
    """The conjunction of all gates on both splits, by variant and level."""
    given: dict[tuple[str, int], list[Verdict]] = {}
    for verdict in verdicts:
        given.setdefault((verdict.variant, verdict.level), []).append(verdict)
    return {place: level_status(own) for place, own in given.items()}


def _deployable(
    spot: SweetSpot | None, test: Sequence[Verdict], statuses: Mapping[tuple[str, int], Status]
) -> frozenset[int]:
    """The levels that pass on both splits, none of them sparser than the one that the headline answers with."""
    if spot is None or spot.confirmed is None:
        return frozenset()
    own = {verdict.level: verdict.sparsity for verdict in test if verdict.variant == spot.variant}
    return frozenset(
        level
        for level, sparsity in own.items()
        if statuses[spot.variant, level] is Status.PASS and sparsity <= spot.confirmed[1]
    )
