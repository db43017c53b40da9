"""How often TicketSmith claims too much: its own gates, search and headline on experiments whose truth is known.

    python -m benchmarks.false_claims --experiments 10000 --output false_claims.md

Every experiment is synthetic: a true curve of worsening over levels, in margins, and noise over seeds. A claim is false when
the sweet spot's true mean worsening is beyond the margin; what is said of single seeds there is false when more of them lie
beyond the margin than the report says there may be. Where there are several looks, one false claim at any of them counts.
Each row has its promise; it is broken when the 95 % Clopper-Pearson interval of a rate lies above it, and then the command
ends with status 1. ``level`` is the mean level claimed, 0 where none; ``true`` the last one within the margin.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import astuple, dataclass, replace
from functools import lru_cache, partial
from itertools import takewhile
from math import e, sqrt
from pathlib import Path
from typing import cast
from zlib import crc32

import numpy as np
from numpy.random import Generator
from scipy.special import betaincinv

from ticketsmith.evidence.findings import conclude
from ticketsmith.evidence.gates import judge
from ticketsmith.evidence.looks import promise
from ticketsmith.evidence.outcomes import Outcomes, SealedOutcomes
from ticketsmith.evidence.results import LayerDensity, Metric, Place, Result, Scores
from ticketsmith.evidence.search import Terms, search
from ticketsmith.evidence.sweet_spot import find, share_beyond, walk
from ticketsmith.evidence.verdicts import TOLERANCE, Gate, GatePolicy, SweetSpot
from ticketsmith.report.sentences.headline import headline

METRIC = Metric("accuracy", higher_is_better=True, unit="%")
MARGIN = 1.0
POLICY = GatePolicy((Gate("accuracy", max_drop=MARGIN),))
DRAWS = 200_000
"""Seeds that are drawn to know what share of all lies beyond the margin."""
SHARED = 0.5
"""The part of a seed's variance that all of its levels share."""
PARTS = 4
"""Of a row, which have their own random numbers, whatever the number of processes."""
HEADLINES = 500
"""One experiment in so many is read by its headline too, which must name the sweet spot's share, or claim nothing."""

CURVES = {
    "at the margin": [1.0001] * 8,
    "cliff": [0.0, 0.0, 0.05, 0.1, 0.3, 1.6, 4.0, 8.0],
    "slope": [0.2, 0.4, 0.6, 0.8, 1.02, 1.2, 1.4, 1.6],
    "plateau": [0.0, 0.5, 1.05, 1.05, 1.05, 1.05, 1.05, 1.05],
    "dip and recovery": [0.0, 0.3, 1.3, 0.4, 0.2, 0.5, 1.1, 3.0],
    "two cliffs": [0.0, 0.0, 1.0001, 0.5, 0.5, 1.0001, 0.8, 4.0],
    "late recovery": [0.0, 0.9, 1.0001, 1.0001, 1.0001, 0.0, 0.0, 0.0],
    "nothing is lost": [0.0] * 8,
}


Noise = Callable[[Generator, tuple[int, ...]], np.ndarray]


def normal(random: Generator, shape: tuple[int, ...]) -> np.ndarray:
    return random.standard_normal(shape)


def heavy(random: Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Student's t with 3 degrees of freedom, variance 1."""
    return random.standard_t(3, shape) / sqrt(3)


def skewed(random: Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Log-normal: a few seeds lose much more than most. Mean 0, variance 1."""
    return (np.exp(random.standard_normal(shape)) - sqrt(e)) / sqrt((e - 1) * e)


def failing(share: float, random: Generator, shape: tuple[int, ...]) -> np.ndarray:
    """A ``share`` of seeds loses twenty spreads of the others. Mean 0, variance 1."""
    loss = 10.0 * (random.random(shape) < share) + 0.5 * random.standard_normal(shape)
    return (loss - 10 * share) / sqrt(100 * share * (1 - share) + 0.25)


FAILURES = {f"{100 * share:.0f} % of seeds fail": partial(failing, share) for share in (0.2, 0.4, 0.64)}
NOISES: dict[str, Noise] = {"normal": normal, "heavy": heavy, "skewed": skewed, **FAILURES}


@dataclass(frozen=True)
class Row:
    """One line of the table. ``looks`` are numbers of seeds at which verdicts are read, ``declared`` or not; where they are
    not ``remembered``, each is taken for the only one.

    ``spread`` of a seed's difference in margins, ``growth`` of it from the first to the last level. ``examples`` > 0: counts
    of errors of so many, near 100 %, instead of ``noise``; ``drawn``: these are drawn anew for each experiment, the same for
    all of its networks, which keep their outcomes, or only their accuracies where they are not ``kept``. ``step`` > 0: a
    search that merges so many rounds at first.
    """

    curve: str
    noise: str = "normal"
    looks: tuple[int, ...] = (3,)
    declared: bool = True
    remembered: bool = True
    spread: float = 0.5
    growth: float = 1.0
    examples: int = 0
    drawn: bool = False
    kept: bool = True
    shared_tail: bool = False
    step: int = 0

    @property
    def name(self) -> str:
        parts = [self.curve, self.noise if not self.examples else f"{self.examples} examples {self.which}"]
        if self.shared_tail:
            parts.append("by whole seeds")
        if self.growth != 1.0:
            parts.append(f"spread x{self.growth:g} over levels")
        if self.step:
            parts.append(f"search by steps of {self.step}")
        seeds = "/".join(map(str, self.looks))
        how = "" if self.declared else ", undeclared" if self.remembered else ", each at the full 5 %"
        parts.append(f"{seeds} seeds" if len(self.looks) == 1 else f"looks at {seeds}{how}")
        return ", ".join(parts)

    @property
    def which(self) -> str:
        """Which examples they are."""
        alone = "" if self.kept else ", outcomes not kept"
        return f"drawn anew{alone}" if self.drawn else "near 100 %"

    @property
    def error(self) -> float:
        """The rate of false claims that is promised of anything."""
        return 1 - promise(POLICY.confidence, self.declared or len(self.looks) == 1)

    @property
    def promise(self) -> float | None:
        """That of claims on the mean; None where nothing is promised: no test on so few seeds could hold it, or none is made."""
        rare = self.noise == "skewed" or self.noise in FAILURES
        return None if rare or not self.remembered or not self.kept else self.error


def rows() -> Iterator[Row]:
    for n in (2, 3, 5, 10):
        yield Row("at the margin", looks=(n,))
        yield Row("at the margin", "heavy", (n,))
        for growth in (4.0, 0.25):
            yield Row("at the margin", looks=(n,), growth=growth)
        yield Row("at the margin", looks=(n,), examples=360)
    for n in (3, 5):
        for curve in list(CURVES)[1:]:
            yield Row(curve, looks=(n,))
        yield Row("plateau", "heavy", (n,))
        yield Row("slope", looks=(n,), growth=4.0)
        yield Row("slope", looks=(n,), examples=1000)
    rare, often, most = FAILURES
    for n in (3, 10):
        for whole in (False, True):
            for noise in ("skewed", rare, often, most):
                yield Row("at the margin", noise, (n,), shared_tail=whole)
    for n in (2, 3, 5, 10):
        yield Row("at the margin", looks=(n,), examples=1000, drawn=True)
    yield Row("at the margin", looks=(5,), examples=1000, drawn=True, kept=False)
    yield Row("cliff", looks=(3,), examples=1000, drawn=True)
    yield Row("at the margin", looks=(3, 5, 8), examples=1000, drawn=True)
    for curve in CURVES:
        yield Row(curve, looks=(3, 5, 8))
    yield Row("at the margin", looks=(3, 5, 10, 20))
    yield Row("at the margin", "heavy", (3, 5, 8))
    for noise in (rare, often, most):
        yield Row("at the margin", noise, (3, 5, 8), shared_tail=True)
    for curve in ("at the margin", "plateau", "slope"):
        yield Row(curve, looks=(3, 4, 5, 6), declared=False)
    yield Row("at the margin", looks=(2, 3, 4, 5, 6, 7, 8), declared=False)
    for looks in ((3, 4, 5), (3, 4, 5, 6, 7, 8, 9, 10)):
        yield Row("at the margin", looks=looks, declared=False, remembered=False)
    for curve in CURVES:
        yield Row(curve, looks=(3, 5, 8), step=3)
    yield Row("at the margin", looks=(5,), step=3)
    yield Row("plateau", "heavy", (3, 5, 8), step=2)
    yield Row("slope", looks=(3, 5, 8), growth=4.0, step=3)


def differences(row: Row, random: Generator, seeds: int) -> np.ndarray:
    """Worsening of each seed at each level, of dense at level 0: (seeds, levels + 1), in points of accuracy lost."""
    true, noise = np.array(CURVES[row.curve]) * MARGIN, NOISES[row.noise]
    if row.examples:
        chance = np.concatenate([[0.001], 0.001 + true / 100])
        return random.binomial(row.examples, np.broadcast_to(chance, (seeds, len(chance)))) * 100 / row.examples
    tail = noise if row.shared_tail else normal
    scatter = sqrt(1 - SHARED) * noise(random, (seeds, len(true))) + sqrt(SHARED) * tail(random, (seeds, 1))
    spread = row.spread * np.geomspace(1 / sqrt(row.growth), sqrt(row.growth), len(true))
    return np.concatenate([np.zeros((seeds, 1)), true + spread * scatter], axis=1) + random.normal(0, 0.3, (seeds, 1))


def outcomes(row: Row, random: Generator) -> np.ndarray:
    """Whether each network is right on each example: (seeds, levels + 1, examples).

    Of the examples that a level loses, which are those of milder levels and more, each seed loses half. Beside them each
    network, dense too, is wrong on one in 200, by chance.
    """
    hard = random.random(row.examples) < 2 * np.concatenate([[0.0], CURVES[row.curve]])[:, None] / 100
    seeds = row.looks[-1]
    return ~(hard & (random.random((seeds, 1, row.examples)) < 0.5)) & (random.random((seeds, *hard.shape)) >= 0.005)


@dataclass(frozen=True, eq=False)
class Kept:
    """The outcomes of one network, as a sealed run has them."""

    right: np.ndarray

    def of(self, metric: str, split: str, at: str) -> Outcomes:
        return Outcomes(self.right, scale=100.0)


@lru_cache(maxsize=4)
def beyond(row: Row) -> list[float]:
    """The share of all seeds that are worse than dense by more than the margin, of each level."""
    lost = differences(row, np.random.default_rng(0), DRAWS)
    return [float(share) for share in (lost[:, 1:] - lost[:, :1] > MARGIN + TOLERANCE).mean(0)]


def results(row: Row, lost: np.ndarray, right: np.ndarray | None = None) -> list[Result]:
    """The sealed runs of an experiment: what its networks ``lost``, and on which examples they were ``right``."""
    runs = []
    for seed, levels in enumerate(lost.tolist()):
        for level, worse in enumerate(levels):
            scores = Scores(1, {"accuracy": 95.0 - worse}, {"accuracy": (100.0 if row.examples else 95.0) - worse})
            key = f"{seed}/{level}"
            kept = round(100_000 * 0.8**level)
            runs.append(
                Result(
                    variant="ticket" if level else "dense",
                    seed=seed,
                    level=level,
                    draw=0,
                    key=key,
                    path=key,
                    diverged=False,
                    total=100_000,
                    kept=kept,
                    parameters=100_000,
                    steps=1,
                    metrics={"accuracy": METRIC},
                    layers={"all": LayerDensity(100_000, kept)},
                    final=scores,
                    early_stop=scores,
                    diverged_at=None,
                    training_flops=1,
                    seconds=1.0,
                    weights=key,
                    examples={"test": row.examples} if row.examples else {},
                    outcomes=None if right is None or not row.kept else cast(SealedOutcomes, Kept(right[seed, level])),
                )
            )
    return runs


Claim = tuple[SweetSpot | None, list[Result], GatePolicy, Collection[Place]]
"""What is claimed, of which runs, by what policy, and which runs were planned."""


def claims(row: Row, runs: Sequence[Result]) -> Iterator[Claim]:
    """What is claimed at each look, by what the store remembers of those before."""
    if row.step:
        yield searched(row, runs)
        return
    policy = replace(POLICY, looks=row.looks if row.declared else row.looks[:1])
    for index, number in enumerate(row.looks):
        here = [run for run in runs if run.seed < number]
        now = replace(policy, shown=() if row.declared else row.looks[:index])
        yield _claim(here, now if row.remembered else POLICY)


def _claim(runs: list[Result], policy: GatePolicy) -> Claim:
    places = [run.place for run in runs]
    verdicts = judge(runs, policy, "test", places)
    return find(walk(verdicts), verdicts), runs, policy, places


def searched(row: Row, runs: Sequence[Result]) -> Claim:
    """What is claimed by a search at its end, from the runs that it asked for."""
    policy = replace(POLICY, looks=row.looks, coarse=row.step)
    places = set(search(Terms(len(CURVES[row.curve]), row.step, row.looks), runs, policy).places)
    return _claim([run for run in runs if run.place in places], policy)


@dataclass(frozen=True)
class Tally:
    """Of some experiments: how many claimed too much of the mean, and of single seeds; the levels claimed and the runs made,
    summed; and how many headlines were wrong."""

    false: int = 0
    seeds: int = 0
    levels: int = 0
    made: int = 0
    wrong: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(*map(sum, zip(astuple(self), astuple(other), strict=True)))


def tried(row: Row, seed: int, count: int) -> Tally:
    """``count`` experiments."""
    random, true, tally = np.random.default_rng(seed), CURVES[row.curve], Tally()
    for index in range(count):
        worst, unlike, last, runs_made, wrong = False, False, 0, 0, 0
        right = outcomes(row, random) if row.drawn else None
        lost = differences(row, random, row.looks[-1]) if right is None else 100 * (1 - right.mean(2))
        for spot, runs, policy, places in claims(row, results(row, lost, right)):
            last, runs_made = spot.level if spot else 0, len(runs)
            worst |= spot is not None and true[spot.level - 1] > 1.0
            unlike |= (
                spot is not None
                and not row.drawn
                and beyond(row)[spot.level - 1] > share_beyond(spot.verdicts[0], policy)
            )
            if index % HEADLINES == 0:
                text = headline(conclude("synthetic", runs, policy, places=places))
                claim = (
                    spot is not None
                    and f" {100 * (1 - 0.8**last):.1f} % of the network's" in text.partition("can go")[0]
                )
                wrong += claim is not (spot is not None) or text.startswith(("No ", "Inconclusive")) is claim
        tally += Tally(worst, unlike, last, runs_made, wrong)
    return tally


def interval(hits: int, count: int) -> tuple[float, float]:
    """The exact two-sided 95 % interval of a rate (Clopper & Pearson 1934)."""
    low = 0.0 if hits == 0 else float(betaincinv(hits, count - hits + 1, 0.025))
    high = 1.0 if hits == count else float(betaincinv(hits + 1, count - hits, 0.975))
    return low, high


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--experiments", type=int, default=10_000, help="experiments a row")
    parser.add_argument("--rows", default="", help="only rows whose name has this in it")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--output", type=Path, help="a file for the table")
    settings = parser.parse_args()
    lines = [
        f"`python -m benchmarks.false_claims --experiments {settings.experiments}`, Python {platform.python_version()}, "
        f"NumPy {np.__version__}",
        "",
        "| Experiments | Promise | False claims | 95 % interval | False of seeds | Mean level (true) | Runs |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    broken = []
    with ProcessPoolExecutor(settings.processes) as pool:
        for row in (row for row in rows() if settings.rows in row.name):
            seed, share = crc32(row.name.encode()), settings.experiments // PARTS
            jobs = [pool.submit(tried, row, seed + part, share) for part in range(PARTS)]
            tally = sum((job.result() for job in jobs), Tally())
            count = share * PARTS
            true = sum(
                1 for _ in takewhile(lambda loss: loss <= 1.0, CURVES[row.curve])
            )  # beyond a gap nothing is claimed
            low, high = interval(tally.false, count)
            said = "none" if row.promise is None else f"{100 * row.promise:.1f} %"
            lines.append(
                f"| {row.name} | {said} | {100 * tally.false / count:.2f} % | {100 * low:.2f} to {100 * high:.2f} % "
                f"| {100 * tally.seeds / count:.2f} % | {tally.levels / count:.2f} ({true}) | {tally.made / count:.1f} |"
            )
            print(lines[-1], flush=True)
            if tally.wrong:
                broken.append(f"{tally.wrong} headlines of {row.name}")
            if row.promise is not None and low > row.promise:
                broken.append(row.name)
            if row.remembered and interval(tally.seeds, count)[0] > row.error:
                broken.append(f"{row.name}, of seeds")
    if settings.output:
        settings.output.write_text("\n".join(lines) + "\n")
    print("every promise is kept" if not broken else f"broken: {'; '.join(broken)}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
