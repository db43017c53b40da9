"""One cell of a benchmark: all models on all runtimes at one batch size and number of threads, in one race."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from ticketsmith.evidence.serving import Peaks, Refusal, Timing
from ticketsmith.inference.measuring import peaks as roof
from ticketsmith.inference.measuring.lineup import AGREEMENT_INPUTS, Candidate, Rival, another, line_up
from ticketsmith.inference.measuring.statistics import Bootstrap, Ratio, noise, resolution
from ticketsmith.inference.measuring.weights import Work
from ticketsmith.inference.measuring.workload import Workload
from ticketsmith.inference.runtimes import ArrayCall, Runtime, is_dense, precision_of, runner_of, tolerance_of
from ticketsmith.inference.settings import BenchmarkSettings
from ticketsmith.race import Stopwatch, Warm, race, warm_up
from ticketsmith.units import plural

COPIES = 5
"""Of the strongest dense rival; fewer where making one takes long."""

_COPIES_SECONDS = 8.0
_PREPARING = 0.6
"""The share of a cell's budget that getting ready may take."""


@dataclass(frozen=True)
class CellResult:
    """``resolution``: the ratio by which identical copies differ; ``noises``: signs that the machine was not quiet."""

    threads: int
    batch: str
    timings: list[Timing]
    resolution: float
    noises: list[str]


@dataclass(frozen=True, eq=False)
class Cell:
    """All precisions at one batch size and number of threads: they race together, and are compared apart."""

    field: Sequence[Candidate]
    workload: Workload
    threads: int
    stopwatch: Stopwatch
    allowance: float | None
    progress: Callable[..., None]

    def line_up(
        self, entrants: Sequence[tuple[Candidate, Runtime]], inputs_of: Callable[[int], Tensor]
    ) -> tuple[list[Rival], list[Refusal]]:
        """The pairs that can race, ready and in their order, and why the others cannot."""
        begin, size = self.stopwatch.clock(), len(self.workload.inputs)

        def over() -> bool:
            return self.allowance is not None and self.stopwatch.clock() - begin > _PREPARING * self.allowance

        def more() -> Tensor:
            if self.workload.phase:  # what follows a token is no class
                return self.workload.inputs[:0]
            return inputs_of(max(1, AGREEMENT_INPUTS // size) * size).to(self.workload.inputs.device)

        # what tells the least comes last, since a budget leaves out the last
        telling = sorted(entrants, key=lambda pair: (pair[0] is not self.field[0], is_dense(pair[1])))
        rivals, refusals = line_up(telling, self.workload, more, over, self.progress)
        place = {(id(candidate), id(runtime)): index for index, (candidate, runtime) in enumerate(entrants)}
        rivals.sort(key=lambda rival: place[id(rival.candidate), id(rival.runtime)])
        return rivals, refusals

    def race(self, rivals: list[Rival], settings: BenchmarkSettings, peaks: Peaks | None) -> CellResult:
        """Times the rivals, and copies of the one to beat, and compares those of each precision."""
        begin, inputs = self.stopwatch.clock(), self.workload.call_inputs
        place = f"{self.batch}, {plural(self.threads, 'thread')}"
        self.progress(f"warming up: {place}")
        runners = [runner_of(rival.call, inputs) for rival in rivals]
        warm = warm_up(runners, self.stopwatch, self.allowance)
        copied = self._favourite(rivals, warm)
        copies = self._copies(rivals[copied])
        runners += [runner_of(rival.call, inputs) for rival in copies]
        calls = [one.calls for one in warm] + [warm[copied].calls] * len(copies)
        spent = self.stopwatch.clock() - begin
        latencies = race(
            runners,
            calls,
            self.stopwatch,
            rounds=settings.rounds,
            seconds=settings.seconds,
            allowance=None if self.allowance is None else max(0.0, (1 - _PREPARING) * self.allowance - spent),
            progress=lambda count: self.progress(f"racing {len(runners)} rivals at {place}", count),
        )
        group = latencies[:, [copied, *range(len(rivals), len(runners))]]
        columns = {index: latencies[:, [index]] for index in range(len(rivals))} | {copied: group}
        floor = resolution(group)
        works = self._works(rivals)
        timings: list[Timing] = []
        for precision in dict.fromkeys(precision_of(rival.runtime) for rival in rivals):
            same = {i: columns[i] for i, rival in enumerate(rivals) if precision_of(rival.runtime) == precision}
            timings += self._compared(rivals, same, Bootstrap(len(latencies), settings.confidence), floor, works, peaks)
        order = {(rival.candidate.identity, rival.runtime.name, precision_of(rival.runtime)): index
                 for index, rival in enumerate(rivals)}  # fmt: skip
        timings.sort(key=lambda one: order[(one.variant, one.level, one.seed, one.key), one.runtime, one.precision])
        return CellResult(
            self.threads, self.batch, timings, floor, [f"at {place} {sign}" for sign in noise(group[:, 0])]
        )

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
        self.progress(f"preparing {COPIES - 1} copies of {rival.candidate} on {rival.runtime.name}")
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
