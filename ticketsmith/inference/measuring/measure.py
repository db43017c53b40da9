"""The benchmark: models raced against the strongest dense runtime, side by side in one process.

Timings are compared within a **cell**: the same phase, precision, batch size and number of threads. The dense model on the
dense runtime that turns out fastest there is 1.0, whoever that is. It races as several identical copies: their median is what
the others are compared with, and by how much they differ is how well this machine can tell two models apart at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ticketsmith.errors import RecipeError, TaskError
from ticketsmith.evidence.serving import Benchmark
from ticketsmith.inference.measuring import facts
from ticketsmith.inference.measuring.cell import Cell
from ticketsmith.inference.measuring.lineup import Candidate, pairs
from ticketsmith.inference.measuring.surroundings import Surroundings, pinned, quiet, signs, stopwatch_for
from ticketsmith.inference.measuring.workload import Workload, workloads
from ticketsmith.inference.runtimes import CannotRunError, Runtime, precision_of
from ticketsmith.inference.settings import BenchmarkSettings
from ticketsmith.tasks.task import ONE_CALL, Decoder, Serving

Progress = Callable[[str, int, int], None]
"""``progress(what, done, total)``: what is being done now, and how many rounds of how many."""


@dataclass(frozen=True, eq=False)
class Contest:
    """What is measured: ``reference``, the dense model, against ``candidates``, which may hold the reference too.

    ``inputs_of(b)`` gives inputs ``[b, ...]``. ``serving`` says what is counted, and in which phases models that have
    sessions are timed beside one call as they are.
    """

    reference: Candidate
    candidates: Sequence[Candidate]
    inputs_of: Callable[[int], Tensor]
    serving: Serving = ONE_CALL

    @property
    def field(self) -> list[Candidate]:
        """Each model once, the reference first."""
        others = (one for one in self.candidates if one.identity != self.reference.identity)
        return [self.reference, *others]

    @property
    def served(self) -> Serving:
        """How the models are served; without phases where the reference has no sessions."""
        return self.serving if isinstance(self.reference.model, Decoder) else replace(self.serving, phases=())

    def inputs(self, batch_size: int, device: torch.device) -> Tensor:
        """Inputs of a batch size on a device. Raises TaskError when there are more or fewer."""
        inputs = self.inputs_of(batch_size).to(device)
        if len(inputs) != batch_size:
            raise TaskError(f"the task gives {len(inputs)} inputs where {batch_size} were asked for.")
        return inputs


def measure(
    contest: Contest,
    runtimes: Sequence[Runtime],
    settings: BenchmarkSettings,
    *,
    everywhere: bool = True,
    progress: Progress = lambda what, count, total: None,
    surroundings: Surroundings | None = None,
) -> Benchmark:
    """Times all models of a contest on every one of ``runtimes``, batch size and number of threads.

    ``settings.budget``, in seconds, is for all races: when it is spent, rounds are left out, down to ``race.FEWEST_ROUNDS``,
    and rivals that are not ready. ``everywhere``: see ``lineup.pairs``. ``surroundings``: what to ask for the time, and for
    the machine's facts, peaks and noise. The outputs of every rival are compared with what the model says, in float64 where
    that can be had, before anything is timed; those of a phase with what it says of the whole sequence.

    A model that a runtime cannot run, or computes something else for, is listed under ``refusals``. Raises CannotRunError
    when nothing can be run at all, RecipeError for runtimes of one name, TaskError when the inputs are not of the batch size
    asked for.
    """
    _check(runtimes)
    device, field, serving = torch.device(settings.device), contest.field, contest.served
    around = surroundings or Surroundings()
    for candidate in field:
        if isinstance(candidate.model, nn.Module):
            candidate.model.to(device).eval()
    clock = around.clock
    stopwatch = stopwatch_for(device, clock)
    end = None if settings.budget is None else clock() + settings.budget
    count = len(settings.threads) * len(settings.batch_sizes) * (1 + len(serving.phases))
    total = settings.rounds * count
    cells, refusals, peaks = [], [], {}
    before = around.state()
    pins: dict[int, str] = {}
    for index, (threads, workload) in enumerate(_workloads(contest, settings, device)):
        start = index * settings.rounds
        with pinned(threads) as cores, quiet(threads):
            names = f"core{'s' if len(cores) > 1 else ''} {', '.join(map(str, cores))}"
            pins[threads] = f"{threads}, on {names}" if cores else str(threads)
            if threads not in peaks and device.type == "cpu":
                progress(f"measuring the machine's peaks with {threads} threads", start, total)
                peaks[threads] = around.peaks(threads)
            allowance = None if end is None else max(0.0, end - clock()) / (count - index)

            def tell(what: str, count: int = 0, start: int = start) -> None:
                progress(what, start + min(count, settings.rounds), total)

            cell = Cell(field, workload, threads, stopwatch, allowance, tell)
            rivals, refused = cell.line_up(pairs(field, runtimes, everywhere), contest.inputs_of)
            refusals += refused
            if rivals:
                cells.append(cell.race(rivals, settings, peaks.get(threads)))
    if not cells:
        raise CannotRunError(f"nothing could be run: {refusals[0].runtime}: {refusals[0].reason}")
    machine = around.describe(device) | facts.of_benchmark(cells, pins)
    noises = [sign for cell in cells for sign in cell.noises] + signs(before, around.state())
    if noises:
        machine["noise"] = f"The machine was not quiet: {'; '.join(noises)}. Small differences may be its doing."
    return Benchmark(
        machine,
        runtimes[0].name,
        str(device),
        settings.confidence,
        tuple(timing for cell in cells for timing in cell.timings),
        contest.reference.key,
        tuple(refusals),
        unit=serving.unit,
        peaks=tuple(one for one in peaks.values() if one is not None),
    )


def _check(runtimes: Sequence[Runtime]) -> None:
    names = [(runtime.name, precision_of(runtime)) for runtime in runtimes]
    if not names or len(set(names)) < len(names):
        raise RecipeError(f"a benchmark needs runtimes of different names, not {[name for name, _ in names]}.")


def _workloads(contest: Contest, settings: BenchmarkSettings, device: torch.device) -> Iterator[tuple[int, Workload]]:
    for threads in settings.threads:
        for size in settings.batch_sizes:
            for workload in workloads(contest.served, contest.inputs(size, device)):
                yield threads, workload
