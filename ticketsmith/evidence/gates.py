"""The quality gates: is a pruned level still as good as dense, within a margin that was set beforehand?

Three methods. ``point`` compares the mean worsening with the margin and knows no uncertainty. ``non-inferiority`` is the
paired one-sided t test used where "not worse by more than a margin" has to be shown rather than assumed: FAIL and PASS
are both claims at the policy's confidence, and what the replicates cannot decide is INCONCLUSIVE. Where runs kept outcomes,
its bounds hold the draw of the test examples too. ``examples`` is the same
for one network, whose examples take the place of replicates (``one_network``). INCONCLUSIVE is also a level that
lacks a planned replicate, by any method; a replicate that diverged is no missing one: it fails its level, and all
beyond. Where there are several looks, each level's verdict is that of the earliest one that decided.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from ticketsmith.errors import TicketSmithError
from ticketsmith.evidence import one_network
from ticketsmith.evidence.examples import Difference
from ticketsmith.evidence.looks import Look, error_of, later_error, schedule
from ticketsmith.evidence.resolution import Resolution, resolution
from ticketsmith.evidence.results import At, Metric, Place, Result, Split
from ticketsmith.evidence.size import Size, size_of
from ticketsmith.evidence.statistics import Sampling, deviation, mean, one_sided_bounds, replicates_needed
from ticketsmith.evidence.summarise import distinct, grouped, measured_value, replicate_values
from ticketsmith.evidence.variants import DENSE, blocker, is_control, subject
from ticketsmith.evidence.verdicts import Divergence, Gap, GapCause, Gate, GatePolicy, Status, Verdict


@dataclass(frozen=True)
class _Level:
    """One level of one variant, and what its verdicts rest on.

    ``expected`` are all its seeds, in order. ``fallen`` are the runs that diverged here or, of a method, at a milder level.
    ``absent``: planned seeds without a run, but for those that can never get one; ``blocked`` are those of them whose ticket
    diverged. ``control``: it is no method, but what a method is held against.
    """

    variant: str
    level: int
    size: Size
    runs: Sequence[Result]
    fallen: Sequence[Result]
    absent: tuple[int, ...]
    blocked: tuple[int, ...]
    control: bool
    expected: tuple[int, ...]

    def first(self, count: int) -> _Level:
        """What there is of the first ``count`` seeds that are expected."""
        if count >= len(self.expected):
            return self
        seeds = set(self.expected[:count])
        return replace(
            self,
            runs=[run for run in self.runs if run.seed in seeds],
            fallen=[run for run in self.fallen if run.seed in seeds],
            absent=tuple(seed for seed in self.absent if seed in seeds),
            blocked=tuple(seed for seed in self.blocked if seed in seeds),
            expected=self.expected[:count],
        )


@dataclass(frozen=True)
class _Pairs:
    """Worsenings against dense by seed (positive is worse), which of them are replicates, and what had to be left out.

    ``alone`` are seeds without a dense run; ``gaps`` say what else of dense cannot be compared with.
    ``floor`` is the least spread that is believed, in the terms of the gate, and ``finest`` the same in the metric's unit.
    ``examples`` compares one network example by example, where that is the method; ``sampling`` is what the draw of the
    test examples does to the mean over seeds, None where outcomes were not kept.
    """

    worsening: Mapping[int, float]
    differing: tuple[int, ...]
    floor: float
    finest: Resolution
    alone: tuple[int, ...]
    gaps: tuple[Gap, ...]
    examples: Difference | None
    sampling: Sampling | None

    @property
    def values(self) -> list[float]:
        """One worsening for each replicate."""
        return [self.worsening[seed] for seed in self.differing]


def judge(
    results: Sequence[Result], policy: GatePolicy, split: Split, planned: Collection[Place] | None = None
) -> list[Verdict]:
    """One verdict for each gate of each level of each variant. Dense is the reference and is not judged.

    Each replicate is compared with the dense run of its own seed. ``planned`` are the runs that the experiment consists of:
    a level that lacks one is INCONCLUSIVE; without it, every level is taken to have been planned for every seed that any
    run has. A method fails at the level where a seed diverged and at every sparser one; a control that diverged is
    INCONCLUSIVE, since its quality is not known. Raises TicketSmithError when a gate names a metric that no run measured.
    """
    policy = one_network.settled(policy, results)
    metrics = {name: metric for run in results for name, metric in run.metrics.items()}
    for gate in policy.gates:
        if results and gate.metric not in metrics:
            *names, last = sorted(metrics) or [""]
            measured = f"{', '.join(names)} and {last}" if names else last
            raise TicketSmithError(f"the gate on {gate.metric!r} cannot be judged: the runs measure {measured}")
    resolutions = {gate.metric: resolution(results, metrics[gate.metric], split) for gate in policy.gates if results}
    dense = [run for run in results if (run.variant, run.level) == (DENSE, 0)]
    deepest = max((run.level for run in results), default=0)
    verdicts = []
    for level in _levels(results, planned):
        error = error_of(policy.confidence, level.level, deepest, policy.coarse)
        for gate in policy.gates:
            question = _Question(level, dense, gate, resolutions[gate.metric], policy, split, error)
            verdicts.append(question.answer())
    return verdicts


def _levels(results: Sequence[Result], planned: Collection[Place] | None) -> list[_Level]:
    """Every level of every variant but dense, with the seeds that it should have."""
    groups = grouped(results)
    by_level: dict[tuple[str, int], set[tuple[int, int]]] = {}  # seeds and draws that should be there
    for variant, level, seed, draw in planned or ():
        by_level.setdefault((variant, level), set()).add((seed, draw))
    seeds = {run.seed for run in results}
    about = subject(variant for variant, _ in groups)
    diverged = [run for run in results if run.diverged]
    fallen: dict[str, list[Result]] = {}
    levels = []
    for (variant, level), runs in groups.items():
        if variant == DENSE:
            continue
        control, here = is_control(variant, about), [run for run in runs if run.diverged]
        if not control:
            here = fallen[variant] = fallen.get(variant, []) + here
        present = {run.seed for run in runs}
        if planned is None:
            expected, lacking = seeds, seeds - present
        else:
            places = by_level.get((variant, level), set())
            expected = {seed for seed, _ in places} | present
            lacking = {seed for seed, _ in places - {(run.seed, run.draw) for run in runs}}
        lacking -= {run.seed for run in here}
        causes = {seed: blocker((variant, level, seed, 0), diverged) for seed in sorted(lacking)}
        absent = tuple(seed for seed, run in causes.items() if run is None)
        blocked = tuple(seed for seed, run in causes.items() if run is not None and run.variant != DENSE)
        size, ordered = size_of(runs), tuple(sorted(expected))
        levels.append(_Level(variant, level, size, runs, here, absent, blocked, control, ordered))
    return levels


def own_worsening(run: Result, dense: Result, gate: Gate, at: At, split: Split = "test") -> float | None:
    """How much worse one run is than the dense run of its seed, in the terms of the gate; None where it cannot be said."""
    metric = run.metrics.get(gate.metric)
    here, there = (measured_value(one, gate.metric, split, at) for one in (run, dense))
    if metric is None or here is None or there is None:
        return None
    return _worsening(here, there, gate, metric)


def _worsening(here: float, there: float, gate: Gate, metric: Metric) -> float | None:
    amount = there - here if metric.higher_is_better else here - there
    if not gate.relative:
        return amount
    return amount / abs(there) if there != 0 else None


def _pair(
    runs: Sequence[Result],
    dense: Sequence[Result],
    seeds: Collection[int],
    gate: Gate,
    finest: Resolution,
    policy: GatePolicy,
    split: Split,
) -> _Pairs:
    here = replicate_values(runs, gate.metric, split, policy.at)
    there = replicate_values(dense, gate.metric, split, policy.at)
    both = here.keys() & there.keys()
    amounts = {seed: _worsening(here[seed], there[seed], gate, finest.metric) for seed in sorted(both)}
    worsening = {seed: amount for seed, amount in amounts.items() if amount is not None}
    scale = mean([abs(there[seed]) for seed in worsening]) if gate.relative and worsening else 1.0
    differing = tuple(seed for seed in distinct(runs, dense) if seed in worsening)
    magnitude = max((abs(value[seed]) for value in (here, there) for seed in differing), default=0.0)
    unpaired = [run for run in dense if run.seed in seeds and run.seed not in there]
    floor = finest.paired_floor([worsening[seed] for seed in differing], magnitude, scale)
    examples = None
    if policy.method == "examples" and worsening:
        examples = one_network.worsening(runs, dense, gate, finest, policy, split)
    sampling = None
    if policy.method == "non-inferiority":
        sampling = one_network.sampling_error(runs, dense, differing, gate, finest, policy, split)
    unkept = sorted(worsening) if policy.method == "examples" and examples is None else ()
    return _Pairs(
        worsening,
        differing,
        floor,
        replace(finest, amount=floor * scale),
        alone=tuple(sorted(here.keys() - {run.seed for run in dense})),
        gaps=(
            *_dense_gaps(unpaired, sorted(both - worsening.keys()), gate.metric, policy.at, split),
            *_gaps({GapCause.NO_OUTCOMES: unkept}),
        ),
        examples=examples,
        sampling=sampling,
    )


def _dense_gaps(unpaired: Sequence[Result], zero: Sequence[int], metric: str, at: At, split: Split) -> tuple[Gap, ...]:
    """Why dense runs that are there, without a finite value or with one of ``zero``, give nothing to compare with."""
    fallen = sorted(run.seed for run in unpaired if run.diverged)
    unmeasured = sorted(run.seed for run in unpaired if not run.diverged and not _measures(run, metric, split, at))
    undefined = sorted({run.seed for run in unpaired} - {*fallen, *unmeasured})
    causes = (GapCause.DENSE_DIVERGED, GapCause.DENSE_UNMEASURED, GapCause.DENSE_UNDEFINED, GapCause.DENSE_ZERO)
    return _gaps(dict(zip(causes, (fallen, unmeasured, undefined, zero), strict=True)))


def _gaps(seeds: Mapping[GapCause, Sequence[int]]) -> tuple[Gap, ...]:
    return tuple(Gap(cause, tuple(numbers)) for cause, numbers in seeds.items() if numbers)


@dataclass(frozen=True)
class _Question:
    """One gate of one level, which may be asked with the first few of its seeds."""

    level: _Level
    dense: Sequence[Result]
    gate: Gate
    finest: Resolution
    policy: GatePolicy
    split: Split
    error: float

    def at(self, look: Look) -> tuple[Verdict, _Pairs]:
        level = self.level.first(look.replicates)
        pairs = _pair(level.runs, self.dense, level.expected, self.gate, self.finest, self.policy, self.split)
        return _verdict(level, pairs, self.gate, self.policy, self.split, look), pairs

    def answer(self) -> Verdict:
        """The verdict of the earliest look that decided, else of the last one whose seeds are all there.

        A pass does not outlive what speaks against it later: a seed that diverged, or a mean over all seeds that is beyond
        the margin.
        """
        count = len(self.level.expected)
        if self.policy.method != "non-inferiority":
            return self.at(Look(count, self.error))[0]
        looks = schedule(count, self.error, self.policy.looks, self.policy.shown)
        numbers = tuple(dict.fromkeys((*self.policy.looks, *(look.replicates for look in looks))))
        for index, look in enumerate(looks):
            latest, its_pairs = self.at(look)
            if index and (latest.absent or latest.alone):
                break
            there = not (latest.absent or latest.alone)
            verdict, pairs, now = replace(latest, look=index if there else None, looks=numbers), its_pairs, look
            if not there or verdict.status is not Status.INCONCLUSIVE:
                break
        if verdict.look is not None and now.replicates < count:
            whole, _ = self.at(replace(now, replicates=count))
            if verdict.status is Status.PASS and (whole.divergences or whole.undefined or not whole.within):
                status = Status.INCONCLUSIVE if whole.status is Status.PASS else whole.status
                return replace(whole, status=status, look=verdict.look, looks=numbers)
            verdict = replace(verdict, worst=whole.worst, worst_seed=whole.worst_seed, beyond=whole.beyond)
        if verdict.bound is None or verdict.by_numbers is not Status.INCONCLUSIVE:
            return verdict
        later = partial(self._later_error, now)
        needed = replicates_needed(pairs.values, self.gate.margin, later, pairs.floor, pairs.sampling)
        return replace(verdict, replicates_needed=needed)

    def _later_error(self, now: Look, replicates: int) -> float | None:
        """The error of a look with so many replicates that would come after ``now``."""
        return later_error(replicates, now.replicates, self.error, self.policy.looks, self.policy.shown)


def _verdict(level: _Level, pairs: _Pairs, gate: Gate, policy: GatePolicy, split: Split, look: Look) -> Verdict:
    values = pairs.values
    tested = policy.method != "point"
    bounds = None
    if policy.method == "non-inferiority":
        bounds = one_sided_bounds(values, 1 - look.error, pairs.floor, pairs.sampling)
    if pairs.examples is not None:
        bounds = pairs.examples.low, pairs.examples.high
    sound = [run for run in level.runs if not run.diverged]
    valueless = [run for run in sound if measured_value(run, gate.metric, split, policy.at) is None]
    unmeasured = {run.seed for run in valueless if not _measures(run, gate.metric, split, policy.at)}
    undefined = {run.seed for run in valueless if _measures(run, gate.metric, split, policy.at)}
    blocked, missing = (
        _gaps({GapCause.TICKET_DIVERGED: level.blocked}),
        _gaps({GapCause.UNMEASURED: sorted(unmeasured)}),
    )
    gaps = (*blocked, *pairs.gaps, *missing)
    by_numbers = _by_numbers(values, bounds, gate, tested)
    status = by_numbers
    if level.fallen or undefined:
        status = Status.INCONCLUSIVE if level.control else Status.FAIL
    elif level.absent or pairs.alone or gaps:
        status = Status.INCONCLUSIVE
    worst = max(pairs.worsening, key=lambda seed: pairs.worsening[seed], default=None)
    low, high = bounds if bounds and not level.fallen else (None, None)
    return Verdict(
        variant=level.variant,
        level=level.level,
        sparsity=level.size.sparsity,
        split=split,
        gate=gate,
        status=status,
        estimate=mean(values) if values else None,
        bound=high,
        replicates=len(values),
        by_numbers=by_numbers,
        low=low,
        worst=None if worst is None else pairs.worsening[worst],
        worst_seed=worst,
        compared=tuple(sorted(pairs.worsening)),
        beyond=(sum(not gate.allows(value) for value in values), len(values)),
        floor=pairs.finest if tested and len(values) > 1 and deviation(values) < pairs.floor else None,
        divergences=tuple(Divergence(run.seed, run.draw, run.level, run.diverged_at) for run in level.fallen),
        absent=level.absent,
        alone=pairs.alone,
        undefined=tuple(sorted(undefined)),
        gaps=gaps,
        control=level.control,
        network_sparsity=level.size.network_sparsity,
        error=look.error,
        declared=look.declared,
        examples=pairs.examples,
        split_error=pairs.sampling.error if pairs.sampling else None,
    )


def _by_numbers(values: Sequence[float], bounds: tuple[float, float] | None, gate: Gate, tested: bool) -> Status:
    """What the worsenings alone say: by their mean, or where they are ``tested`` by its bounds."""
    if values and not tested:
        return Status.PASS if gate.allows(mean(values)) else Status.FAIL
    if bounds is None:
        return Status.INCONCLUSIVE
    low, high = bounds
    if gate.allows(high):
        return Status.PASS
    return Status.INCONCLUSIVE if gate.allows(low) else Status.FAIL


def _measures(run: Result, metric: str, split: Split, at: At) -> bool:
    """Whether there is any value at all, be it one that is not a number."""
    state = run.scores(at)
    return state is not None and metric in state.on(split)
