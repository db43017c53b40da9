"""Candidates of one replicate, timed in turn: the very files that were judged, loaded as they would be served."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ticketsmith.candidates.forms import FORMS, Form
from ticketsmith.errors import in_a_line
from ticketsmith.evidence.candidates import Entry, Judgement, Lack, RaceCell
from ticketsmith.evidence.rounds import resolution
from ticketsmith.evidence.variants import DENSE
from ticketsmith.inference.measuring.statistics import noise
from ticketsmith.inference.measuring.surroundings import pinned, quiet
from ticketsmith.inference.settings import BenchmarkSettings
from ticketsmith.race import Runner, Stopwatch, race, warm_up
from ticketsmith.tasks.task import Phase

COPIES = 3
"""Of the fastest dense candidate: by how much they differ is how well this machine can tell two files apart."""

_DIGITS = 5
"""Of each latency that is kept."""


@dataclass(frozen=True, eq=False)
class Work:
    """What is timed: one call on ``inputs`` ``[b, ...]``, or one ``part`` of decoding them, on so many threads.

    ``units`` is what a call makes of what the task counts.
    """

    inputs: NDArray[Any]
    threads: int
    units: float
    part: Phase | None = None

    @property
    def phase(self) -> str:
        return "" if self.part is None else self.part.name

    def __str__(self) -> str:
        return f"{self.phase}{' at ' if self.phase else ''}batch size {len(self.inputs)}"

    def runner(self, form: Form, path: Path) -> tuple[Runner, str]:
        """The file, loaded and called once; and the dense library to which it is handed over, if it is.

        Raises whatever a library raises.
        """
        if self.part is None:
            arrays = form.load(path, self.threads, len(self.inputs))
            runner, handed_to = Runner(arrays, self.inputs), getattr(arrays, "handed_to", lambda batch: "")
        else:
            assert form.decoder is not None
            runner, handed_to = (
                Runner(*self.part.begin(form.decoder(path, self.threads), self.inputs)),
                lambda batch: "",
            )
        runner.run(runner.inputs)
        return runner, str(handed_to(len(self.inputs)))


@dataclass(frozen=True)
class Raced:
    """One cell; why some candidates are not in it; signs that the machine was not quiet; the cores that it had."""

    cell: RaceCell
    lacks: list[Lack]
    noises: list[str]
    cores: tuple[int, ...]


def timed(
    files: Sequence[tuple[Judgement, Path]],
    work: Work,
    settings: BenchmarkSettings,
    allowance: float | None,
    stopwatch: Stopwatch,
    progress: Callable[[str, int], None],
) -> Raced:
    """Times files in turn, and copies of the fastest dense one. ``allowance`` is the time in seconds that it may take."""
    begin, lacks = stopwatch.clock(), []
    ready: list[tuple[Judgement, Path, str]] = []
    runners: list[Runner] = []
    with pinned(work.threads) as cores, quiet(work.threads):
        for one, path in files:
            if work.part is not None and FORMS[one.form].decoder is None:
                continue
            try:
                runner, handed_to = work.runner(FORMS[one.form], path)
            except Exception as error:  # a library's own failures, of any kind
                reason = f"{work}: it does not run ({in_a_line(error)})."
                lacks.append(Lack(one.variant, one.level, one.seed, one.form, reason))
            else:
                ready.append((one, path, handed_to))
                runners.append(runner)
        if not ready:
            return Raced(RaceCell(len(work.inputs), work.threads, work.units, 1.0, (), work.phase), lacks, [], cores)
        warm = warm_up(runners, stopwatch, allowance)
        dense = [index for index, (one, *_) in enumerate(ready) if one.variant == DENSE] or list(range(len(ready)))
        first = min(dense, key=lambda index: warm[index].seconds)
        runners += [work.runner(FORMS[ready[first][0].form], ready[first][1])[0] for _ in range(COPIES - 1)]
        calls = [one.calls for one in warm] + [warm[first].calls] * (COPIES - 1)
        what = f"racing {len(runners)} files, {work}"
        left = None if allowance is None else max(0.0, allowance - (stopwatch.clock() - begin))
        latencies = race(
            runners, calls, stopwatch, rounds=settings.rounds, seconds=settings.seconds, allowance=left,
            progress=lambda count: progress(what, count),
        )  # fmt: skip
    copies = latencies[:, [first, *range(len(ready), len(runners))]]
    latencies[:, first] = np.median(copies, axis=1)
    entries = [
        Entry(one.variant, one.level, one.seed, one.form, one.sha256, _milliseconds(latencies[:, index]), handed_to)
        for index, (one, _, handed_to) in enumerate(ready)
    ]
    cell = RaceCell(len(work.inputs), work.threads, work.units, resolution(copies), tuple(entries), work.phase)
    return Raced(cell, lacks, [f"at {work} {sign}" for sign in noise(copies[:, 0])], cores)


def _milliseconds(seconds: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(float(f"{1e3 * value:.{_DIGITS}g}") for value in seconds)
