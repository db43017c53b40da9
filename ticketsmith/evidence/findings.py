"""Everything that the evidence says of one experiment, concluded once and then only read."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from ticketsmith.errors import TicketSmithError
from ticketsmith.evidence import one_network
from ticketsmith.evidence.billing import ClusterBill, Pod, cluster_bill
from ticketsmith.evidence.candidates import Served
from ticketsmith.evidence.choice import Choice, choose
from ticketsmith.evidence.controls import Comparison, Regime, compare, regimes
from ticketsmith.evidence.cost import Cost, cost
from ticketsmith.evidence.gates import judge
from ticketsmith.evidence.interaction import Square, squares
from ticketsmith.evidence.learning import EarlyStop, early_stops
from ticketsmith.evidence.payback import Payback, paybacks
from ticketsmith.evidence.payoff import Payoff, payoffs
from ticketsmith.evidence.results import At, Metric, Place, Result, Split
from ticketsmith.evidence.scorecard import Scorecard, scorecard
from ticketsmith.evidence.serving import Benchmark
from ticketsmith.evidence.size import Size, size_of
from ticketsmith.evidence.speed import Speed, speeds
from ticketsmith.evidence.summarise import grouped, summarise
from ticketsmith.evidence.sweet_spot import find, knee, target, walk
from ticketsmith.evidence.variants import DENSE, blocker, is_control, ordered, subject
from ticketsmith.evidence.verdicts import GatePolicy, Status, Summary, SweetSpot, Verdict, Walk, by_place, level_status


@dataclass(frozen=True)
class Findings:
    """One experiment, concluded. Build it with :func:`conclude`.

    ``subject`` is the variant that the experiment is about (the winning ticket, unless there is none). ``planned``
    counts the runs that the plan asked for, ``blocked`` those of them that can never be made since one that they need
    diverged. ``statuses`` are the conjunction of all gates on test by variant and level. ``search`` are the levels in the
    order in which they were tested. ``speeds`` are all points of the ``benchmark``. ``facts``
    are lines for a reader, in order (``Data`` -> ``MNIST, 55,000 training images``); ``environment`` is what the runs
    recorded of their machine and versions. ``scorecard``: what serving costs, None without a benchmark; ``paybacks``: one
    for each batch size at which a deployable level was measured. ``cluster``: what a cluster's pods took, None without any.
    ``choice``: what the candidates say that were written as files, judged and timed, None without any; ``squares``: how
    pruning and quantising them go together; ``payoffs``: what each kind of choice costs to find.
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
    statuses: Mapping[tuple[str, int], Status]
    search: Walk
    sweet_spot: SweetSpot | None
    target: tuple[int, Status] | None
    knee: Summary | None
    learning: tuple[EarlyStop, ...]
    comparisons: tuple[Comparison, ...]
    regimes: Mapping[int, Regime]
    cost: Cost
    planned: int
    blocked: int = 0
    benchmark: Benchmark | None = None
    speeds: tuple[Speed, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    scorecard: Scorecard | None = None
    paybacks: tuple[Payback, ...] = ()
    cluster: ClusterBill | None = None
    choice: Choice | None = None
    squares: tuple[Square, ...] = ()
    payoffs: tuple[Payoff, ...] = ()

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

    @property
    def size(self) -> Size:
        """The network before and after pruning: at the sweet spot, else at the sparsest level of the subject."""
        if self.sweet_spot:
            return self.size_at(self.sweet_spot.variant, self.sweet_spot.level)
        own = [level for variant, level in self.levels if variant == self.subject]
        return self.size_at(self.subject, max(own)) if own else size_of(self.results)

    def size_at(self, variant: str, level: int) -> Size:
        """The network before and after pruning, at one level that was trained."""
        return size_of(self.levels[variant, level])

    def network_sparsity(self, variant: str, level: int) -> float | None:
        """The removed share of all parameters; None where they were not counted, or the level was not trained."""
        runs = self.levels.get((variant, level))
        return size_of(runs).network_sparsity if runs else None

    def summary(
        self, variant: str, level: int, metric: str | None = None, split: Split = "test", at: At | None = None
    ) -> Summary | None:
        """The mean of one level, by default of the experiment's own metric on the test split; None if not measured."""
        name, moment = metric or self.metric.name, at or self.policy.at
        levels = self._series.get((variant, name, split, moment), ())
        return next((entry for entry in levels if entry.level == level), None)

    def series(
        self, variant: str, metric: str | None = None, split: Split = "test", at: At | None = None
    ) -> list[Summary]:
        """The summaries of all levels of one variant, from dense to sparse."""
        name, moment = metric or self.metric.name, at or self.policy.at
        levels = self._series.get((variant, name, split, moment), [])
        return sorted(levels, key=lambda entry: (entry.sparsity, entry.level))

    def verdicts(self, variant: str, level: int, split: Split = "test") -> list[Verdict]:
        """The verdicts of one level, one for each gate."""
        return self._verdicts[split].get((variant, level), [])

    @cached_property
    def _series(self) -> dict[tuple[str, str, Split, At], list[Summary]]:
        series: dict[tuple[str, str, Split, At], list[Summary]] = {}
        for entry in self.summaries:
            series.setdefault((entry.variant, entry.metric, entry.split, entry.at), []).append(entry)
        return series

    @cached_property
    def _verdicts(self) -> dict[Split, dict[tuple[str, int], list[Verdict]]]:
        return {"validation": by_place(self.validation), "test": by_place(self.test)}


def conclude(
    name: str,
    results: Sequence[Result],
    policy: GatePolicy,
    *,
    recipe_text: str = "",
    planned: int | None = None,
    places: Collection[Place] | None = None,
    benchmark: Benchmark | None = None,
    facts: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
    pods: Sequence[Pod] = (),
    unreadable_pods: int = 0,
    served: Served | None = None,
) -> Findings:
    """Judge, summarise and count: all evidence from the sealed runs of one experiment.

    ``places`` are the runs that were planned: a level that lacks one of them is inconclusive. ``planned`` is their number
    where they are not known one by one. ``pods`` are the records of a cluster's pods, if there are any, ``served`` what
    the store holds of candidates. The order of ``results`` does not matter. Raises TicketSmithError when there are none, or
    when a gate asks for a metric that they do not hold.
    """
    if not results:
        raise TicketSmithError(f"experiment {name!r} has no runs yet: nothing to report. Train it first.")
    runs = tuple(sorted(results, key=lambda run: (run.variant, run.level, run.seed, run.draw, run.key)))
    metrics = {metric: run.metrics[metric] for run in runs for metric in run.metrics}
    if not metrics:
        raise TicketSmithError(f"the runs of experiment {name!r} measured nothing: their metrics are empty.")
    policy = one_network.settled(policy, runs)
    validation, test = judge(runs, policy, "validation", places), judge(runs, policy, "test", places)
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
    planned_levels: dict[str, set[int]] = {}
    for variant, level, *_ in places or ():
        planned_levels.setdefault(variant, set()).add(level)
    names = {about, *(verdict.variant for verdict in test)}
    walks = {name: walk(test, name, planned_levels.get(name, ())) for name in names}
    spot = find(walks[about], test)
    statuses = {place: level_status(own) for place, own in by_place(test).items()}
    curve = [
        summary
        for summary in summaries
        if summary.variant in (DENSE, about)
        and (summary.metric, summary.split, summary.at) == (metric.name, "validation", policy.at)
    ]
    diverged = [run for run in runs if run.diverged]
    spent = cost(runs, spot.located if spot else None, about)
    passing = {name: search.levels for name, search in walks.items()}
    points = tuple(speeds(benchmark))
    card = scorecard(benchmark, points, about, statuses, passing) if benchmark else None
    choice = choose(served, runs, policy, metric, about)
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
        statuses=statuses,
        search=walks[about],
        sweet_spot=spot,
        target=target(test, policy, about),
        knee=knee(curve, metric.higher_is_better),
        learning=tuple(early_stops(runs, policy.confidence)),
        comparisons=tuple(compare(runs, metric, "test", policy, about)),
        regimes=regimes(test, about),
        cost=spent,
        planned=planned if planned is not None else len(runs if places is None else places),
        blocked=sum(blocker(place, diverged) is not None for place in set(places or ()) - {run.place for run in runs}),
        benchmark=benchmark,
        speeds=points,
        facts=dict(facts or {}),
        environment=dict(environment or {}),
        scorecard=card,
        paybacks=tuple(paybacks(spent, card)),
        cluster=cluster_bill(pods, runs, unreadable_pods),
        choice=choice,
        squares=tuple(squares(choice, served)) if choice and served else (),
        payoffs=tuple(payoffs(choice, spent)) if choice else (),
    )
