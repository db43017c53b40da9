"""The whole benchmark suite: settings in, one document out."""

from __future__ import annotations

import dataclasses
import importlib.util
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ticketsmith import native
from ticketsmith.errors import RecipeError, TicketSmithError
from ticketsmith.evidence.serving import Benchmark, LoadTest, Timing
from ticketsmith.inference import memory
from ticketsmith.inference.footprint import Footprint, footprint
from ticketsmith.inference.layers import break_even
from ticketsmith.inference.lineup import Candidate
from ticketsmith.inference.load import Server, highest_rate, step
from ticketsmith.inference.measure import Progress, measure
from ticketsmith.inference.race import Runner
from ticketsmith.inference.runtimes import ArrayCall, Deployable, Runtime, is_dense, lined_up, precision_of
from ticketsmith.inference.settings import LoadSettings, Settings
from ticketsmith.inference.stopwatch import quiet
from ticketsmith.inference.surroundings import Surroundings, pinned
from ticketsmith.tasks.task import ONE_CALL, Serving

_TARGET = 10.0
_LEAST_TARGET_MS = 1.0
"""A load test's target where none is given: so many times the dense model's latency, and no less than systems can keep."""

ALL = "all"
"""In place of runtimes: every one that is built in."""


def run(
    reference: Candidate,
    candidates: Sequence[Candidate],
    inputs_of: Callable[[int], Tensor],
    settings: Settings,
    *,
    serving: Serving = ONE_CALL,
    quick: bool = False,
    progress: Progress = lambda what, done, total: None,
    surroundings: Surroundings | None = None,
) -> Benchmark:
    """Measures ``reference`` (the dense model) and ``candidates`` as ``settings`` say.

    ``serving``: what is counted, and the phases to be timed apart. ``quick``: by default fewer runtimes. Raises
    TicketSmithError for what cannot be measured as asked.
    """
    device = torch.device(settings.device)
    names = _names(settings, device, quick)
    runtimes, notes = lined_up(names, settings.precisions)
    field = [reference, *(one for one in candidates if one.identity != reference.identity)]
    memory.check(reference.model, inputs_of, settings.batch_sizes, device)
    named = bool(settings.runtimes) and ALL not in settings.runtimes
    benchmark = measure(
        reference,
        candidates,
        inputs_of,
        runtimes=runtimes,
        batch_sizes=settings.batch_sizes,
        rounds=settings.rounds,
        threads=settings.threads,
        device=device,
        seconds=settings.seconds,
        budget=settings.budget,
        serving=serving,
        everywhere=named or len(field) <= 2,
        progress=progress,
        surroundings=surroundings,
    )
    if serving.phases and not any(timing.phase for timing in benchmark.timings):
        notes.append(f"{' and '.join(one.name for one in serving.phases)}: the model has no method `session`")
    if notes:
        benchmark = replace(benchmark, machine={**benchmark.machine, "not offered": "; ".join(notes) + "."})
    if settings.memory and device.type == "cpu":
        benchmark = _with_footprints(benchmark, field, runtimes, inputs_of, progress)
    if settings.layers:
        benchmark = _with_layers(benchmark, reference, runtimes, inputs_of, settings, progress)
    if settings.load is not None:
        benchmark = _with_loads(benchmark, field, runtimes, inputs_of, settings.load, device, progress)
    return benchmark


def defaults(device: torch.device, quick: bool) -> tuple[str, ...]:
    """The runtimes that are installed here and can be fast; ``torch_compile`` takes too long to get ready on a CPU."""
    if device.type == "cuda":
        return ("torch", "torch_compile", "cuda_graph", "torch_24")
    onnx = _installed("onnx")
    found = ["torch"]
    if onnx and _installed("onnxruntime"):
        found.append("onnxruntime")
    if onnx and not quick and _installed("openvino"):
        found.append("openvino")
    if native.available():
        found.append("sparse")
    return (*found, *(() if quick else ("compact", "torch_csr")))


def _names(settings: Settings, device: torch.device, quick: bool) -> tuple[str, ...]:
    if not settings.runtimes:
        return defaults(device, quick)
    every = (*defaults(device, quick=False), "torch_compile")
    names = (name for given in settings.runtimes for name in (every if given == ALL else (given,)))
    return tuple(dict.fromkeys(names))


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _with_footprints(
    benchmark: Benchmark,
    field: Sequence[Candidate],
    runtimes: Sequence[Runtime],
    inputs_of: Callable[[int], Tensor],
    progress: Progress,
) -> Benchmark:
    """Fills in load times, memory and sizes, of one call at the first batch size and number of threads.

    Phases get those of the call, since the weights are the same, but for the time of the first call. A dense runtime is
    asked once, with the dense model: the others have as many weights, whatever their values.
    """
    first = benchmark.timings[0]
    cell = (first.batch_size, first.threads)
    inputs = inputs_of(first.batch_size)
    known: dict[tuple[object, ...], Footprint | None] = {}
    by_key = {candidate.identity: candidate for candidate in field}
    by_name = {(runtime.name, precision_of(runtime)): runtime for runtime in runtimes}
    timings: list[Timing] = []
    for index, timing in enumerate(benchmark.timings):
        runtime = by_name[timing.runtime, timing.precision]
        if (timing.batch_size, timing.threads) != cell or not isinstance(runtime, Deployable):
            timings.append(timing)
            continue
        identity = (timing.variant, timing.level, timing.seed, timing.key)
        place = (timing.runtime, timing.precision, *(() if is_dense(runtime) else identity))
        progress(f"memory of {by_key[identity]} on {runtime.name}", index, len(benchmark.timings))
        if place not in known:
            known[place] = _footprint(runtime, by_key[identity], inputs, timing.threads)
        found = known[place]
        if found is not None:
            timing = replace(timing, **dataclasses.asdict(found))
        timings.append(replace(timing, first_call_ms=None) if timing.phase else timing)
    return replace(benchmark, timings=tuple(timings))


def _footprint(runtime: Deployable, candidate: Candidate, inputs: Tensor, threads: int) -> Footprint | None:
    with tempfile.TemporaryDirectory(prefix="ticketsmith-") as folder, quiet(threads):
        try:
            deployment = runtime.deploy(candidate.model, inputs, Path(folder))  # type: ignore[arg-type]
        except TicketSmithError:
            return None
        return footprint(deployment, ArrayCall.given(inputs), threads, Path(folder))


def _with_layers(
    benchmark: Benchmark,
    reference: Candidate,
    runtimes: Sequence[Runtime],
    inputs_of: Callable[[int], Tensor],
    settings: Settings,
    progress: Progress,
) -> Benchmark:
    if not isinstance(reference.model, nn.Module):
        raise RecipeError("--layers needs a PyTorch model: an ONNX file has no layers to take apart.")
    dense = [one for one in runtimes if is_dense(one) and precision_of(one) == "float32"]
    found = break_even(
        reference.model, inputs_of(1), dense, threads=settings.threads[0], rounds=settings.rounds, progress=progress
    )
    return replace(benchmark, layers=found)


def _with_loads(
    benchmark: Benchmark,
    field: Sequence[Candidate],
    runtimes: Sequence[Runtime],
    inputs_of: Callable[[int], Tensor],
    load: LoadSettings,
    device: torch.device,
    progress: Progress,
) -> Benchmark:
    """Load tests with requests of one input: of the dense model at its strongest, and of each other at its fastest.

    Of experiments, the winning ticket is tested and not its controls.
    """
    size = min(timing.batch_size for timing in benchmark.timings)
    by_key = {candidate.identity: candidate for candidate in field}
    by_name = {(runtime.name, precision_of(runtime)): runtime for runtime in runtimes}
    tested: list[LoadTest] = []
    chosen = _to_be_loaded(benchmark, size)
    for index, (timing, dense) in enumerate(chosen):
        target = load.target_ms or max(_LEAST_TARGET_MS, _TARGET * dense.median_ms)
        candidate = by_key[timing.variant, timing.level, timing.seed, timing.key]
        inputs = inputs_of(size).to(device)
        progress(f"load test of {candidate} on {timing.runtime}", index, len(chosen))
        with pinned(timing.threads), quiet(timing.threads):
            call = by_name[timing.runtime, timing.precision].prepare(candidate.model, inputs)  # type: ignore[arg-type]
            runner = Runner.of(call, inputs)

            def answer(runner: Runner = runner) -> None:
                runner.run(runner.inputs)
                if device.type == "cuda":
                    torch.cuda.synchronize(device)

            for _ in range(3):
                answer()
            server = Server(answer)
            seeds = iter(range(10_000))
            rate, steps = highest_rate(
                lambda rate, server=server, target=target, seeds=seeds: step(  # type: ignore[misc]
                    server, rate, target / 1e3, load.percentile, next(seeds)
                ),
                1e3 / timing.median_ms,
            )
        tested.append(
            LoadTest(
                timing.variant,
                timing.level,
                timing.seed,
                timing.key,
                timing.sparsity,
                timing.runtime,
                timing.precision,
                timing.threads,
                timing.dense,
                target,
                load.percentile,
                rate,
                steps,
            )
        )
    return replace(benchmark, loads=tuple(tested))


def _to_be_loaded(benchmark: Benchmark, size: int) -> list[tuple[Timing, Timing]]:
    """The timings whose models are tested, each with the dense one of its cell, or the reference where there is none."""
    here = [timing for timing in benchmark.timings if timing.batch_size == size and not timing.phase]
    chosen = []
    for cell in dict.fromkeys(timing.cell for timing in here):
        rows = [timing for timing in here if timing.cell == cell]
        dense = next(
            (row for row in rows if row.runtime == row.against and row.key == benchmark.reference_key), rows[0]
        )
        chosen.append((dense, dense))
        variants = dict.fromkeys(row.variant for row in rows)
        wanted = ("ticket",) if "ticket" in variants else tuple(variants)
        for identity in dict.fromkeys((row.variant, row.level, row.seed, row.key) for row in rows):
            own = [row for row in rows if (row.variant, row.level, row.seed, row.key) == identity and not row.dense]
            if own and identity[0] in wanted:
                chosen.append((min(own, key=lambda row: row.median_ms), dense))
    return chosen
