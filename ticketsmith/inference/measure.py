"""The benchmark: models raced against the strongest dense runtime, side by side in one process.

Timings are compared within a **cell**: the same phase, precision, batch size and number of threads. The dense model on the
dense runtime that turns out fastest there is 1.0, whoever that is. It races as several identical copies: their median is what
the others are compared with, and by how much they differ is how well this machine can tell two models apart at all.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ticketsmith.errors import RecipeError, TaskError
from ticketsmith.evidence.serving import Benchmark, Peaks, Refusal, Timing
from ticketsmith.inference import peaks as roof
from ticketsmith.inference.lineup import AGREEMENT_INPUTS, Candidate, Rival, another, line_up, pairs
from ticketsmith.inference.race import Runner, race, warm_up
from ticketsmith.inference.runtimes import ArrayCall, CannotRunError, Runtime, is_dense, precision_of, tolerance_of
from ticketsmith.inference.statistics import Bootstrap, Ratio, noise, resolution
from ticketsmith.inference.stopwatch import Stopwatch, Warm, quiet
from ticketsmith.inference.surroundings import Surroundings, pinned, signs
from ticketsmith.inference.work import Work
from ticketsmith.inference.workload import Workload, workloads
from ticketsmith.tasks.task import ONE_CALL, Decoder, Serving
from ticketsmith.units import percent

COPIES = 5
"""Of the strongest dense rival; fewer where making one takes long."""

_COPIES_SECONDS = 8.0
_PREPARING = 0.6
"""The share of a cell's budget that getting ready may take."""

Progress = Callable[[str, int, int], None]
"""``progress(what, done, total)``: what is being done now, and how many rounds of how many."""


def measure(
    reference: Candidate,
    candidates: Sequence[Candidate],
    inputs_of: Callable[[int], Tensor],
    *,
    runtimes: Sequence[Runtime],
    batch_sizes: Sequence[int],
    rounds: int,
    threads: Sequence[int] = (1,),
    device: torch.device | None = None,
    confidence: float = 0.95,
    seconds: float = 0.0,
    budget: float | None = None,
    serving: Serving = ONE_CALL,
    everywhere: bool = True,
    progress: Progress = lambda what, done, total: None,
    clock: Callable[[], float] = time.perf_counter,
    surroundings: Surroundings | None = None,
) -> Benchmark:
    """Times ``reference``, the dense model, and ``candidates`` on every runtime, batch size and number of threads.

    ``inputs_of(b)`` gives inputs ``[b, ...]``. ``serving`` says what is counted, and in which phases models that have
    sessions are timed beside one call as they are. Every race takes at least ``rounds`` rounds and ``seconds`` seconds.
    ``budget``, in seconds, is for all of them: when it is spent, rounds are left out, down to ``race.FEWEST_ROUNDS``, and
    rivals that are not ready. ``everywhere``: see ``lineup.pairs``. ``clock`` gives seconds. ``surroundings``: what to
    ask for the machine's facts, peaks and noise. The outputs of every rival are compared with what the model says, in float64
    where that can be had, before anything is timed; those of a phase with what it says of the whole sequence.

    A model that a runtime cannot run, or computes something else for, is listed under ``refusals``. Raises CannotRunError
    when nothing can be run at all, RecipeError for senseless settings, TaskError when the inputs are not of the batch size
    asked for.
    """
    _check(runtimes, batch_sizes, rounds, threads, confidence)
    device = device or torch.device("cpu")
    around = surroundings or Surroundings()
    field = [reference, *(one for one in candidates if one.identity != reference.identity)]
    for candidate in field:
        if isinstance(candidate.model, nn.Module):
            candidate.model.to(device).eval()
    stopwatch = Stopwatch.of(device, clock)
    end = None if budget is None else clock() + budget
    if not isinstance(reference.model, Decoder):
        serving = replace(serving, phases=())
    cells = len(threads) * len(batch_sizes) * (1 + len(serving.phases))
    found, refusals, peaks = [], [], {}
    before = around.state()
    pins: dict[int, str] = {}
    for index, (count, workload) in enumerate(_workloads(inputs_of, serving, threads, batch_sizes, device)):
        with pinned(count) as cores, quiet(count):
            pins[count] = f"{count}, on core{'s' if len(cores) > 1 else ''} {_listed(cores)}" if cores else str(count)
            if count not in peaks and device.type == "cpu":
                progress(f"measuring the machine's peaks with {count} threads", index * rounds, rounds * cells)
                peaks[count] = around.peaks(count)
            allowance = None if end is None else max(0.0, end - clock()) / (cells - index)

            def told(what: str, done: int = 0, before: int = index * rounds) -> None:
                progress(what, before + min(done, rounds), rounds * cells)

            cell = _Cell(field, workload, count, stopwatch, allowance, told)
            rivals, refused = cell.line_up(pairs(field, runtimes, everywhere), inputs_of)
            refusals += refused
            if rivals:
                found.append(cell.race(rivals, rounds, seconds, confidence, peaks.get(count)))
    if not found:
        raise CannotRunError(f"nothing could be run: {refusals[0].runtime}: {refusals[0].reason}")
    machine = around.describe(device)
    machine |= _told(found, pins)
    heard = [sign for cell in found for sign in cell.noises] + signs(before, around.state())
    if heard:
        machine["noise"] = f"The machine was not quiet: {'; '.join(heard)}. Small differences may be its doing."
    return Benchmark(
        machine,
        runtimes[0].name,
        str(device),
        confidence,
        tuple(timing for cell in found for timing in cell.timings),
        reference.key,
        tuple(refusals),
        unit=serving.unit,
        peaks=tuple(one for one in peaks.values() if one is not None),
    )


@dataclass(frozen=True)
class _Result:
    threads: int
    batch: str
    timings: list[Timing]
    resolution: float
    noises: list[str]


@dataclass(frozen=True, eq=False)
class _Cell:
    """All precisions at one batch size and number of threads: they race together, and are compared apart."""

    field: Sequence[Candidate]
    workload: Workload
    threads: int
    stopwatch: Stopwatch
    allowance: float | None
    told: Callable[..., None]

    def line_up(
        self, wanted: Sequence[tuple[Candidate, Runtime]], inputs_of: Callable[[int], Tensor]
    ) -> tuple[list[Rival], list[Refusal]]:
        begin, size = self.stopwatch.clock(), len(self.workload.inputs)

        def over() -> bool:
            return self.allowance is not None and self.stopwatch.clock() - begin > _PREPARING * self.allowance

        def more() -> Tensor:
            if self.workload.phase:  # what follows a token is no class
                return self.workload.inputs[:0]
            return inputs_of(max(1, AGREEMENT_INPUTS // size) * size).to(self.workload.inputs.device)

        # what tells the least comes last, since a budget leaves out the last
        telling = sorted(wanted, key=lambda pair: (pair[0] is not self.field[0], is_dense(pair[1])))
        rivals, refusals = line_up(telling, self.workload, more, over, self.told)
        place = {(id(candidate), id(runtime)): index for index, (candidate, runtime) in enumerate(wanted)}
        rivals.sort(key=lambda rival: place[id(rival.candidate), id(rival.runtime)])
        return rivals, refusals

    def race(self, rivals: list[Rival], rounds: int, seconds: float, confidence: float, peaks: Peaks | None) -> _Result:
        begin, given = self.stopwatch.clock(), self.workload.given
        place = f"{self.batch}, {self.threads} thread{'s' if self.threads > 1 else ''}"
        self.told(f"warming up: {place}")
        runners = [Runner.of(rival.call, given) for rival in rivals]
        warm = warm_up(runners, self.stopwatch, self.allowance)
        copied = self._favourite(rivals, warm)
        copies = self._copies(rivals[copied])
        runners += [Runner.of(rival.call, given) for rival in copies]
        calls = [one.calls for one in warm] + [warm[copied].calls] * len(copies)
        spent = self.stopwatch.clock() - begin
        latencies = race(
            runners,
            calls,
            self.stopwatch,
            rounds=rounds,
            seconds=seconds,
            allowance=None if self.allowance is None else max(0.0, (1 - _PREPARING) * self.allowance - spent),
            told=lambda done: self.told(f"racing {len(runners)} rivals at {place}", done),
        )
        group = latencies[:, [copied, *range(len(rivals), len(runners))]]
        columns = {index: latencies[:, [index]] for index in range(len(rivals))} | {copied: group}
        floor = resolution(group)
        works = self._works(rivals)
        timings: list[Timing] = []
        for precision in dict.fromkeys(precision_of(rival.runtime) for rival in rivals):
            same = {i: columns[i] for i, rival in enumerate(rivals) if precision_of(rival.runtime) == precision}
            timings += self._compared(rivals, same, Bootstrap(len(latencies), confidence), floor, works, peaks)
        order = {(rival.candidate.identity, rival.runtime.name, precision_of(rival.runtime)): index
                 for index, rival in enumerate(rivals)}  # fmt: skip
        timings.sort(key=lambda one: order[(one.variant, one.level, one.seed, one.key), one.runtime, one.precision])
        return _Result(self.threads, self.batch, timings, floor, [f"at {place} {sign}" for sign in noise(group[:, 0])])

    @property
    def batch(self) -> str:
        """``batch size 1``, with the phase before it."""
        return f"{self.workload.phase}, batch size {len(self.workload.inputs)}".removeprefix(", ")

    def _favourite(self, rivals: Sequence[Rival], warm: Sequence[Warm]) -> int:
        """The rival that will most likely be the one to beat: dense, the dense model, and the fastest so far."""
        dense = [i for i, rival in enumerate(rivals) if is_dense(rival.runtime)]
        own = [i for i in dense if rivals[i].candidate is self.field[0]]
        quick = [i for i in own if rivals[i].made_in * (COPIES - 1) <= _COPIES_SECONDS]
        return min(quick or own or dense or range(len(rivals)), key=lambda i: (warm[i].seconds, i))

    def _copies(self, rival: Rival) -> list[Rival]:
        self.told(f"preparing {COPIES - 1} copies of {rival.candidate} on {rival.runtime.name}")
        begin = time.perf_counter()
        copies: list[Rival] = []
        while not copies or (len(copies) < COPIES - 1 and time.perf_counter() - begin < _COPIES_SECONDS):
            copies.append(another(rival, copy.deepcopy(rival.candidate.model), self.workload))
        return copies

    def _works(self, rivals: Sequence[Rival]) -> dict[int, Work]:
        models = {id(rival.candidate): rival.candidate.model for rival in rivals}
        return {key: self.workload.least(model) for key, model in models.items() if isinstance(model, nn.Module)}

    def _compared(
        self,
        rivals: Sequence[Rival],
        columns: dict[int, NDArray[np.float64]],
        bootstrap: Bootstrap,
        floor: float,
        works: dict[int, Work],
        peaks: Peaks | None,
    ) -> list[Timing]:
        """Timings of one precision; ``columns`` maps rivals to ``[rounds, copies]`` latencies."""
        dense = [i for i in columns if is_dense(rivals[i].runtime) and rivals[i].candidate is self.field[0]]
        strongest = min(dense, key=lambda i: float(np.median(columns[i])), default=None)
        timings = []
        for index, latencies in columns.items():
            rival, ratio, against = rivals[index], Ratio(1.0, 1.0, 1.0), ""
            if strongest is not None:
                against = rivals[strongest].runtime.name
                if index != strongest:
                    base = np.median(columns[strongest], axis=1)
                    ratio = bootstrap.ratio(base, np.median(latencies, axis=1)).widened(floor)
            timings.append(self._timing(rival, latencies, ratio, against, works.get(id(rival.candidate)), peaks))
        return timings

    def _timing(
        self,
        rival: Rival,
        latencies: NDArray[np.float64],
        ratio: Ratio,
        against: str,
        least: Work | None,
        peaks: Peaks | None,
    ) -> Timing:
        p10, median, p90, p99 = (float(value) for value in np.quantile(latencies, (0.1, 0.5, 0.9, 0.99)))
        candidate, precision = rival.candidate, precision_of(rival.runtime)
        flops, bytes_ = (None, None) if least is None else (least.flops, least.bytes(precision))
        share, size = None, len(self.workload.inputs)
        # the peak of arithmetic is that of float32: other precisions have others
        if peaks is not None and flops is not None and bytes_ is not None and precision == "float32":
            share = min(1.0, roof.bound(peaks, flops, bytes_) / median)
        return Timing(
            variant=candidate.variant,
            level=candidate.level,
            seed=candidate.seed,
            key=candidate.key,
            sparsity=candidate.sparsity,
            runtime=rival.runtime.name,
            batch_size=size,
            threads=self.threads,
            rounds=len(latencies),
            median_ms=1e3 * median,
            p10_ms=1e3 * p10,
            p90_ms=1e3 * p90,
            p99_ms=1e3 * p99,
            throughput=self.workload.units / median,
            speedup=ratio.median,
            speedup_low=ratio.low,
            speedup_high=ratio.high,
            max_error=rival.max_error,
            tolerance=tolerance_of(rival.runtime),
            precision=precision,
            phase=self.workload.phase,
            dense=is_dense(rival.runtime),
            against=against,
            flops=flops,
            bytes=bytes_,
            roofline=share,
            agreement=rival.agreement,
            compared_with=rival.compared_with,
            handed_to=rival.call.handed_to(size) if isinstance(rival.call, ArrayCall) else "",
        )


def _check(
    runtimes: Sequence[Runtime], batch_sizes: Sequence[int], rounds: int, threads: Sequence[int], confidence: float
) -> None:
    names = [(runtime.name, precision_of(runtime)) for runtime in runtimes]
    if not names or len(set(names)) < len(names):
        raise RecipeError(f"a benchmark needs runtimes of different names, not {[name for name, _ in names]}.")
    if not batch_sizes or min(batch_sizes) < 1:
        raise RecipeError(f"a benchmark needs batch sizes of 1 or more, not {list(batch_sizes)}.")
    if rounds < 1 or not threads or min(threads) < 1:
        raise RecipeError(f"a benchmark needs 1 round and 1 thread or more, not {rounds} and {list(threads)}.")
    if not 0.0 < confidence < 1.0:
        raise RecipeError(f"a confidence lies between 0 and 1, not {confidence}.")


def _workloads(
    inputs_of: Callable[[int], Tensor],
    serving: Serving,
    threads: Sequence[int],
    batch_sizes: Sequence[int],
    device: torch.device,
) -> Iterator[tuple[int, Workload]]:
    for count in threads:
        for size in batch_sizes:
            for workload in workloads(serving, _inputs(inputs_of, size, device)):
                yield count, workload


def _inputs(inputs_of: Callable[[int], Tensor], batch_size: int, device: torch.device) -> Tensor:
    inputs = inputs_of(batch_size).to(device)
    if len(inputs) != batch_size:
        raise TaskError(f"the task gives {len(inputs)} inputs where {batch_size} were asked for.")
    return inputs


def _told(cells: Sequence[_Result], pins: dict[int, str]) -> dict[str, str]:
    """How it was measured, for a reader."""
    several = len({cell.threads for cell in cells}) > 1
    places = [
        f"{percent(round(cell.resolution - 1, 3))} at {cell.batch}" + (f" on {cell.threads} threads" if several else "")
        for cell in cells
    ]
    facts = {
        "threads": "; ".join(pins.values()),
        "resolution": f"Identical copies of a model differ by up to {', '.join(places)}.",
    }
    timed = [timing for cell in cells for timing in cell.timings]
    tolerances = dict.fromkeys((timing.precision, timing.tolerance) for timing in timed)
    references = " and ".join(dict.fromkeys(timing.compared_with for timing in timed))
    facts["outputs"] = f"Compared with {references} before timing: " + ", ".join(
        f"{precision} within {tolerance:g}" for precision, tolerance in tolerances
    )
    agreements = [timing.agreement for timing in timed if timing.agreement is not None]
    if agreements:
        facts["outputs"] += f"; at low precision the same class for at least {percent(min(agreements))} of the inputs"
    facts["outputs"] += "."
    if any(timing.handed_to for timing in timed):
        facts["handed over"] = _handed_over(timed)
    alone = [
        name for name in dict.fromkeys(timing.precision for timing in timed)
        if not any(timing.against for timing in timed if timing.precision == name)
    ]  # fmt: skip
    if alone:
        facts["not compared"] = (
            f"No dense runtime ran in {' or '.join(alone)}: there is nothing of the same precision to be faster than."
        )
    return facts


def _handed_over(timings: Sequence[Timing]) -> str:
    sizes: dict[tuple[str, str], set[int]] = {}
    for timing in timings:
        if timing.handed_to:
            sizes.setdefault((timing.runtime, timing.handed_to), set()).add(timing.batch_size)
    told = "; ".join(
        f"{runtime} gave whole models to {other} at batch size {_listed(sorted(some))}"
        for (runtime, other), some in sizes.items()
    )
    return f"{told}, since that was faster there."


def _listed(cores: Sequence[int]) -> str:
    return ", ".join(map(str, cores))
