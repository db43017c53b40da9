"""What is timed: one call of a model as it is, or one phase of a model that generates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ticketsmith.errors import TaskError
from ticketsmith.inference.measuring import exact
from ticketsmith.inference.measuring.agreement import Reference
from ticketsmith.inference.measuring.weights import Work, work
from ticketsmith.inference.runtimes import ArrayCall, ArrayDecoder, Call, CannotRunError, Decodes, OnnxFile, Runtime
from ticketsmith.inference.runtimes.dense_library import OnnxRuntime
from ticketsmith.inference.runtimes.eager import Eager
from ticketsmith.tasks.task import Decoder, Phase, Serving


@dataclass(frozen=True, eq=False)
class Workload:
    """One call of a model on ``inputs`` ``[b, ...]``, which makes ``units`` of what the task counts."""

    inputs: Tensor
    units: float
    phase: str = ""

    @property
    def call_inputs(self) -> Tensor:
        """What is given to each call."""
        return self.inputs

    def prepare(self, runtime: Runtime, model: nn.Module | OnnxFile, shared: bool = True) -> Call:
        """The call on a runtime; not ``shared``: in memory of its own. Raises CannotRunError."""
        return runtime.prepare(model, self.inputs)  # type: ignore[arg-type]

    def exact(self, model: nn.Module | OnnxFile) -> Call:
        """A call that gives what the model itself says, in float32: eager PyTorch, or ONNX Runtime for an ONNX file."""
        return (OnnxRuntime() if isinstance(model, OnnxFile) else Eager()).prepare(model, self.inputs)  # type: ignore[arg-type]

    def reference(self, model: nn.Module | OnnxFile) -> Reference:
        """What the model says of the inputs. Raises CannotRunError when the library gives no single tensor."""
        plain = output(self.exact(model), self.call_inputs)
        if isinstance(model, OnnxFile):
            precise = exact.of_onnx(model.path, self.inputs, EXACT_SECONDS)
            return Reference(plain, "ONNX Runtime", _fitting(precise, plain), exact.ONNX)
        return Reference(plain, "eager PyTorch", _fitting(self.in_float64(model), plain), exact.PYTORCH)

    def in_float64(self, model: nn.Module) -> Tensor | None:
        """The output in float64, None where the model does not compute in it."""
        return exact.of_module(model, self.inputs)

    def least(self, model: nn.Module) -> Work:
        """The work of a call that no runtime can avoid."""
        return work(model, model, self.call_inputs)


EXACT_SECONDS = 20.0
"""That ONNX's reference may take for float64: beyond, outputs are compared with ONNX Runtime's in float32."""


def output(call: Call, inputs: Tensor) -> Tensor:
    """What a call gives, kept. Raises CannotRunError when that is no single tensor."""
    outputs = call(inputs.clone())  # a clone: a model may change its inputs in place
    if not isinstance(outputs, Tensor):
        raise CannotRunError(f"the output is a {type(outputs).__name__}; the benchmark compares single tensors.")
    return outputs.clone()  # a runtime may use one output buffer for all calls


def _fitting(outputs: Tensor | None, plain: Tensor) -> Tensor | None:
    """Outputs in float64, if they are of the same shape and finite: some models overflow in another place there."""
    fits = outputs is not None and outputs.shape == plain.shape and bool(torch.isfinite(outputs).all())
    return outputs if fits else None


_Decoders = dict[tuple[int, int], Decoder | ArrayDecoder]


@dataclass(frozen=True, eq=False, kw_only=True)
class PhaseWorkload(Workload):
    """One call of a session in ``part`` of decoding; ``inputs`` are whole windows ``[b, t]``, tokens that come before too."""

    part: Phase
    decoders: _Decoders
    """Decoders by the ids of model and runtime: phases share them, since they can take long to make."""

    @property
    def call_inputs(self) -> Tensor:
        return self.inputs[:, self.part.past : self.part.past + self.part.new]

    def prepare(self, runtime: Runtime, model: nn.Module | OnnxFile, shared: bool = True) -> Call:
        if not isinstance(runtime, Decodes):
            raise CannotRunError("it has no sessions: it cannot remember what a model has read, so prefill and decode are "
                                 "not measured on it.")  # fmt: skip
        assert isinstance(model, nn.Module)
        place = id(model), id(runtime)
        decoder = self.decoders.get(place) or runtime.decoder(model, self.inputs)
        if shared:
            self.decoders[place] = decoder
        if isinstance(decoder, ArrayDecoder):
            return ArrayCall(self.part.begin(decoder.arrays, ArrayCall.as_array(self.inputs))[0])
        return self.part.begin(decoder, self.inputs)[0]

    def exact(self, model: nn.Module | OnnxFile) -> Call:
        """The whole sequence in one call, of which the last tokens are what the phase brings."""
        assert isinstance(model, nn.Module)
        before = self.inputs[:, : self.part.past]

        @torch.inference_mode()
        def call(new: Tensor) -> Tensor:
            outputs = model(torch.cat((before, new), dim=1))
            if not isinstance(outputs, Tensor):
                raise CannotRunError(
                    f"the output is a {type(outputs).__name__}; the benchmark compares single tensors."
                )
            return outputs[:, self.part.past :]

        return call

    def in_float64(self, model: nn.Module) -> Tensor | None:
        outputs = exact.of_module(model, self.inputs[:, : self.part.past + self.part.new])
        return None if outputs is None else outputs[:, self.part.past :]

    def least(self, model: nn.Module) -> Work:
        return work(model, self.prepare(Eager(), model), self.call_inputs)


def workloads(serving: Serving, inputs: Tensor) -> Sequence[Workload]:
    """Each phase, and one call on ``inputs``. Raises TaskError when the inputs are too short for a phase."""
    phases: list[Workload] = []
    decoders: _Decoders = {}
    for phase in serving.phases:
        if inputs.dim() != 2 or inputs.shape[1] < phase.past + phase.new:
            raise TaskError(
                f"the task's phase {phase.name!r} needs windows of {phase.past + phase.new} tokens or more, [b, t]; its "
                f"`example` gives inputs of shape {tuple(inputs.shape)}."
            )
        phases.append(PhaseWorkload(inputs, len(inputs) * phase.new, phase.name, part=phase, decoders=decoders))
    # last, since it tells the least of a model that generates, and a budget leaves out the last
    return [*phases, Workload(inputs, serving.units_per_input * len(inputs))]
