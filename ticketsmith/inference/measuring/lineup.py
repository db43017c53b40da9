"""Who races: every model on every runtime, ready, and its outputs compared with the reference's. What is wrong is not timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ticketsmith.errors import TicketSmithError, in_a_line
from ticketsmith.evidence.serving import Refusal, with_precision
from ticketsmith.inference.measuring import agreement
from ticketsmith.inference.measuring.workload import Workload, output
from ticketsmith.inference.runtimes import Call, CannotRunError, OnnxFile, Runtime, is_dense, precision_of, tolerance_of
from ticketsmith.plugins import foreign
from ticketsmith.units import percent

LEAST_AGREEMENT = 0.95
"""Of a low precision: so many of the inputs must be put into the same class as in float32."""

AGREEMENT_INPUTS = 256
"""On how many inputs that is counted, at most; they are different ones as far as the task has them."""

_TIME_IS_OVER = "left out: the time for this benchmark was over. `ticketsmith benchmark` takes the time it needs."


@dataclass(frozen=True, eq=False)
class Candidate:
    """A model to be measured; ``sparsity`` is the share of its prunable weights that are zero, 0..1.

    The benchmark moves ``model`` to its device, puts it in evaluation mode, and changes nothing else in it.
    """

    variant: str
    level: int
    seed: int
    key: str
    sparsity: float
    model: nn.Module | OnnxFile

    @property
    def identity(self) -> tuple[str, int, int, str]:
        return self.variant, self.level, self.seed, self.key

    def __str__(self) -> str:
        return f"{self.variant} level {self.level} seed {self.seed}"


@dataclass(frozen=True, eq=False)
class Rival:
    """A model on a runtime, ready to race. ``max_error`` is from what ``compared_with`` says; ``made_in``: the seconds that
    getting ready took."""

    candidate: Candidate
    runtime: Runtime
    call: Call
    max_error: float
    compared_with: str = ""
    agreement: float | None = None
    made_in: float = 0.0


def line_up(
    pairs: Sequence[tuple[Candidate, Runtime]],
    workload: Workload,
    more_inputs: Callable[[], Tensor],
    time_is_over: Callable[[], bool] = lambda: False,
    progress: Callable[[str], None] = lambda text: None,
) -> tuple[list[Rival], list[Refusal]]:
    """The pairs that can race, and why the others cannot.

    ``more_inputs()`` gives many inputs ``[n, ...]`` on which classes are compared at low precision. When
    ``time_is_over``, the pairs that are not ready yet are left out.
    """
    rivals: list[Rival] = []
    refusals: list[Refusal] = []
    expected: dict[int, agreement.Reference] = {}
    for candidate, runtime in pairs:
        progress(f"preparing {candidate} on {runtime.name}")
        try:
            if rivals and time_is_over():
                raise CannotRunError(_TIME_IS_OVER)
            begin = time.perf_counter()
            if id(candidate) not in expected:
                expected[id(candidate)] = _reference(candidate, workload)
            rivals.append(_ready(candidate, runtime, workload, expected[id(candidate)], more_inputs, begin))
        except TicketSmithError as error:
            place = (candidate.variant, candidate.level, candidate.seed)
            refusals.append(
                Refusal(*place, with_precision(runtime.name, precision_of(runtime)), len(workload.inputs), str(error))
            )
    return rivals, refusals


def another(rival: Rival, model: nn.Module | OnnxFile, workload: Workload) -> Rival:
    """The same model on the same runtime once more, in other memory."""
    return replace(rival, call=workload.prepare(rival.runtime, model, shared=False))


def _reference(candidate: Candidate, workload: Workload) -> agreement.Reference:
    """What the model itself says."""
    try:
        reference = workload.reference(candidate.model)
    except CannotRunError:
        raise
    except Exception as error:  # a user's model may fail in any way
        raise CannotRunError(f"the model of {candidate} fails: {_first_line(error)}") from error
    if not agreement.finite(reference.plain):
        raise CannotRunError(
            f"the model's own outputs by {reference.library} are not finite: nothing can be compared with them."
        )
    return reference


def _ready(
    candidate: Candidate,
    runtime: Runtime,
    workload: Workload,
    expected: agreement.Reference,
    more_inputs: Callable[[], Tensor],
    begin: float,
) -> Rival:
    what = f"runtime {runtime.name!r} on {candidate}" + (f" in {workload.phase}" if workload.phase else "")
    if isinstance(candidate.model, OnnxFile) and not getattr(runtime, "takes_onnx", False):
        raise CannotRunError("it runs PyTorch modules, and this is an ONNX file.")
    with foreign(lambda error: CannotRunError(f"{what} fails: {_first_line(error)}")):
        call = workload.prepare(runtime, candidate.model)
        actual = output(call, workload.call_inputs)
        low, shared = precision_of(runtime) != "float32", None
        if low:
            shared = _shared_classes(workload.exact(candidate.model), call, more_inputs(), len(workload.inputs))
    try:
        difference = agreement.judged(expected, actual, tolerance_of(runtime), what, 1e-6 if low else 1.0)
    except agreement.WrongOutputError as error:
        raise agreement.WrongOutputError(f"{error} It was not timed.") from error
    if shared is not None and shared < LEAST_AGREEMENT:
        raise agreement.WrongOutputError(
            f"{what} gives the same class as float32 for only {percent(shared)} of the inputs; {percent(LEAST_AGREEMENT)} "
            "is the least. It was not timed."
        )
    return Rival(candidate, runtime, call, difference, expected.name, shared, time.perf_counter() - begin)


def _shared_classes(exact: Call, call: Call, inputs: Tensor, batch_size: int) -> float | None:
    """The share of inputs for which a call finds the class that the model finds in float32."""
    shares = []
    for begin in range(0, len(inputs) - batch_size + 1, batch_size):
        batch = inputs[begin : begin + batch_size]
        share = agreement.same_class(output(exact, batch), output(call, batch))
        if share is None:
            return None
        shares.append(share)
    return sum(shares) / len(shares) if shares else None


def _first_line(error: Exception) -> str:
    if isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error):
        return "it needs more memory than there is. Choose a smaller batch size."
    return in_a_line(error)


def pairs(field: Sequence[Candidate], runtimes: Sequence[Runtime], everywhere: bool) -> list[tuple[Candidate, Runtime]]:
    """Who is to race on what; ``field[0]`` is the reference.

    Not ``everywhere``: a dense runtime takes as long for a pruned model as for the dense one, since zeros are multiplied
    too; so only the first runtime shows that on every model, the other dense ones run the reference alone.
    """
    return [
        (candidate, runtime)
        for candidate in field
        for index, runtime in enumerate(runtimes)
        if everywhere or candidate is field[0] or index == 0 or not is_dense(runtime)
    ]
