"""Is the ticket special? Its controls at equal sparsity, compared by seed, and what that says of each level."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from ticketsmith.evidence import one_network
from ticketsmith.evidence.examples import Difference
from ticketsmith.evidence.resolution import Resolution, resolution
from ticketsmith.evidence.results import Metric, Result, Split
from ticketsmith.evidence.statistics import Interval, deviation, mean, t_interval
from ticketsmith.evidence.summarise import distinct, grouped, replicate_values
from ticketsmith.evidence.variants import TICKET, is_control, is_yardstick
from ticketsmith.evidence.verdicts import Gate, GatePolicy, Status, Verdict, by_place, level_status


@dataclass(frozen=True)
class Comparison:
    """A control, or another yardstick, against the method at one level.

    ``advantage`` is how much better the method is, in the metric's unit, paired by seed (positive: the method is better),
    with its two-sided interval. ``diverged`` are the control's seeds that have no quality and are left out; ``floor``:
    what the interval takes for their spread where their own is less than the metric can tell apart, or zero; else None.
    ``examples``: with one seed, the two networks example by example, from which the interval is; None where outcomes were not
    kept, or there are several seeds.
    """

    control: str
    level: int
    sparsity: float
    metric: str
    split: Split
    advantage: Interval
    diverged: tuple[int, ...] = ()
    floor: Resolution | None = None
    examples: Difference | None = None

    @property
    def significant(self) -> bool:
        """Whether the interval excludes zero; without one, never."""
        low, high = self.advantage.low, self.advantage.high
        return low is not None and high is not None and (low > 0 or high < 0)


class Regime(StrEnum):
    """What a level proves, after the regimes of Frankle et al. 2020 (arXiv 1912.05671, section 4).

    TRIVIAL: a control passes the gate too, so the ticket proves nothing. TICKET: the method passes and every control
    fails. LOST: the method fails. UNDECIDED: some gate is inconclusive, or there is no control. A control that diverged is
    inconclusive: it does not fail.
    """

    TRIVIAL = "trivial"
    TICKET = "ticket"
    LOST = "lost"
    UNDECIDED = "undecided"


def compare(
    results: Sequence[Result], metric: Metric, split: Split, policy: GatePolicy, variant: str = TICKET
) -> list[Comparison]:
    """Every yardstick of ``variant`` at every level where the two share at least one seed; draws are averaged first.

    With one seed, and a ``policy`` that judges one network, by its examples.
    """
    at = policy.at
    levels = grouped(results)
    finest = resolution(results, metric, split)
    sign = 1.0 if metric.higher_is_better else -1.0
    comparisons = []
    for (control, level), rivals in levels.items():
        method = levels.get((variant, level), [])
        if not is_yardstick(control, variant) or not method:
            continue
        ours, theirs = (replicate_values(runs, metric.name, split, at) for runs in (method, rivals))
        seeds = [seed for seed in distinct(method, rivals) if seed in ours and seed in theirs]
        if not seeds:
            continue
        gains = [sign * (ours[seed] - theirs[seed]) for seed in seeds]
        floor = finest.floor(gains, max(abs(value[seed]) for value in (ours, theirs) for seed in seeds))
        interval, examples = t_interval(gains, policy.confidence, floor), None
        if policy.method == "examples":
            two_sided = replace(policy, confidence=(1 + policy.confidence) / 2)
            examples = one_network.worsening(rivals, method, Gate(metric.name, max_drop=0.0), finest, two_sided, split)
        if examples is not None:
            interval = Interval(examples.estimate, examples.low, examples.high, 1)
        comparisons.append(
            Comparison(
                control,
                level,
                mean([run.sparsity for run in rivals]),
                metric.name,
                split,
                interval,
                diverged=tuple(sorted({run.seed for run in rivals if run.diverged})),
                floor=finest if len(gains) > 1 and deviation(gains) < floor else None,
                examples=examples,
            )
        )
    return comparisons


def regimes(verdicts: Iterable[Verdict], variant: str = TICKET) -> dict[int, Regime]:
    """The regime of every level of ``variant``, from the verdicts of one split."""
    statuses: dict[str, dict[int, Status]] = {}
    for place, gates in by_place(verdicts).items():
        statuses.setdefault(place[0], {})[place[1]] = level_status(gates)
    controls = [levels for name, levels in statuses.items() if is_control(name, variant)]
    return {
        level: _regime(status, {levels[level] for levels in controls if level in levels})
        for level, status in sorted(statuses.get(variant, {}).items())
    }


def _regime(method: Status, controls: Collection[Status]) -> Regime:
    if method is Status.FAIL:
        return Regime.LOST
    if method is Status.PASS and Status.PASS in controls:
        return Regime.TRIVIAL
    if method is Status.PASS and controls == {Status.FAIL}:
        return Regime.TICKET
    return Regime.UNDECIDED
