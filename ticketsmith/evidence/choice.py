"""Prune, quantise, both or neither? Candidates judged as they are served, and the fastest that may be deployed.

Every candidate is asked the experiment's own gates, paired with the sealed dense network of its replicate in float32. The
rival of all is the fastest dense candidate of any precision that passes. A sparse one is chosen only where it is surely
faster than that; a rounded one only where it is surely faster than dense in float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from ticketsmith.evidence.break_even import BreakEven, Point, break_even
from ticketsmith.evidence.candidates import Entry, Judgement, Lack, Memory, RaceCell, Served
from ticketsmith.evidence.gates import judge
from ticketsmith.evidence.resolution import Resolution, resolution
from ticketsmith.evidence.results import Metric, Result, Scores, Split
from ticketsmith.evidence.rounds import Bootstrap, Ratio, Rounds
from ticketsmith.evidence.summarise import summarise
from ticketsmith.evidence.sweet_spot import walk
from ticketsmith.evidence.variants import DENSE
from ticketsmith.evidence.verdicts import GatePolicy, Status, Summary, Verdict, by_level, level_status
from ticketsmith.prices import Rate

Kind = Literal["neither", "quantise", "prune", "both"]
KINDS: tuple[Kind, ...] = ("neither", "quantise", "prune", "both")
"""From the simplest to deploy on: the next is taken only where it is surely faster."""

FLOAT32 = "float32"
MIXED = "mixed"
"""Of a file whose layers have precisions of their own."""

MILLION = 1e6


@dataclass(frozen=True, eq=False)
class Candidate:
    """One network in one form, of all replicates.

    ``calls`` is how many examples each call was given when it was judged, 0 where that makes no difference. ``verdicts``
    are those of the gates on test and ``validation`` on validation; ``passes``: so do all milder levels of this form that
    were judged, too (a fixed sequence of tests). ``quality`` is the mean of the experiment's metric on test.
    """

    variant: str
    level: int
    form: str
    calls: int
    judgements: tuple[Judgement, ...]
    verdicts: tuple[Verdict, ...]
    validation: tuple[Verdict, ...]
    passes: bool
    quality: Summary | None

    @property
    def sparsity(self) -> float:
        return sum(one.sparsity for one in self.judgements) / len(self.judgements)

    @property
    def runtime(self) -> str:
        return self.judgements[0].runtime

    @property
    def precision(self) -> str:
        return self.judgements[0].precision

    @property
    def bytes(self) -> float:
        """On disk, the mean over replicates."""
        return sum(one.bytes for one in self.judgements) / len(self.judgements)

    @property
    def in_vain(self) -> bool:
        """Whether it is a sparse network on a runtime that multiplies zeros: as fast as dense, and no better."""
        return self.variant != DENSE and self.judgements[0].dense

    @property
    def status(self) -> Status:
        """The conjunction of its gates on test."""
        return level_status(self.verdicts)

    @property
    def kind(self) -> Kind:
        low = self.precision != FLOAT32
        if self.variant == DENSE:
            return "quantise" if low else "neither"
        return "both" if low else "prune"

    def values(self, metric: str) -> dict[int, float]:
        """A metric on test by seed, of those that have a value."""
        values = ((one.seed, one.test.get(metric)) for one in self.judgements)
        return {seed: value for seed, value in values if value is not None}


@dataclass(frozen=True, eq=False)
class Time:
    """How long calls of a candidate took in one setting; ``memory`` is what its file takes to load and to serve, if known."""

    candidate: Candidate
    entry: Entry
    memory: Memory | None = None

    @cached_property
    def rounds(self) -> Rounds:
        """Milliseconds a call, ``[rounds]``."""
        return np.asarray(self.entry.rounds_ms)

    @property
    def median_ms(self) -> float:
        return float(np.median(self.rounds))

    def percentile(self, percent: float) -> float:
        """Milliseconds that so many per cent of the rounds stayed below."""
        return float(np.percentile(self.rounds, percent))


@dataclass(frozen=True, eq=False)
class Setting:
    """What one phase, batch size and number of threads says.

    ``times`` are all candidates that were timed, the fastest first. ``best`` is the fastest of each kind that passes, but for
    what is sparse in vain. ``rival`` is the fastest dense candidate of any precision that passes, ``choice`` what to deploy:
    the simplest kind that no other is surely faster than; None where none passes. ``break_even`` tells by form that skips
    zeros from which sparsity of the subject on it is surely faster than the rival.
    """

    batch_size: int
    threads: int
    units: float
    resolution: float
    confidence: float
    times: tuple[Time, ...]
    subject: str
    phase: str = ""

    @property
    def passing(self) -> tuple[Time, ...]:
        return tuple(time for time in self.times if time.candidate.passes)

    @cached_property
    def best(self) -> Mapping[Kind, Time]:
        best: dict[Kind, Time] = {}
        for time in self.passing:
            if not time.candidate.in_vain:
                best.setdefault(time.candidate.kind, time)
        return best

    @property
    def rival(self) -> Time | None:
        return next((time for time in self.passing if time.candidate.variant == DENSE), None)

    @cached_property
    def choice(self) -> Time | None:
        choice: Time | None = None
        for kind in KINDS:
            time = self.best.get(kind)
            if time is not None and (choice is None or self.ratio(choice, time).low > 1.0):
                choice = time
        return choice

    @cached_property
    def undecided(self) -> Time | None:
        """Where dense is to be deployed: the fastest sparse candidate that is surely faster, and of which the gates say neither.
        With more seeds, or where the budget did not allow to judge all, it may yet pass."""
        choice = self.choice
        if choice is None or choice.candidate.variant != DENSE:
            return None
        return next(
            (
                time
                for time in self.times
                if time.candidate.variant != DENSE
                and not time.candidate.in_vain
                and time.candidate.status == "INCONCLUSIVE"
                and self.ratio(choice, time).low > 1.0
            ),
            None,
        )

    def within(self, time: Time) -> Time | None:
        """The fastest dense candidate that passes in the same precision."""
        same = (one for one in self.passing if one.candidate.variant == DENSE)
        return next((one for one in same if one.candidate.precision == time.candidate.precision), None)

    def ratio(self, reference: Time, time: Time) -> Ratio:
        """How many times as fast ``time`` is as ``reference``, of rounds that were run side by side."""
        if time is reference:
            return Ratio(1.0, 1.0, 1.0)
        return self.compare(reference.rounds, time.rounds)

    def compare(self, reference: Rounds, rounds: Rounds) -> Ratio:
        """The same of milliseconds a call, ``[rounds]``."""
        return self._bootstrap.ratio(reference, rounds).widened(self.resolution)

    def latency(self, time: Time) -> Ratio:
        """The median of a call, ms, with its interval."""
        return self._bootstrap.median(time.rounds).widened(self.resolution)

    @cached_property
    def break_even(self) -> Mapping[str, BreakEven]:
        rival, evens = self.rival, {}
        own = [time for time in self.times if not time.candidate.judgements[0].dense]
        for form in sorted({time.candidate.form for time in own}) if rival is not None else ():
            assert rival is not None
            points = []
            for time in own:
                if time.candidate.form == form and time.candidate.variant in (DENSE, self.subject):
                    ratio = self.ratio(rival, time)
                    points.append(Point(time.candidate.sparsity, ratio.median, ratio.low, ratio.high))
            if even := break_even(points):
                evens[form] = even
        return evens

    @cached_property
    def _bootstrap(self) -> Bootstrap:
        return Bootstrap(min(len(time.rounds) for time in self.times), self.confidence)


@dataclass(frozen=True)
class Choice:
    """What the candidates of an experiment say together. ``settings`` are ordered; the first one leads.

    ``finest`` is the least difference that the metric can tell on test. ``rate`` is what an hour of the machine costs, None
    when nobody said.
    """

    candidates: tuple[Candidate, ...]
    settings: tuple[Setting, ...]
    unit: str
    confidence: float
    machine: Mapping[str, str]
    subject: str
    finest: Resolution
    lacks: tuple[Lack, ...] = ()
    rate: Rate | None = None

    @property
    def metric(self) -> Metric:
        """The experiment's own."""
        return self.finest.metric

    @property
    def lead(self) -> Setting:
        return self.settings[0]

    @property
    def verdict(self) -> Kind | None:
        """Of the setting that leads; None where no candidate passes its gates."""
        choice = self.lead.choice
        return None if choice is None else choice.candidate.kind

    def streams(self, threads: int) -> int:
        """How many calls the machine serves side by side: one on every ``threads`` cores."""
        cores = self.machine.get("cores", "")
        return max(1, int(cores) // max(1, threads)) if cores.isdigit() else 1

    def seconds(self, setting: Setting, milliseconds: float) -> float:
        """The machine's time that one unit takes, where it is fully used."""
        return milliseconds / 1000 / setting.units / self.streams(setting.threads)

    def per_million(self, setting: Setting, milliseconds: float) -> float | None:
        """The price of a million units whose calls take so long, on a fully used machine; None without a price."""
        return None if self.rate is None else self.rate.price(MILLION * self.seconds(setting, milliseconds))


def choose(
    served: Served | None, results: Sequence[Result], policy: GatePolicy, metric: Metric, subject: str
) -> Choice | None:
    """The choice among what a store holds of candidates; None where nothing was timed.

    ``results`` are the experiment's sealed runs, whose dense ones are the reference of every gate. Judgements of runs that
    are not among them are left out. A candidate is timed as the very file that was judged, or not at all.
    """
    if served is None or not any(cell.entries for cell in served.race.cells):
        return None
    race = served.race
    candidates = tuple(_judged(served, results, policy, metric))
    memories = {(one.form, one.sha256): one for one in race.memories}
    settings = [_setting(cell, candidates, race.confidence, subject, memories) for cell in race.cells]
    settings = sorted((one for one in settings if one.times), key=_order)
    if not settings:
        return None
    finest = resolution([run for run in results if run.variant == DENSE], metric, "test")
    return Choice(
        candidates,
        tuple(settings),
        race.unit,
        race.confidence,
        race.machine,
        subject,
        finest,
        race.lacks,
        race.machine_rate,
    )


def _judged(served: Served, results: Sequence[Result], policy: GatePolicy, metric: Metric) -> Iterable[Candidate]:
    # what is served are the weights after the last step, whichever state the recipe's gates judge
    policy = replace(policy, at="final")
    runs = {run.key: run for run in results}
    dense = [run for run in results if run.variant == DENSE]
    groups: dict[tuple[str, str, int], list[Judgement]] = {}
    for one in served.judgements:
        if one.key in runs:
            groups.setdefault((one.variant, one.form, one.calls), []).append(one)
    for (variant, form, calls), own in sorted(groups.items()):
        name = f"{variant} as {form}"
        measured = [_result(one, runs[one.key], name, served) for one in own]
        verdicts: dict[Split, Mapping[int, Sequence[Verdict]]] = {
            split: by_level(judge([*dense, *measured], policy, split), name) for split in ("test", "validation")
        }
        passed = walk([v for level in verdicts["test"].values() for v in level], name).levels
        summaries = summarise([*dense, *measured], [metric.name], "test", "final", policy.confidence)
        quality = {summary.level: summary for summary in summaries if summary.variant == name}
        for level in sorted({one.level for one in own}):
            yield Candidate(
                variant, level, form, calls,
                tuple(sorted((one for one in own if one.level == level), key=lambda one: one.seed)),
                tuple(verdicts["test"].get(level, ())), tuple(verdicts["validation"].get(level, ())),
                level in passed, quality.get(level),
            )  # fmt: skip


def _result(one: Judgement, run: Result, name: str, served: Served) -> Result:
    """The sealed run, had it scored what the candidate did."""
    validation, test = (
        {metric: math.nan if value is None else value for metric, value in split.items()}
        for split in (one.validation, one.test)
    )
    return replace(
        run,
        variant=name,
        path=f"{run.path} as {one.form}",
        final=Scores(run.steps, validation, test),
        early_stop=None,
        curve=(),
        weights=f"{one.form} {run.weights}" if run.weights else "",
        outcomes=served.outcomes.get(one.outcomes),
    )


def _setting(
    cell: RaceCell,
    candidates: Sequence[Candidate],
    confidence: float,
    subject: str,
    memories: Mapping[tuple[str, str], Memory],
) -> Setting:
    by_place = {(one.variant, one.level, one.form, one.calls): one for one in candidates}
    times = []
    for entry in cell.entries:
        for calls in (0, cell.batch_size):
            candidate = by_place.get((entry.variant, entry.level, entry.form, calls))
            if candidate and any(one.sha256 == entry.sha256 for one in candidate.judgements):
                times.append(Time(candidate, entry, memories.get((entry.form, entry.sha256))))
    times.sort(key=lambda time: time.median_ms)
    return Setting(
        cell.batch_size, cell.threads, cell.units, cell.resolution, confidence, tuple(times), subject, cell.phase
    )


def _order(one: Setting) -> tuple[int, int, int]:
    """As cells of the benchmark: of a model that generates, the time of a token leads."""
    phases = ("decode", "prefill", "")
    return phases.index(one.phase) if one.phase in phases else len(phases), one.batch_size, one.threads
