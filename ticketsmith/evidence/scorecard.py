"""The serving scorecard: what each sparsity costs to serve on the measured machine, and the best that may be deployed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ticketsmith.evidence.break_even import BreakEven, Point, break_even
from ticketsmith.evidence.serving import Benchmark, LayerSpeed, LoadTest
from ticketsmith.evidence.speed import Cell, Speed, fastest, order, rival
from ticketsmith.evidence.variants import DENSE, TICKET, ordered
from ticketsmith.evidence.verdicts import Status
from ticketsmith.prices import Rate

MILLION = 1e6


@dataclass(frozen=True)
class Group:
    """All that was measured in one cell: the same phase, precision, batch size and threads.

    ``points`` are all of it. ``dense`` is what speed-ups are against: the dense model on the strongest dense runtime.
    ``rows`` hold the fastest runtime of every level of every other variant, from the least to the most sparse.
    ``candidate`` is the fastest of those that may be deployed, whether or not it is faster than dense; one that surely is
    goes before one that is not. ``plain`` is the float32 dense model beside a cell of another precision. ``break_even``
    tells, for each runtime that skips zeros, from which sparsity on it is surely faster than ``dense``.
    """

    cell: Cell
    points: tuple[Speed, ...]
    dense: Speed | None
    rows: tuple[Speed, ...]
    candidate: Speed | None
    plain: Speed | None
    break_even: Mapping[str, BreakEven]

    @property
    def judged(self) -> bool:
        """Whether the gates judged these weights: rounded ones are others."""
        return self.cell.precision == "float32"

    @property
    def choice(self) -> Speed | None:
        """The candidate, if it is surely faster than dense."""
        return self.candidate if self.candidate is not None and self.candidate.low > 1.0 else None

    @property
    def own_gain(self) -> Speed | None:
        """The dense model on the candidate's runtime, if that alone is surely faster: not all of it is sparsity's doing."""
        runtime = self.candidate.runtime if self.candidate else None
        own = next((point for point in self.points if (point.variant, point.runtime) == (DENSE, runtime)), None)
        return own if own is not None and own.low > 1.0 else None


@dataclass(frozen=True)
class Layer:
    """One shape of one kind of layer alone, and from which sparsity on the sparse runtime is surely faster."""

    kind: str
    shape: str
    batch_size: int
    speeds: tuple[LayerSpeed, ...]
    break_even: BreakEven | None


@dataclass(frozen=True)
class Load:
    """Load tests that may be compared: the dense model's best, and that of what may be deployed; None without one."""

    dense: LoadTest | None
    ticket: LoadTest | None


@dataclass(frozen=True)
class Scorecard:
    """What serving costs on one machine. ``groups`` are ordered; the first leads (batch size 1, one thread, float32).

    ``subject`` is the variant that may be deployed, at the levels of ``deployable``: those that pass their gates on test,
    from the mildest up to the sweet spot. ``passing`` are such levels of every variant. The gates judged weights in
    float32, so that rounded ones may not be deployed on their word. ``statuses`` holds the conjunction of all gates on test
    by variant and level. ``unit`` is what throughput counts. ``rate`` is what an hour of the machine costs, None when
    nobody said.
    """

    subject: str
    unit: str
    device: str
    confidence: float
    machine: Mapping[str, str]
    groups: tuple[Group, ...]
    deployable: frozenset[int]
    statuses: Mapping[tuple[str, int], Status] = field(default_factory=dict)
    rate: Rate | None = None
    layers: tuple[Layer, ...] = ()
    loads: tuple[Load, ...] = ()
    load_tests: tuple[LoadTest, ...] = ()
    passing: Mapping[str, frozenset[int]] = field(default_factory=dict)

    @property
    def lead(self) -> Group | None:
        return self.groups[0] if self.groups else None

    @property
    def choice(self) -> Speed | None:
        """The best deployable choice: it passes its gates in float32, and is surely faster than the best dense in the lead.

        None where nothing is, and where the lead holds rounded weights alone, whose quality no gate judged.
        """
        return self.lead.choice if self.lead and self.lead.judged else None

    @property
    def pays(self) -> bool | None:
        """Whether there is such a choice; None where nothing that may be deployed was measured against dense."""
        if self.lead is None or self.lead.candidate is None or not self.lead.judged:
            return None
        return self.choice is not None

    @property
    def device_kind(self) -> str:
        """``cpu`` or ``cuda``, whichever of them it was."""
        return self.device.partition(":")[0]

    def may_deploy(self, speed: Speed) -> bool:
        """Whether the gates judged this very network, with these weights, and passed it."""
        return speed.variant == self.subject and speed.level in self.deployable and speed.precision == "float32"

    def status(self, speed: Speed) -> Status | None:
        """What the gates say of a network on test; None where they were not asked, as of dense."""
        return self.statuses.get((speed.variant, speed.level))

    def streams(self, threads: int) -> int:
        """How many calls the machine serves side by side: a CPU one on every ``threads`` cores, a GPU one."""
        cores = self.machine.get("cores", "")
        if not self.device.startswith("cpu") or not cores.isdigit():
            return 1
        return max(1, math.floor(int(cores) / max(1, threads)))

    def per_million(self, speed: Speed, ratio: float = 1.0) -> float | None:
        """The price of a million units on a fully used machine, were they ``ratio`` times as fast; None without a price."""
        if self.rate is None:
            return None
        return self.rate.price(MILLION * speed.seconds / ratio / self.streams(speed.threads))

    def price(self, group: Group, speed: Speed) -> float | None:
        """The price of a million units of a point of ``group``: that of dense there, over the measured speed-up."""
        if group.dense is None or speed.cell != group.cell:
            return self.per_million(speed)
        return self.per_million(group.dense, speed.speedup)


def scorecard(
    benchmark: Benchmark,
    points: Sequence[Speed],
    subject: str = TICKET,
    statuses: Mapping[tuple[str, int], Status] | None = None,
    passing: Mapping[str, frozenset[int]] | None = None,
) -> Scorecard:
    """The scorecard of a benchmark from its ``points`` (see ``speeds``); the rest is what the gates say."""
    passing = dict(passing or {})
    levels = passing.get(subject, frozenset())
    return Scorecard(
        subject=subject,
        unit=benchmark.unit,
        device=benchmark.device,
        confidence=benchmark.confidence,
        machine=dict(benchmark.machine),
        groups=tuple(_groups(points, subject, levels)),
        deployable=levels,
        statuses=dict(statuses or {}),
        rate=benchmark.machine_rate,
        layers=tuple(_layers(benchmark.layers)),
        loads=tuple(_loads(benchmark.loads, subject, levels)),
        load_tests=benchmark.loads,
        passing=passing,
    )


def _groups(points: Sequence[Speed], subject: str, deployable: frozenset[int]) -> Iterable[Group]:
    for cell in sorted({point.cell for point in points}, key=order):
        here = [point for point in points if point.cell == cell]
        plain = None if cell.precision == "float32" else rival(points, cell._replace(precision="float32"))
        yield Group(
            cell=cell,
            points=tuple(here),
            dense=rival(points, cell),
            rows=tuple(_rows(here)),
            candidate=fastest(p for p in here if p.variant == subject and p.level in deployable),
            plain=plain,
            break_even=_by_runtime(here, subject),
        )


def _rows(points: Sequence[Speed]) -> Iterable[Speed]:
    for variant in ordered(point.variant for point in points if point.variant != DENSE):
        own = [point for point in points if point.variant == variant]
        for level in sorted({point.level for point in own}):
            if best := fastest(point for point in own if point.level == level):
                yield best


def _by_runtime(points: Sequence[Speed], subject: str) -> dict[str, BreakEven]:
    evens = {}
    for runtime in sorted({point.runtime for point in points if not point.dense}):
        own = [point for point in points if point.runtime == runtime and point.variant in (DENSE, subject)]
        if even := break_even([Point(p.sparsity, p.speedup, p.low, p.high) for p in own]):
            evens[runtime] = even
    return evens


def _layers(measured: Sequence[LayerSpeed]) -> Iterable[Layer]:
    groups: dict[tuple[str, int, str], list[LayerSpeed]] = {}
    for layer in measured:
        groups.setdefault((layer.kind, layer.batch_size, layer.shape), []).append(layer)
    for (kind, batch_size, shape), own in groups.items():
        sure = [layer for layer in own if min(layer.speedup, layer.speedup_low) > 0]
        even = break_even([Point(p.sparsity, p.speedup, p.speedup_low, p.speedup_high) for p in sure])
        yield Layer(kind, shape, batch_size, tuple(sorted(own, key=lambda layer: layer.sparsity)), even)


def _loads(tests: Sequence[LoadTest], subject: str, deployable: frozenset[int]) -> Iterable[Load]:
    """One for each precision, number of threads and target; dense and ticket on whichever runtime serves most."""
    groups: dict[tuple[str, int, float, float], list[LoadTest]] = {}
    for test in tests:
        groups.setdefault((test.precision, test.threads, test.target_ms, test.percentile), []).append(test)
    for own in groups.values():
        dense = [test for test in own if test.variant == DENSE and test.dense]
        ticket = [test for test in own if test.variant == subject and test.level in deployable]
        yield Load(*(max(tests, key=lambda test: test.highest_rate, default=None) for tests in (dense, ticket)))
