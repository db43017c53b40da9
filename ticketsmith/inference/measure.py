"""The benchmark: rivals raced against the dense reference, side by side in one process, round by round.

Each round times every rival once, in an order that is shuffled anew, so that whatever the machine does to a round
(heat, neighbours, clock rates) it does to all of them. Rivals are compared by the ratios of each round, not by totals.
The reference races as several identical copies: their median is what the others are compared with, and by how much they
differ is how well this machine can tell two models apart at all.
"""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ticketsmith.errors import RecipeError, TaskError
from ticketsmith.evidence.serving import Benchmark, Refusal, Timing
from ticketsmith.evidence.words import percent
from ticketsmith.inference import agreement, facts
from ticketsmith.inference.eager import Eager
from ticketsmith.inference.runtimes import Call, CannotRunError, Runtime
from ticketsmith.inference.statistics import Bootstrap, Ratio, noise, resolution
from ticketsmith.inference.stopwatch import Stopwatch, quiet

FEWEST_ROUNDS = 10
"""A time budget ends no race before this many rounds: an interval needs them."""

_COPIES = 5
_WARM_UP_SECONDS = 0.1
_WARM_UP_SHARE = 0.25


@dataclass(frozen=True, eq=False)
class Candidate:
    """A trained model of an experiment; ``sparsity`` is the share of its prunable weights that are zero, 0..1.

    The benchmark moves ``model`` to its device, puts it in evaluation mode, and changes nothing else in it.
    """

    variant: str
    level: int
    seed: int
    key: str
    sparsity: float
    model: nn.Module


@dataclass(frozen=True, eq=False)
class _Rival:
    candidate: Candidate
    runtime: str
    call: Call
    max_error: float


def measure(
    reference: Candidate,
    candidates: Sequence[Candidate],
    inputs_of: Callable[[int], Tensor],
    *,
    runtimes: Sequence[Runtime],
    batch_sizes: Sequence[int],
    rounds: int,
    threads: int = 1,
    device: torch.device | None = None,
    confidence: float = 0.95,
    tolerance: float = 1e-4,
    seconds: float | None = None,
    progress: Callable[[int, int], None] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Benchmark:
    """Times ``reference`` and ``candidates`` on every runtime and batch size.

    All are compared with ``reference`` on the first runtime, at the same batch size.

    ``inputs_of(b)`` gives inputs ``[b, ...]``. ``seconds`` is a budget: rounds are left out when it is spent, down to
    ``FEWEST_ROUNDS``; each timing tells its own. ``progress(done, total)`` is told the rounds, between two of them.
    ``clock`` gives seconds. The outputs of every rival are compared with eager PyTorch's before anything is timed.

    A model that a runtime cannot run is listed under ``refusals``. Raises WrongOutputError when a runtime computes
    something else, CannotRunError when the reference itself cannot be run, RecipeError for senseless settings,
    TaskError when the inputs are not of the batch size asked for.
    """
    _check(runtimes, batch_sizes, rounds, threads, confidence)
    device = device or torch.device("cpu")
    stopwatch = Stopwatch.of(device, clock)
    end = None if seconds is None else clock() + seconds
    field = [reference, *(candidate for candidate in candidates if _identity(candidate) != _identity(reference))]
    for candidate in field:
        candidate.model.to(device).eval()
    timings: list[Timing] = []
    refusals: list[Refusal] = []
    noises: list[str] = []
    resolutions: list[str] = []
    with quiet(threads):
        for index, batch_size in enumerate(batch_sizes):
            inputs = inputs_of(batch_size).to(device)
            if len(inputs) != batch_size:
                raise TaskError(f"the task gives {len(inputs)} inputs where {batch_size} were asked for.")
            rivals, refused = _line_up(field, runtimes, inputs, tolerance)
            refusals += refused

            def told(done: int, before: int = index * rounds) -> None:
                if progress is not None:
                    progress(before + done, rounds * len(batch_sizes))

            allowance = None if end is None else max(0.0, end - clock()) / (len(batch_sizes) - index)
            latencies = _race(rivals, inputs, rounds, stopwatch, allowance, told)
            timings += _timings(rivals, latencies, batch_size, threads, confidence)
            resolutions.append(
                f"{percent(round(resolution(latencies[:, :_COPIES]) - 1, 3))} at batch size {batch_size}"
            )
            noises += [f"at batch size {batch_size} {sign}" for sign in noise(latencies[:, 0])]
    machine = facts.describe(device)
    machine["resolution"] = f"Identical copies of the reference differ by up to {', '.join(resolutions)}."
    if noises:
        machine["noise"] = f"The machine was not quiet: {'; '.join(noises)}. Small differences may be its doing."
    return Benchmark(machine, runtimes[0].name, str(device), confidence, tuple(timings), reference.key, tuple(refusals))


def _check(
    runtimes: Sequence[Runtime], batch_sizes: Sequence[int], rounds: int, threads: int, confidence: float
) -> None:
    names = [runtime.name for runtime in runtimes]
    if not names or len(set(names)) < len(names):
        raise RecipeError(f"a benchmark needs runtimes of different names, not {names}.")
    if not batch_sizes or min(batch_sizes) < 1:
        raise RecipeError(f"a benchmark needs batch sizes of 1 or more, not {list(batch_sizes)}.")
    if rounds < 1 or threads < 1:
        raise RecipeError(f"a benchmark needs 1 round and 1 thread or more, not {rounds} and {threads}.")
    if not 0.0 < confidence < 1.0:
        raise RecipeError(f"a confidence lies between 0 and 1, not {confidence}.")


def _identity(candidate: Candidate) -> tuple[str, int, int, str]:
    return candidate.variant, candidate.level, candidate.seed, candidate.key


def _line_up(
    field: Sequence[Candidate], runtimes: Sequence[Runtime], inputs: Tensor, tolerance: float
) -> tuple[list[_Rival], list[Refusal]]:
    """Every candidate on every runtime, prepared and checked; first the copies of the reference on its runtime."""
    reference, runtime = field[0], runtimes[0]
    rivals = [
        _ready(replace(reference, model=copy.deepcopy(reference.model)), runtime, inputs, tolerance)
        for _ in range(_COPIES)
    ]
    refusals = []
    for candidate in field:
        for runtime in runtimes[1:] if candidate is reference else runtimes:
            try:
                rivals.append(_ready(candidate, runtime, inputs, tolerance))
            except CannotRunError as error:
                place = (candidate.variant, candidate.level, candidate.seed)
                refusals.append(Refusal(*place, runtime.name, len(inputs), str(error)))
    return rivals, refusals


def _ready(candidate: Candidate, runtime: Runtime, inputs: Tensor, tolerance: float) -> _Rival:
    what = f"runtime {runtime.name!r} on {candidate.variant} level {candidate.level} seed {candidate.seed}"
    try:
        expected = _output(Eager().prepare(candidate.model, inputs), inputs)
        call = runtime.prepare(candidate.model, inputs)
        actual = _output(call, inputs)
    except CannotRunError:
        raise
    except Exception as error:  # a user's runtime or model may fail in any way
        first_line = next(iter(str(error).splitlines()), "")
        raise CannotRunError(f"{what} fails: {type(error).__name__}: {first_line}") from error
    if not agreement.finite(expected):
        raise CannotRunError("the model's own outputs are not finite: nothing can be compared with them.")
    return _Rival(candidate, runtime.name, call, agreement.max_error(expected, actual, tolerance, what))


def _output(call: Call, inputs: Tensor) -> Tensor:
    outputs = call(inputs.clone())  # a clone: a model may change its inputs in place
    if not isinstance(outputs, Tensor):
        raise CannotRunError(f"the output is a {type(outputs).__name__}; the benchmark compares single tensors.")
    return outputs.clone()  # a runtime may use one output buffer for all calls


def _race(
    rivals: Sequence[_Rival],
    inputs: Tensor,
    rounds: int,
    stopwatch: Stopwatch,
    allowance: float | None,
    told: Callable[[int], None],
) -> NDArray[np.float64]:
    """Seconds a call, ``[rounds, rivals]``; fewer rounds when ``allowance`` seconds are over."""
    end = None if allowance is None else stopwatch.clock() + allowance
    warm_up = _WARM_UP_SECONDS if allowance is None else min(_WARM_UP_SECONDS, _WARM_UP_SHARE * allowance / len(rivals))
    calls = [stopwatch.warm_up(rival.call, inputs, warm_up) for rival in rivals]
    shuffler, order = random.Random(0), list(range(len(rivals)))
    latencies = np.empty((rounds, len(rivals)))
    for done in range(rounds):
        if done >= FEWEST_ROUNDS and end is not None and stopwatch.clock() > end:
            return latencies[:done]
        shuffler.shuffle(order)
        for column in order:
            latencies[done, column] = stopwatch.sample(rivals[column].call, inputs, calls[column])
        told(done + 1)
    return latencies


def _timings(
    rivals: Sequence[_Rival], latencies: NDArray[np.float64], batch_size: int, threads: int, confidence: float
) -> list[Timing]:
    """The reference's timing, of all its copies, and one of each other rival; ``latencies`` is ``[rounds, rivals]``."""
    copies = latencies[:, :_COPIES]
    reference = np.median(copies, axis=1)
    bootstrap, floor = Bootstrap(len(latencies), confidence), resolution(copies)
    timings = [_timing(rivals[0], copies, Ratio(1.0, 1.0, 1.0), batch_size, threads)]
    for column in range(_COPIES, len(rivals)):
        ratio = bootstrap.ratio(reference, latencies[:, column]).widened(floor)
        timings.append(_timing(rivals[column], latencies[:, column], ratio, batch_size, threads))
    return timings


def _timing(rival: _Rival, latencies: NDArray[np.float64], ratio: Ratio, batch_size: int, threads: int) -> Timing:
    p10, median, p90 = (float(value) for value in np.quantile(latencies, (0.1, 0.5, 0.9)))
    return Timing(
        variant=rival.candidate.variant,
        level=rival.candidate.level,
        seed=rival.candidate.seed,
        key=rival.candidate.key,
        sparsity=rival.candidate.sparsity,
        runtime=rival.runtime,
        batch_size=batch_size,
        threads=threads,
        rounds=len(latencies),
        median_ms=1e3 * median,
        p10_ms=1e3 * p10,
        p90_ms=1e3 * p90,
        throughput=batch_size / median,
        speedup=ratio.median,
        speedup_low=ratio.low,
        speedup_high=ratio.high,
        max_error=rival.max_error,
    )
