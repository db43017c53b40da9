"""How often TicketSmith claims too much: its own gates, search and headline on experiments whose truth is known.

    python -m benchmarks.false_claims --experiments 10000 --output false_claims.md

Every experiment is synthetic: a true curve of worsening over levels, in margins, and noise over seeds. A claim is false when
the sweet spot's true mean worsening is beyond the margin. Where there are several looks, one false claim at any of them
counts. Each row has its promise; it is broken when the 95 % Clopper-Pearson interval of its rate lies above it, and then the
command ends with status 1. ``level`` is the mean level claimed, 0 where none; ``true`` the last one within the margin.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from math import e, sqrt
from pathlib import Path

import numpy as np
from numpy.random import Generator
from scipy.special import betaincinv

from ticketsmith.evidence.findings import conclude
from ticketsmith.evidence.gates import judge
from ticketsmith.evidence.looks import promise
from ticketsmith.evidence.results import LayerDensity, Metric, Place, Result, Scores
from ticketsmith.evidence.search import Terms, search
from ticketsmith.evidence.sweet_spot import find, walk
from ticketsmith.evidence.verdicts import Gate, GatePolicy, SweetSpot
from ticketsmith.report.sentences.headline import headline

METRIC = Metric("accuracy", higher_is_better=True, unit="%")
MARGIN = 1.0
POLICY = GatePolicy((Gate("accuracy", max_drop=MARGIN),))
FAILS = 0.2
"""The share of seeds that do not train, in the rows of that name."""
SHARED = 0.5
"""The part of a seed's variance that all of its levels share."""
HEADLINES = 500
"""One experiment in so many is read by its headline too, which must name the sweet spot's share, or claim nothing."""

CURVES = {
    "at the margin": [1.0001] * 8,
    "cliff": [0.0, 0.0, 0.05, 0.1, 0.3, 1.6, 4.0, 8.0],
    "slope": [0.2, 0.4, 0.6, 0.8, 1.02, 1.2, 1.4, 1.6],
    "plateau": [0.0, 0.5, 1.05, 1.05, 1.05, 1.05, 1.05, 1.05],
    "dip and recovery": [0.0, 0.3, 1.3, 0.4, 0.2, 0.5, 1.1, 3.0],
    "nothing is lost": [0.0] * 8,
}


def normal(random: Generator, shape: tuple[int, ...]) -> np.ndarray:
    return random.standard_normal(shape)


def heavy(random: Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Student's t with 3 degrees of freedom, variance 1."""
    return random.standard_t(3, shape) / sqrt(3)


def skewed(random: Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Log-normal: a few seeds lose much more than most. Mean 0, variance 1."""
    return (np.exp(random.standard_normal(shape)) - sqrt(e)) / sqrt((e - 1) * e)


def failing(random: Generator, shape: tuple[int, ...]) -> np.ndarray:
    """One seed in five loses twenty spreads of the others, at this level. Mean 0, variance 1."""
    loss = 10.0 * (random.random(shape) < FAILS) + 0.5 * random.standard_normal(shape)
    return (loss - 10 * FAILS) / sqrt(100 * FAILS * (1 - FAILS) + 0.25)


@dataclass(frozen=True)
class Row:
    """One line of the table. ``looks`` are numbers of seeds at which verdicts are read, ``declared`` or not.

    ``spread`` of a seed's difference in margins, ``growth`` of it from the first to the last level. ``examples`` > 0: counts
    of errors of so many, near 100 %, instead of ``noise``. ``step`` > 0: a search that merges so many rounds at first.
    """

    curve: str
    noise: Callable[[Generator, tuple[int, ...]], np.ndarray] = normal
    looks: tuple[int, ...] = (3,)
    declared: bool = True
    spread: float = 0.5
    growth: float = 1.0
    examples: int = 0
    shared_tail: bool = False
    step: int = 0

    @property
    def name(self) -> str:
        parts = [self.curve, self.noise.__name__ if not self.examples else f"{self.examples} examples near 100 %"]
        if self.shared_tail:
            parts.append("by whole seeds")
        if self.growth != 1.0:
            parts.append(f"spread x{self.growth:g} over levels")
        if self.step:
            parts.append(f"search by steps of {self.step}")
        seeds = "/".join(map(str, self.looks))
        parts.append(
            f"{seeds} seeds" if len(self.looks) == 1 else f"looks at {seeds}{'' if self.declared else ', undeclared'}"
        )
        return ", ".join(parts)

    @property
    def promise(self) -> float | None:
        """The rate of false claims that is promised; None where nothing is, since no test on so few seeds could."""
        error = 1 - promise(POLICY.confidence, self.declared or len(self.looks) == 1)
        if self.noise is failing:
            return error + (1 - FAILS) ** self.looks[-1]  # none of the seeds failed: there is nothing to see
        return None if self.noise is skewed else error


def rows() -> Iterator[Row]:
    for n in (2, 3, 5, 10):
        yield Row("at the margin", looks=(n,))
        yield Row("at the margin", heavy, (n,))
        for growth in (4.0, 0.25):
            yield Row("at the margin", looks=(n,), growth=growth)
        yield Row("at the margin", looks=(n,), examples=360)
    for n in (3, 5):
        for curve in list(CURVES)[1:]:
            yield Row(curve, looks=(n,))
        yield Row("plateau", heavy, (n,))
        yield Row("slope", looks=(n,), growth=4.0)
        yield Row("slope", looks=(n,), examples=1000)
    for n in (3, 10):
        for whole in (False, True):
            yield Row("at the margin", skewed, (n,), shared_tail=whole)
            yield Row("at the margin", failing, (n,), shared_tail=whole)
    for curve in CURVES:
        yield Row(curve, looks=(3, 5, 8))
    yield Row("at the margin", looks=(3, 5, 10, 20))
    yield Row("at the margin", heavy, (3, 5, 8))
    for curve in ("at the margin", "plateau", "slope"):
        yield Row(curve, looks=(3, 4, 5, 6), declared=False)
    yield Row("at the margin", looks=(2, 3, 4, 5, 6, 7, 8), declared=False)
    for curve in CURVES:
        yield Row(curve, looks=(3, 5, 8), step=3)
    yield Row("at the margin", looks=(5,), step=3)
    yield Row("plateau", heavy, (3, 5, 8), step=2)
    yield Row("slope", looks=(3, 5, 8), growth=4.0, step=3)


def differences(row: Row, random: Generator) -> np.ndarray:
    """Worsening of each seed at each level, of dense at level 0: (seeds, levels + 1), in points of accuracy lost."""
    true, seeds = np.array(CURVES[row.curve]) * MARGIN, row.looks[-1]
    if row.examples:
        chance = np.concatenate([[0.001], 0.001 + true / 100])
        return random.binomial(row.examples, np.broadcast_to(chance, (seeds, len(chance)))) * 100 / row.examples
    tail = row.noise if row.shared_tail else normal
    noise = sqrt(1 - SHARED) * row.noise(random, (seeds, len(true))) + sqrt(SHARED) * tail(random, (seeds, 1))
    spread = row.spread * np.geomspace(1 / sqrt(row.growth), sqrt(row.growth), len(true))
    return np.concatenate([np.zeros((seeds, 1)), true + spread * noise], axis=1) + random.normal(0, 0.3, (seeds, 1))


def results(row: Row, lost: np.ndarray) -> list[Result]:
    """The sealed runs of an experiment: what its networks ``lost``."""
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
        yield _claim(here, now)


def _claim(runs: list[Result], policy: GatePolicy) -> Claim:
    places = [run.place for run in runs]
    verdicts = judge(runs, policy, "test", places)
    return find(walk(verdicts), verdicts), runs, policy, places


def searched(row: Row, runs: Sequence[Result]) -> Claim:
    """What is claimed by a search at its end, from the runs that it asked for."""
    policy = replace(POLICY, looks=row.looks, coarse=row.step)
    places = set(search(Terms(len(CURVES[row.curve]), row.step, row.looks), runs, policy).places)
    return _claim([run for run in runs if run.place in places], policy)


def tried(row: Row, seed: int, count: int) -> tuple[int, int, int, int]:
    """Of ``count`` experiments: how many claimed too much, the levels claimed and the runs made, summed, and how many
    headlines were wrong."""
    random, true = np.random.default_rng(seed), CURVES[row.curve]
    false = levels = made = wrong = 0
    for index in range(count):
        worst, last, runs_made = False, 0, 0
        for spot, runs, policy, places in claims(row, results(row, differences(row, random))):
            last, runs_made = spot.level if spot else 0, len(runs)
            worst |= spot is not None and true[spot.level - 1] > 1.0
            if index % HEADLINES == 0:
                text = headline(conclude("synthetic", runs, policy, places=places))
                claim = (
                    spot is not None
                    and f" {100 * (1 - 0.8**last):.1f} % of the network's" in text.partition("can go")[0]
                )
                wrong += claim is not (spot is not None) or text.startswith(("No ", "Inconclusive")) is claim
        false, levels, made = false + worst, levels + last, made + runs_made
    return false, levels, made, wrong


def interval(hits: int, count: int) -> tuple[float, float]:
    """The exact two-sided 95 % interval of a rate (Clopper & Pearson 1934)."""
    low = 0.0 if hits == 0 else float(betaincinv(hits, count - hits + 1, 0.025))
    high = 1.0 if hits == count else float(betaincinv(hits + 1, count - hits, 0.975))
    return low, high


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--experiments", type=int, default=10_000, help="experiments a row")
    parser.add_argument("--rows", default="", help="only rows whose name has this in it")
    parser.add_argument("--output", type=Path, help="a file for the table")
    settings = parser.parse_args()
    lines = [
        f"`python -m benchmarks.false_claims --experiments {settings.experiments}`, Python {platform.python_version()}, "
        f"NumPy {np.__version__}",
        "",
        "| Experiments | Promise | False claims | 95 % interval | Mean level (true) | Runs of dense and ticket |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    broken, processes = [], os.cpu_count() or 1
    with ProcessPoolExecutor(processes) as pool:
        for number, row in enumerate(row for row in rows() if settings.rows in row.name):
            share = settings.experiments // processes
            jobs = [pool.submit(tried, row, 1000 * number + part, share) for part in range(processes)]
            false, levels, made, wrong = map(sum, zip(*(job.result() for job in jobs), strict=True))
            count, true = share * processes, sum(loss <= 1.0 for loss in CURVES[row.curve])
            if row.curve == "dip and recovery":
                true = 2  # nothing is claimed beyond a level that fails
            low, high = interval(false, count)
            said = "none" if row.promise is None else f"{100 * row.promise:.1f} %"
            lines.append(
                f"| {row.name} | {said} | {100 * false / count:.2f} % | {100 * low:.2f} to {100 * high:.2f} % "
                f"| {levels / count:.2f} ({true}) | {made / count:.1f} |"
            )
            print(lines[-1], flush=True)
            if wrong:
                broken.append(f"{wrong} headlines of {row.name}")
            if row.promise is not None and low > row.promise:
                broken.append(row.name)
    if settings.output:
        settings.output.write_text("\n".join(lines) + "\n")
    print("every promise is kept" if not broken else f"broken: {'; '.join(broken)}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
