"""Our own sparse runtime, as a rival among the others."""

from __future__ import annotations

import contextlib
import io
import time
import warnings

import torch
from torch import Tensor, nn

from ticketsmith import native
from ticketsmith.errors import RecipeError
from ticketsmith.inference.runtimes import Call, CannotRunError
from ticketsmith.runtime.formats import density
from ticketsmith.runtime.from_torch import UnsupportedError, from_torch
from ticketsmith.runtime.graph import GraphError
from ticketsmith.runtime.model import PRECISIONS, Model
from ticketsmith.runtime.tune import choices, tune

_HANDED_OVER_ABOVE = 0.5
"""The density of a network's products above which a dense library may be faster: sparser ones are not raced with it."""

_ROUNDS = 15
_ROUND_SECONDS = 2e-3
_CONVINCING = 0.97


class Sparse:
    """Kernels that skip zeros, in one native call an inference; where a layer has too few zeros, dense kernels.

    ``tuned`` measures the formats of each layer first. ``precision`` is that of the weights of sparse products with one
    vector. ``handover``: a network with few zeros is raced with ONNX Runtime, where that is installed, and served by it when
    that was faster; ``served_by`` says so. Runs on as many threads as PyTorch is set to.
    """

    name = "sparse"

    def __init__(self, tuned: bool = True, precision: str = "float32", handover: bool = True) -> None:
        if precision not in PRECISIONS:
            raise RecipeError(f"runtime 'sparse': precision {precision!r} is not one of {', '.join(PRECISIONS)}.")
        self.tuned, self.precision, self.handover = tuned, precision, handover
        self.served_by = "own kernels"

    def prepare(self, model: nn.Module, example: Tensor) -> Call:
        """The model as a program of the sparse runtime.

        Raises CannotRunError on other devices than the CPU, without the kernel library, and for operators that are not
        known.
        """
        if example.device.type != "cpu":
            raise CannotRunError("it runs on CPUs only.")
        threads = torch.get_num_threads()
        try:
            native.library()
            graph = from_torch(model, example)
            chosen = choices(tune(graph, threads=threads, precision=self.precision)) if self.tuned else None
            ready = Model(graph, chosen, threads=threads, precision=self.precision)
            ready.prepare(len(example))
        except (native.NotBuiltError, UnsupportedError, GraphError) as error:
            raise CannotRunError(str(error)) from error

        def call(inputs: Tensor) -> Tensor:
            return torch.from_numpy(ready(inputs.detach().numpy()))

        self.served_by = "own kernels"
        if self.handover and self.precision == "float32" and density(graph) > _HANDED_OVER_ABOVE:
            other = _onnx_runtime(model, example, threads)
            if other is not None and _is_faster(other, call, example):
                self.served_by = "onnxruntime"
                return other
        return call


def _onnx_runtime(model: nn.Module, example: Tensor, threads: int) -> Call | None:
    """The model in ONNX Runtime; None where that is not installed, or does not know the model."""
    try:
        import onnx  # noqa: F401
        import onnxruntime
    except ImportError:
        return None
    file = io.BytesIO()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            torch.onnx.export(model, (example,), file, dynamo=False, opset_version=17)  # type: ignore[arg-type]
        session = onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])
    except Exception:  # whatever an exporter raises; there is a program already, which serves
        return None
    name = session.get_inputs()[0].name

    def call(inputs: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {name: inputs.detach().numpy()})[0])

    return call


def _is_faster(one: Call, other: Call, example: Tensor) -> bool:
    """Whether ``one`` wins by more than noise; they take turns, and the best round of each counts."""
    best = {}
    repeats = {}
    for call in (one, other):
        call(example)
        start = time.perf_counter()
        call(example)
        best[call] = time.perf_counter() - start
        repeats[call] = max(1, int(_ROUND_SECONDS / max(best[call], 1e-7)))
    for _ in range(_ROUNDS):
        for call in (one, other):
            start = time.perf_counter()
            for _ in range(repeats[call]):
                call(example)
            best[call] = min(best[call], (time.perf_counter() - start) / repeats[call])
    return best[one] < _CONVINCING * best[other]
