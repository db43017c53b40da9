"""The quality gates: is a pruned level still as good as dense, within a margin that was set beforehand?

Two methods. ``point`` compares the mean worsening with the margin and knows no uncertainty. ``non-inferiority`` is the
paired one-sided t test used where "not worse by more than a margin" has to be shown rather than assumed: FAIL and PASS
are both claims at the policy's confidence, and what the replicates cannot decide is INCONCLUSIVE. So is a level that
lacks a planned replicate, by either method; a replicate that diverged is no missing one: it fails its level, and all
beyond.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ticketsmith.errors import TicketSmithError
from ticketsmith.evidence import words
from ticketsmith.evidence.blocked import blocker
from ticketsmith.evidence.replicates import distinct
from ticketsmith.evidence.resolution import Resolution, resolution
from ticketsmith.evidence.results import At, Metric, Place, Result, Split
from ticketsmith.evidence.size import size_of
from ticketsmith.evidence.statistics import deviation, mean, one_sided_bounds, replicates_needed
from ticketsmith.evidence.summarise import grouped, measured_value, replicate_values
from ticketsmith.evidence.variants import DENSE, is_control, subject
from ticketsmith.evidence.verdicts import Gate, GatePolicy, Status, Verdict

# A drop of exactly the margin passes: 98.9 - 96.9 is 2.0000000000000142 in binary, and nobody means
# that by "more than".
TOLERANCE = 1e-9


@dataclass(frozen=True)
class _Level:
    """One level of one variant, and what its verdicts rest on.

    ``fallen`` are the runs that diverged here or, of a method, at a milder level. ``missing``: planned seeds without a run,
    but for those that can never get one; ``blocked`` says why where the cause is a run of another method.
    ``control``: it is no method, but what a method is held against.
    """

    runs: Sequence[Result]
    fallen: Sequence[Result]
    missing: Sequence[int]
    blocked: Sequence[str]
    control: bool


@dataclass(frozen=True)
class _Pairs:
    """Worsenings against dense by seed (positive is worse), which of them are replicates, and what had to be left out.

    ``alone`` are seeds without a dense run; ``gaps`` say what else of dense cannot be compared with.
    ``floor`` is the least spread that is believed, in the terms of the gate, and ``finest`` what it is.
    """

    worsening: Mapping[int, float]
    differing: tuple[int, ...]
    floor: float
    finest: Resolution
    alone: tuple[int, ...]
    gaps: tuple[str, ...]

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
    metrics = {name: metric for run in results for name, metric in run.metrics.items()}
    for gate in policy.gates:
        if results and gate.metric not in metrics:
            raise TicketSmithError(
                f"the gate on {gate.metric!r} cannot be judged: the runs measure {words.listed(sorted(metrics))}"
            )
    resolutions = {gate.metric: resolution(results, metrics[gate.metric], split) for gate in policy.gates if results}
    levels = grouped(results)
    dense = levels.get((DENSE, 0), [])
    wanted = _by_level(planned) if planned is not None else None
    seeds = {run.seed for run in results}
    about = subject(variant for variant, _ in levels)
    diverged = [run for run in results if run.diverged]
    fallen: dict[str, list[Result]] = {}
    verdicts = []
    for (variant, level), runs in levels.items():
        if variant == DENSE:
            continue
        control, here = is_control(variant, about), [run for run in runs if run.diverged]
        if not control:
            here = fallen[variant] = fallen.get(variant, []) + here
        present = {run.seed for run in runs}
        if wanted is None:
            expected, lacking = seeds, seeds - present
        else:
            places = wanted.get((variant, level), set())
            expected = {seed for seed, _ in places} | present
            lacking = {seed for seed, _ in places - {(run.seed, run.draw) for run in runs}}
        lacking -= {run.seed for run in here}
        causes = {seed: blocker((variant, level, seed, 0), diverged) for seed in sorted(lacking)}
        tickets = [seed for seed, run in causes.items() if run is not None and run.variant != DENSE]
        place = _Level(
            runs,
            here,
            missing=[seed for seed, run in causes.items() if run is None],
            blocked=[f"the ticket of {words.seeds(tickets)}, which it needs, diverged"] if tickets else [],
            control=control,
        )
        for gate in policy.gates:
            pairs = _pair(runs, dense, expected, gate, resolutions[gate.metric], policy, split)
            verdicts.append(_verdict(place, pairs, gate, metrics[gate.metric], policy, split))
    return verdicts


def _by_level(planned: Collection[Place]) -> dict[tuple[str, int], set[tuple[int, int]]]:
    """The seeds and draws that each level of each variant should have."""
    wanted: dict[tuple[str, int], set[tuple[int, int]]] = {}
    for variant, level, seed, draw in planned:
        wanted.setdefault((variant, level), set()).add((seed, draw))
    return wanted


def level_status(verdicts: Iterable[Verdict]) -> Status:
    """The conjunction of one level's gates: FAIL before INCONCLUSIVE before PASS; INCONCLUSIVE without a gate.

    No correction for several gates is due: a level passes only if every one of them does (intersection-union test,
    Berger 1982).
    """
    statuses = {verdict.status for verdict in verdicts}
    if Status.FAIL in statuses:
        return Status.FAIL
    return Status.PASS if statuses == {Status.PASS} else Status.INCONCLUSIVE


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
    return _Pairs(
        worsening,
        differing,
        finest.floor([worsening[seed] for seed in differing], magnitude, scale),
        finest,
        alone=tuple(sorted(here.keys() - {run.seed for run in dense})),
        gaps=tuple(_dense_gaps(dense, there, sorted(both - worsening.keys()), seeds, gate, policy.at, split)),
    )


def _dense_gaps(
    dense: Sequence[Result],
    there: Mapping[int, float],
    zero: Sequence[int],
    seeds: Collection[int],
    gate: Gate,
    at: At,
    split: Split,
) -> list[str]:
    """Why dense runs that are there give nothing to compare these seeds with. ``there`` are their finite values."""
    own = [run for run in dense if run.seed in seeds and run.seed not in there]
    fallen = [run.seed for run in own if run.diverged]
    unmeasured = [run.seed for run in own if not run.diverged and not _measures(run, gate.metric, split, at)]
    undefined = sorted({run.seed for run in own} - {*fallen, *unmeasured})
    notes = []
    if fallen:
        notes.append(f"the dense {'run' if len(fallen) == 1 else 'runs'} of {words.seeds(sorted(fallen))} diverged")
    if unmeasured:
        notes.append(f"dense {gate.metric} was not measured for {words.seeds(sorted(unmeasured))}")
    if undefined:
        notes.append(f"dense {gate.metric} is not a finite number for {words.seeds(undefined)}")
    if zero:
        notes.append(f"a relative change from a dense value of 0 is not defined ({words.seeds(zero)})")
    return notes


def _verdict(level: _Level, pairs: _Pairs, gate: Gate, metric: Metric, policy: GatePolicy, split: Split) -> Verdict:
    values = pairs.values
    tested = policy.method == "non-inferiority"
    bounds = one_sided_bounds(values, policy.confidence, pairs.floor) if tested else None
    missing = tuple(sorted({*level.missing, *pairs.alone}))
    sound = [run for run in level.runs if not run.diverged]
    unmeasured = [run for run in sound if not _measures(run, gate.metric, split, policy.at)]
    undefined = [
        run for run in sound if run not in unmeasured and measured_value(run, gate.metric, split, policy.at) is None
    ]
    gaps = _gaps(level, pairs, unmeasured, gate)
    if not values:
        status, reason = Status.INCONCLUSIVE, "nothing to compare"
    elif not tested:
        status, reason = _point(values, gate, metric)
    else:
        status, reason = _non_inferiority(values, bounds, gate, metric, policy.confidence, pairs)
    if level.fallen or undefined:
        reason = "; ".join(filter(None, (_diverged(level), _undefined(undefined, gate))))
        status = Status.INCONCLUSIVE if level.control else Status.FAIL
    elif missing or gaps:
        status = Status.INCONCLUSIVE
    size = size_of(level.runs)
    worst = max(pairs.worsening, key=lambda seed: pairs.worsening[seed], default=None)
    told = [reason, _repeated(pairs), *_missing(level, pairs), *gaps]
    return Verdict(
        variant=level.runs[0].variant,
        level=level.runs[0].level,
        sparsity=size.sparsity,
        split=split,
        gate=gate,
        status=status,
        estimate=mean(values) if values else None,
        bound=bounds[1] if bounds and not level.fallen else None,
        replicates=len(values),
        reason="; ".join(part for part in told if part),
        seeds=len(pairs.worsening),
        worst=None if worst is None else pairs.worsening[worst],
        worst_seed=worst,
        diverged=tuple(sorted({run.seed for run in level.fallen})),
        missing=missing,
        undefined=tuple(sorted({run.seed for run in undefined})),
        gaps=tuple(gaps),
        floored=tested and len(values) > 1 and deviation(values) < pairs.floor,
        network_sparsity=size.network_sparsity,
    )


def _measures(run: Result, metric: str, split: Split, at: At) -> bool:
    """Whether there is any value at all, be it one that is not a number."""
    state = run.measured(at)
    return state is not None and metric in state.on(split)


def _gaps(level: _Level, pairs: _Pairs, unmeasured: Sequence[Result], gate: Gate) -> list[str]:
    """What cannot be compared, beside runs that are missing."""
    notes = [*level.blocked, *pairs.gaps]
    if unmeasured:
        notes.append(f"{gate.metric} was not measured for {words.seeds(sorted({run.seed for run in unmeasured}))}")
    return notes


def _missing(level: _Level, pairs: _Pairs) -> list[str]:
    """Which runs are missing."""
    notes = []
    if level.missing:
        notes.append(f"{words.plural(len(level.missing), 'replicate')} missing ({words.seeds(level.missing)})")
    if pairs.alone:
        notes.append(f"no dense run to compare with for {words.seeds(pairs.alone)}")
    return notes


def _repeated(pairs: _Pairs) -> str:
    """That several seeds gave one network; empty where they did not."""
    if len(pairs.differing) == len(pairs.worsening):
        return ""
    seeds = words.seeds(sorted(pairs.worsening))
    if len(pairs.differing) == 1:
        return f"{seeds} are bit for bit equal: they are one replicate"
    return f"some of {seeds} are bit for bit equal: they are {len(pairs.differing)} replicates"


def _point(worsening: Sequence[float], gate: Gate, metric: Metric) -> tuple[Status, str]:
    estimate = mean(worsening)
    status = Status.PASS if estimate <= gate.margin + TOLERANCE else Status.FAIL
    return status, (
        f"{words.worse(gate, metric, estimate)} on average, margin {words.margin(gate, metric)} "
        f"({words.plural(len(worsening), 'seed')}: a point estimate, no confidence)"
    )


def _non_inferiority(
    worsening: Sequence[float],
    bounds: tuple[float, float] | None,
    gate: Gate,
    metric: Metric,
    confidence: float,
    pairs: _Pairs,
) -> tuple[Status, str]:
    estimate = words.worse(gate, metric, mean(worsening))
    margin = f"margin {words.margin(gate, metric)}"
    if bounds is None:
        return Status.INCONCLUSIVE, f"{estimate}, {margin}; one replicate has no spread: at least 2 are needed to tell"
    low, high = bounds
    sure = f"{estimate} on average; with {words.percent(confidence)} confidence"
    floor = ""
    if deviation(worsening) < pairs.floor:
        floor = f"; the seeds {pairs.finest.need}: their spread is taken as {pairs.finest}"
    if high <= gate.margin + TOLERANCE:
        limit = "at most" if high >= 0 else "at least"
        return Status.PASS, f"{sure} {limit} {words.worse(gate, metric, high)}, {margin}{floor}"
    if low > gate.margin + TOLERANCE:
        return Status.FAIL, f"{sure} at least {words.worse(gate, metric, low)}, {margin}{floor}"
    span = f"between {words.worsening(gate, metric, low)} and {words.worse(gate, metric, high)}"
    needed = replicates_needed(worsening, gate.margin, confidence, pairs.floor)
    more = f"about {needed} replicates would decide it if mean and spread stay" if needed else "more replicates needed"
    return Status.INCONCLUSIVE, f"{sure} {span}, which holds the {margin}; {more}{floor}"


def _diverged(level: _Level) -> str:
    """Who diverged, where and when; empty when nobody did."""
    if not level.fallen:
        return ""
    names = []
    for run in level.fallen:
        draw = f" draw {run.draw}" if run.draw else ""
        where = f" at level {run.level}," if run.level != level.runs[0].level else ""
        when = f" at iteration {run.diverged_at:,}" if run.diverged_at is not None else ""
        names.append(f"seed {run.seed}{draw}{where}{when}")
    says = ": a control that diverged says nothing of quality" if level.control else ""
    return f"diverged: {words.listed(names)}{says}"


def _undefined(runs: Sequence[Result], gate: Gate) -> str:
    """Whose metric is no number; empty when everybody's is."""
    if not runs:
        return ""
    return f"{gate.metric} is not a finite number for {words.seeds(sorted({run.seed for run in runs}))}"
