"""Candidates of one replicate, timed in turn: the very files that were judged, loaded as they would be served."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ticketsmith.candidates.forms import FORMS
from ticketsmith.engines import Arrays
from ticketsmith.errors import in_a_line
from ticketsmith.evidence.candidates import Entry, Judgement, Lack, RaceCell
from ticketsmith.evidence.rounds import resolution
from ticketsmith.evidence.variants import DENSE
from ticketsmith.inference.measuring.statistics import noise
from ticketsmith.inference.measuring.surroundings import pinned, quiet
from ticketsmith.race import Runner, Stopwatch, race, warm_up

COPIES = 3
"""Of the fastest dense candidate: by how much they differ is how well this machine can tell two files apart."""

_DIGITS = 5
"""Of each latency that is kept."""


@dataclass(frozen=True, eq=False)
class Opened:
    """A candidate that is ready, and the folder of its file."""

    judgement: Judgement
    path: Path
    arrays: Arrays


def open_all(
    files: Sequence[tuple[Judgement, Path]], inputs: NDArray[Any], threads: int
) -> tuple[list[Opened], list[Lack]]:
    """Those that load and take a batch of ``inputs`` ``[b, ...]``, and why the others do not."""
    ready, lacks = [], []
    for one, path in files:
        try:
            arrays = FORMS[one.form].load(path, threads, len(inputs))
            arrays(inputs)
        except Exception as error:  # a library's own failures, of any kind
            reason = f"at batch size {len(inputs)} it does not run ({in_a_line(error)})."
            lacks.append(Lack(one.variant, one.level, one.seed, one.form, reason))
        else:
            ready.append(Opened(one, path, arrays))
    return ready, lacks


def timed(
    files: Sequence[tuple[Judgement, Path]],
    inputs: NDArray[Any],
    threads: int,
    units: float,
    rounds: int,
    seconds: float,
    allowance: float | None,
    stopwatch: Stopwatch,
    progress: Callable[[str, int], None],
) -> tuple[RaceCell, list[Lack], list[str], tuple[int, ...]]:
    """One cell; why some candidates are not in it; signs that the machine was not quiet; the cores that it had.

    ``allowance`` is the time in seconds that it may take, None: what it needs.
    """
    begin = stopwatch.clock()
    with pinned(threads) as cores, quiet(threads):
        ready, lacks = open_all(files, inputs, threads)
        if not ready:
            return RaceCell(len(inputs), threads, units, 1.0, ()), lacks, [], cores
        runners = [Runner(one.arrays, inputs) for one in ready]
        warm = warm_up(runners, stopwatch, allowance)
        dense = [index for index, one in enumerate(ready) if one.judgement.variant == DENSE] or list(range(len(ready)))
        first = min(dense, key=lambda index: warm[index].seconds)
        for _ in range(COPIES - 1):
            copy = FORMS[ready[first].judgement.form].load(ready[first].path, threads, len(inputs))
            copy(inputs)
            runners.append(Runner(copy, inputs))
        calls = [one.calls for one in warm] + [warm[first].calls] * (COPIES - 1)
        place = f"racing {len(runners)} files at batch size {len(inputs)}"
        left = None if allowance is None else max(0.0, allowance - (stopwatch.clock() - begin))
        latencies = race(
            runners, calls, stopwatch, rounds=rounds, seconds=seconds, allowance=left,
            progress=lambda count: progress(place, count),
        )  # fmt: skip
    copies = latencies[:, [first, *range(len(ready), len(runners))]]
    latencies[:, first] = np.median(copies, axis=1)
    entries = [
        Entry(
            one.judgement.variant, one.judgement.level, one.judgement.seed, one.judgement.form, one.judgement.sha256,
            tuple(float(f"{1e3 * value:.{_DIGITS}g}") for value in latencies[:, index]), _handed_to(one.arrays, len(inputs)),
        )
        for index, one in enumerate(ready)
    ]  # fmt: skip
    return (
        RaceCell(len(inputs), threads, units, resolution(copies), tuple(entries)),
        lacks,
        [f"at batch size {len(inputs)} {sign}" for sign in noise(copies[:, 0])],
        cores,
    )


def _handed_to(arrays: Arrays, batch: int) -> str:
    handed_to = getattr(arrays, "handed_to", None)
    return "" if handed_to is None else str(handed_to(batch))
