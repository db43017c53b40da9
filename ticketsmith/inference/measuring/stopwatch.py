"""How a model's calls are timed: what is called, what is waited for, and in which state."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ticketsmith.inference.runtimes import ArrayCall, Call
from ticketsmith.race import Runner, Stopwatch


def stopwatch_for(device: torch.device, clock: Callable[[], float]) -> Stopwatch:
    """The stopwatch for calls that compute on ``device``: a GPU's queue must be empty when it is read."""
    if device.type == "cuda":
        return Stopwatch(clock, lambda: torch.cuda.synchronize(device))
    return Stopwatch(clock)


def runner_of(call: Call, inputs: Tensor) -> Runner:
    """A call's innermost function, and inputs that are converted already."""
    return Runner(call.arrays, call.as_array(inputs)) if isinstance(call, ArrayCall) else Runner(call, inputs)


@contextmanager
def quiet(threads: int) -> Iterator[None]:
    """The state in which everything is timed: ``threads`` CPU threads, no garbage collector, no deterministic kernels.

    Training's deterministic mode also fills fresh memory before use, which no server does. All is put back afterwards.
    """
    threads_before = torch.get_num_threads()
    strict, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(False)
        yield
    finally:
        torch.use_deterministic_algorithms(strict, warn_only=warn_only)
        torch.set_num_threads(threads_before)
        if collecting:
            gc.enable()
