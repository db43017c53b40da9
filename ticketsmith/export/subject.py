"""What is exported: one run, its model, and what is known of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ticketsmith.errors import Exit, TicketSmithError
from ticketsmith.evidence.results import Result
from ticketsmith.evidence.size import size_of
from ticketsmith.evidence.verdicts import GatePolicy
from ticketsmith.export.ticket import Ticket
from ticketsmith.inference.measuring import exact
from ticketsmith.inference.measuring.agreement import Reference, WrongOutputError, judged
from ticketsmith.models.state import load
from ticketsmith.store.contract import SealedRun
from ticketsmith.tasks.build import build_model, example, single_example
from ticketsmith.tasks.task import Task
from ticketsmith.units import removed

TOLERANCE = 1e-4
"""How far outputs of an exported file may be from the model's, relative to the largest when that is above 1."""

_BATCH_SIZES = (1, 7)  # two, since a file must take any


class ExportError(TicketSmithError):
    """A run cannot be exported as asked; the message says why."""


class QualityLostError(ExportError):
    """Rounded weights lose more than the experiment's gates tolerate."""

    exit_status = Exit.GATE_FAILED


@dataclass(frozen=True)
class Evidence:
    """What the experiment says of a run, in finished sentences and cells of text; whoever knows the findings fills it in.

    ``gates`` has a sentence a gate, with interval and looks; ``speeds`` are rows under ``model_card.SPEED_HEAD``. ``pipeline``
    is the Hub's name of the task, ``base_model`` and ``datasets`` are names there; all may be empty.
    """

    headline: str = ""
    gates: Sequence[str] = ()
    controls: str = ""
    limits: Sequence[str] = ()
    speeds: Sequence[Sequence[str]] = ()
    machine: Sequence[tuple[str, str]] = ()
    facts: Sequence[tuple[str, str]] = ()
    data: Sequence[tuple[str, str]] = ()
    pipeline: str = ""
    base_model: str = ""
    datasets: Sequence[str] = ()


@dataclass(frozen=True, eq=False)
class Subject:
    """One sealed run. ``results`` are all of its experiment; ``model`` is in evaluation mode, on the CPU.

    ``verdict`` says what the gates say of its level on the test split: PASS, FAIL, INCONCLUSIVE, or None when not judged.
    ``parent`` finds a sealed run that this one came from, None when the store has it not. ``warnings`` say what speaks
    against serving this very run; ``evidence`` gives what its experiment says, for a model card.
    """

    ticket: Ticket
    result: Result
    results: Sequence[Result]
    model: nn.Module
    task: Task
    policy: GatePolicy
    verdict: str | None
    parent: Callable[[str], SealedRun | None] = lambda key: None
    warnings: Sequence[str] = ()
    evidence: Callable[[], Evidence] = Evidence

    @property
    def identity(self) -> dict[str, Any]:
        """What files that leave the store tell of their run: its key, and what was removed."""
        result = self.result
        return {"key": result.key, "sparsity": result.sparsity, "removed": removed(size_of([result]))}

    def check(self, what: str, call: Callable[..., Any]) -> float:
        """The largest difference of ``call``'s outputs from the model's, on the first test inputs; from the model's in float64
        where it is the model that is far from that. Raises ExportError."""
        errors = []
        for size in _BATCH_SIZES:
            inputs = example(self.task, size)
            expected = self.outputs(*inputs)
            with torch.inference_mode():
                actual = _tensors(call(*(tensor.clone() for tensor in inputs)))
            if [tensor.shape for tensor in actual] != [tensor.shape for tensor in expected]:
                raise ExportError(f"{what} gives outputs of other shapes than the model.")
            for plain, output in zip(expected, actual, strict=True):
                try:
                    errors.append(self._difference(plain, output, inputs, what, alone=len(expected) == 1))
                except WrongOutputError as error:
                    raise ExportError(str(error)) from error
        return max(errors)

    def _difference(self, plain: Tensor, output: Tensor, inputs: tuple[Tensor, ...], what: str, alone: bool) -> float:
        try:
            return judged(Reference(plain, "the model"), output, TOLERANCE, what)
        except WrongOutputError:
            # it may be nearer to float64 than the model in float32
            precise = exact.of_module(self.model, *inputs) if alone else None
            if precise is None or precise.shape != plain.shape:
                raise
            return judged(Reference(plain, "the model", precise, exact.PYTORCH), output, TOLERANCE, what)

    def outputs(self, *inputs: Tensor) -> list[Tensor]:
        """All tensors that the model gives. Raises ExportError when there are none."""
        with torch.inference_mode():
            outputs = [tensor.clone() for tensor in _tensors(self.model(*(tensor.clone() for tensor in inputs)))]
        if not outputs:
            raise ExportError("the model's outputs hold no tensor: no file could be compared with it.")
        return outputs

    def single(self) -> None:
        """Raises ExportError when the model gives anything but one tensor."""
        with torch.inference_mode():
            outputs = self.model(single_example(self.task, 1))
        if not isinstance(outputs, Tensor):
            raise ExportError(f"the model gives a {type(outputs).__name__}; this format takes models of one tensor.")

    def rebuilt(self, state: Mapping[str, Tensor]) -> nn.Module:
        """A fresh model with other weights, in evaluation mode."""
        model = build_model(self.task)
        load(model, state)
        return model.eval()


def _tensors(outputs: Any) -> list[Tensor]:
    if isinstance(outputs, Tensor):
        return [outputs]
    inner = outputs.values() if isinstance(outputs, Mapping) else outputs if isinstance(outputs, list | tuple) else ()
    return [tensor for value in inner for tensor in _tensors(value)]


@dataclass(frozen=True)
class Ready:
    """A .tsk file that was written and judged before, and what to tell of it."""

    content: bytes
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class ExportSettings:
    """``precision`` and ``tuned`` are for .tsk files, unless one is ``ready``; ``start`` for tickets, ``licence`` for cards;
    ``force`` keeps what the gates refuse."""

    precision: str = "float32"
    tuned: bool = True
    start: bool = False
    force: bool = False
    licence: str = "unknown"
    ready: Ready | None = None


@dataclass(frozen=True)
class Written:
    """What a format made: how it was checked, in words; how to load it, ``{name}`` standing for the file; what else to tell."""

    checked: str
    load: tuple[str, ...]
    max_error: float | None = None
    more: Mapping[str, Any] = dataclasses.field(default_factory=dict)
