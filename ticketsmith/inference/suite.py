"""The whole benchmark suite: settings in, one document out."""

from __future__ import annotations

import dataclasses
import importlib.util
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

import torch
from torch import Tensor, nn

from ticketsmith import native
from ticketsmith.errors import RecipeError, TicketSmithError
from ticketsmith.evidence.serving import Benchmark, LoadStep, LoadTest, Timing
from ticketsmith.inference.measuring import memory
from ticketsmith.inference.measuring.lineup import Candidate
from ticketsmith.inference.measuring.measure import Contest, Progress, measure
from ticketsmith.inference.measuring.surroundings import Surroundings, pinned, quiet
from ticketsmith.inference.runtimes import ArrayCall, Deployable, Runtime, is_dense, lined_up, precision_of, runner_of
from ticketsmith.inference.settings import ALL, RUNTIMES, BenchmarkSettings, LoadSettings
from ticketsmith.inference.tables.footprint import Footprint, footprint
from ticketsmith.inference.tables.layers import break_even
from ticketsmith.inference.tables.load import Server, highest_rate, step

_TARGET = 10.0
_LEAST_TARGET_MS = 1.0
"""A load test's target where none is given: so many times the dense model's latency, and no less than systems can keep."""


def run(
    contest: Contest,
    settings: BenchmarkSettings,
    *,
    quick: bool = False,
    progress: Progress = lambda what, count, total: None,
    surroundings: Surroundings | None = None,
) -> Benchmark:
    """Measures a contest as ``settings`` say. ``quick``: by default fewer runtimes.

    Raises TicketSmithError for what cannot be measured as asked.
    """
    device = torch.device(settings.device)
    runtimes, notes = lined_up(_names(settings, device, quick), settings.precisions)
    memory.check(contest.reference.model, contest.inputs_of, settings.batch_sizes, device)
    named = bool(settings.runtimes) and ALL not in settings.runtimes
    if not named and device.type == "cpu":
        notes += _without_kernels()
    benchmark = measure(
        contest,
        runtimes,
        settings,
        everywhere=named or len(contest.field) <= 2,
        progress=progress,
        surroundings=surroundings,
    )
    phases = contest.serving.phases
    if phases and not any(timing.phase for timing in benchmark.timings):
        notes.append(f"{' and '.join(one.name for one in phases)}: the model has no method `session`")
    if notes:
        benchmark = replace(benchmark, machine={**benchmark.machine, "not offered": "; ".join(notes) + "."})
    if settings.memory and device.type == "cpu":
        benchmark = _with_footprints(benchmark, contest, runtimes, progress)
    if settings.layers:
        benchmark = _with_layers(benchmark, contest, runtimes, settings, progress)
    if settings.load is not None:
        benchmark = _with_loads(benchmark, contest, runtimes, settings.load, device, progress)
    return benchmark


def defaults(device: torch.device, quick: bool, unasked: Sequence[str] = ("always", "whole")) -> tuple[str, ...]:
    """The runtimes that are installed here and can be fast."""
    levels = unasked[:1] if quick else unasked
    return tuple(
        name
        for name, builtin in RUNTIMES.items()
        if (builtin.cuda if device.type == "cuda" else builtin.cpu) in levels and all(map(_installed, builtin.packages))
    )


def _names(settings: BenchmarkSettings, device: torch.device, quick: bool) -> tuple[str, ...]:
    if not settings.runtimes:
        return defaults(device, quick)
    every = defaults(device, quick=False, unasked=("always", "whole", ALL))
    names = (name for text in settings.runtimes for name in (every if text == ALL else (text,)))
    return tuple(dict.fromkeys(names))


def _installed(package: str) -> bool:
    return native.available() if package == native.__name__ else importlib.util.find_spec(package) is not None


def _without_kernels() -> list[str]:
    """Why the sparse runtime is not among the runtimes that nobody named, if it is not."""
    try:
        native.library()
    except native.NotBuiltError as error:
        return [str(error).rstrip(".")]
    return []


def _by_name(runtimes: Sequence[Runtime]) -> dict[tuple[str, str], Runtime]:
    return {(runtime.name, precision_of(runtime)): runtime for runtime in runtimes}


def _with_footprints(
    benchmark: Benchmark, contest: Contest, runtimes: Sequence[Runtime], progress: Progress
) -> Benchmark:
    """Fills in load times, memory and sizes, of one call at the first batch size and number of threads.

    Phases get those of the call, since the weights are the same, but for the time of the first call. A dense runtime is
    asked once, with the dense model: the others have as many weights, whatever their values.
    """
    first = benchmark.timings[0]
    cell = (first.batch_size, first.threads)
    inputs = contest.inputs_of(first.batch_size)
    footprints: dict[tuple[object, ...], Footprint | None] = {}
    candidates = {candidate.identity: candidate for candidate in contest.field}
    by_name = _by_name(runtimes)
    timings: list[Timing] = []
    for index, timing in enumerate(benchmark.timings):
        runtime = by_name[timing.runtime, timing.precision]
        if (timing.batch_size, timing.threads) != cell or not isinstance(runtime, Deployable):
            timings.append(timing)
            continue
        identity = (timing.variant, timing.level, timing.seed, timing.key)
        place = (timing.runtime, timing.precision, *(() if is_dense(runtime) else identity))
        progress(f"memory of {candidates[identity]} on {runtime.name}", index, len(benchmark.timings))
        if place not in footprints:
            footprints[place] = _footprint(runtime, candidates[identity], inputs, timing.threads)
        measured = footprints[place]
        if measured is not None:
            numbers = dataclasses.asdict(measured)
            timing = replace(timing, **{name: numbers[name] for name in numbers if hasattr(timing, name)})
        timings.append(replace(timing, first_call_ms=None) if timing.phase else timing)
    return replace(benchmark, timings=tuple(timings))


def _footprint(runtime: Deployable, candidate: Candidate, inputs: Tensor, threads: int) -> Footprint | None:
    with tempfile.TemporaryDirectory(prefix="ticketsmith-") as folder, quiet(threads):
        try:
            deployment = runtime.deploy(candidate.model, inputs, Path(folder))  # type: ignore[arg-type]
        except TicketSmithError:
            return None
        return footprint(deployment, ArrayCall.as_array(inputs), threads, Path(folder))


def _with_layers(
    benchmark: Benchmark,
    contest: Contest,
    runtimes: Sequence[Runtime],
    settings: BenchmarkSettings,
    progress: Progress,
) -> Benchmark:
    model = contest.reference.model
    if not isinstance(model, nn.Module):
        raise RecipeError("--layers needs a PyTorch model: an ONNX file has no layers to take apart.")
    dense = [one for one in runtimes if is_dense(one) and precision_of(one) == "float32"]
    layers = break_even(
        model, contest.inputs_of(1), dense, threads=settings.threads[0], rounds=settings.rounds, progress=progress
    )
    return replace(benchmark, layers=layers)


def _with_loads(
    benchmark: Benchmark,
    contest: Contest,
    runtimes: Sequence[Runtime],
    load: LoadSettings,
    device: torch.device,
    progress: Progress,
) -> Benchmark:
    """Load tests with requests of one input: of the dense model at its strongest, and of each other at its fastest.

    Of experiments, the winning ticket is tested and not its controls.
    """
    size = min(timing.batch_size for timing in benchmark.timings)
    candidates = {candidate.identity: candidate for candidate in contest.field}
    by_name = _by_name(runtimes)
    loads: list[LoadTest] = []
    pairs = _to_be_loaded(benchmark, size)
    for index, (timing, dense) in enumerate(pairs):
        target = load.target_ms or max(_LEAST_TARGET_MS, _TARGET * dense.median_ms)
        candidate = candidates[timing.variant, timing.level, timing.seed, timing.key]
        inputs = contest.inputs(size, device)
        progress(f"load test of {candidate} on {timing.runtime}", index, len(pairs))
        with pinned(timing.threads), quiet(timing.threads):
            call = by_name[timing.runtime, timing.precision].prepare(candidate.model, inputs)  # type: ignore[arg-type]
            runner, seeds = runner_of(call, inputs), count()

            def answer() -> None:
                runner.run(runner.inputs)  # noqa: B023
                if device.type == "cuda":
                    torch.cuda.synchronize(device)

            def attempt(rate: float) -> LoadStep:
                return step(Server(answer), rate, target / 1e3, load.percentile, next(seeds))  # noqa: B023

            for _ in range(3):
                answer()
            rate, steps = highest_rate(attempt, 1e3 / timing.median_ms)
        place = timing.variant, timing.level, timing.seed, timing.key, timing.sparsity
        way = timing.runtime, timing.precision, timing.threads, timing.dense
        loads.append(LoadTest(*place, *way, target, load.percentile, rate, steps))
    return replace(benchmark, loads=tuple(loads))


def _to_be_loaded(benchmark: Benchmark, size: int) -> list[tuple[Timing, Timing]]:
    """The timings whose models are tested, each with the dense one of its cell, or the reference where there is none."""
    here = [timing for timing in benchmark.timings if timing.batch_size == size and not timing.phase]
    pairs = []
    for cell in dict.fromkeys(timing.cell for timing in here):
        rows = [timing for timing in here if timing.cell == cell]
        dense = next(
            (row for row in rows if row.runtime == row.against and row.key == benchmark.reference_key), rows[0]
        )
        pairs.append((dense, dense))
        variants = dict.fromkeys(row.variant for row in rows)
        compared = ("ticket",) if "ticket" in variants else tuple(variants)
        for identity in dict.fromkeys((row.variant, row.level, row.seed, row.key) for row in rows):
            own = [row for row in rows if (row.variant, row.level, row.seed, row.key) == identity and not row.dense]
            if own and identity[0] in compared:
                pairs.append((min(own, key=lambda row: row.median_ms), dense))
    return pairs
