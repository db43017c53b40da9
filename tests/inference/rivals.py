"""Small candidates, a clock that tests move by hand, and runtimes that do what no runtime should."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ticketsmith.evidence.serving import Benchmark, Peaks
from ticketsmith.inference.measuring.lineup import Candidate
from ticketsmith.inference.measuring.measure import Contest, Progress, measure
from ticketsmith.inference.measuring.surroundings import State, Surroundings
from ticketsmith.inference.runtimes import Call, CannotRunError, Runtime
from ticketsmith.inference.runtimes.eager import Eager
from ticketsmith.inference.settings import BenchmarkSettings
from ticketsmith.models.lenet import lenet_300_100
from ticketsmith.tasks.task import ONE_CALL, Serving


def lenet(sparsity: float = 0.0) -> nn.Module:
    model = lenet_300_100((1, 28, 28), 10)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(torch.rand(parameter.shape, generator=generator) >= sparsity)
    return model


def candidate(level: int = 0, sparsity: float = 0.0, model: nn.Module | None = None) -> Candidate:
    variant = "ticket" if level else "dense"
    return Candidate(variant, level, 0, f"key{level}", sparsity, lenet(sparsity) if model is None else model)


def images(batch_size: int) -> Tensor:
    return torch.rand(batch_size, 1, 28, 28, generator=torch.Generator().manual_seed(1))


class Clock:
    """Time passes only when somebody lets it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Clocked:
    """Eager PyTorch whose calls take as long as ``seconds()`` says, on a clock of the test's."""

    def __init__(self, name: str, clock: Clock, seconds: Callable[[], float]) -> None:
        self.name, self.clock, self.seconds = name, clock, seconds

    def prepare(self, model: nn.Module, example: Tensor) -> Call:
        eager = Eager().prepare(model, example)
        outputs = eager(example)

        def call(inputs: Tensor) -> Tensor:
            self.clock.now += self.seconds()
            return outputs if torch.equal(inputs, example) else eager(inputs)

        return call


class Lying:
    """Fast, and wrong."""

    name = "lying"

    def prepare(self, model: nn.Module, example: Tensor) -> Call:
        return lambda inputs: torch.zeros(len(inputs), 10)


class Slow:
    """Does everything three times."""

    name = "slow"

    def __init__(self, times: int = 3) -> None:
        self.times = times

    def prepare(self, model: nn.Module, example: Tensor) -> Call:
        eager = Eager().prepare(model, example)

        def call(inputs: Tensor) -> Tensor:
            for _ in range(self.times - 1):
                eager(inputs)
            return eager(inputs)

        return call


class Fussy:
    """Runs no model at all."""

    name = "fussy"

    def prepare(self, model: nn.Module, example: Tensor) -> Call:
        raise CannotRunError("this machine lacks the instructions.")


class Broken:
    """Fails when it is called."""

    name = "broken"

    def prepare(self, model: nn.Module, example: Tensor) -> Call:
        def call(inputs: Tensor) -> Tensor:
            raise ValueError("no kernel\nfor this")

        return call


class Zeros:
    """Takes as much less time as a model has zeros; ``precision`` is only said."""

    dense = False

    def __init__(self, clock: Clock, seconds: float, name: str = "zeros", precision: str = "float32") -> None:
        self.clock, self.seconds, self.name, self.precision = clock, seconds, name, precision

    def prepare(self, model: nn.Module, example: Tensor) -> Call:
        weights = torch.cat([parameter.flatten() for parameter in model.parameters()])
        density = float(torch.count_nonzero(weights)) / len(weights)
        return Clocked(self.name, self.clock, lambda: density * self.seconds).prepare(model, example)


class Nameless:
    """No runtime."""


class Still(Surroundings):
    """A machine that does nothing else, reaches known peaks, and has its own time if a clock is given."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock

    def describe(self, device: torch.device) -> dict[str, str]:
        return {"CPU": "of the tests"}

    def peaks(self, threads: int) -> Peaks:
        return Peaks(threads, 1e11, 1e10, ((1_000, 4e10), (10_000_000, 1e10)))

    def state(self) -> State:
        return State(0.0)


def raced(
    reference: Candidate,
    candidates: list[Candidate],
    inputs_of: Callable[[int], Tensor],
    *,
    runtimes: Sequence[Runtime],
    serving: Serving = ONE_CALL,
    clock: Callable[[], float] = time.perf_counter,
    everywhere: bool = True,
    progress: Progress = lambda what, done, total: None,
    **settings: Any,
) -> Benchmark:
    """``measure`` on a still machine."""
    return measure(
        Contest(reference, candidates, inputs_of, serving),
        runtimes,
        BenchmarkSettings(**settings),
        everywhere=everywhere,
        progress=progress,
        surroundings=Still(clock),
    )
