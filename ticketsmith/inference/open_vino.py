"""OpenVINO: on CPUs the dense rival to beat, with ONNX Runtime."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from ticketsmith.errors import RecipeError
from ticketsmith.inference import loaders
from ticketsmith.inference.decoding import Stepping, write_step
from ticketsmith.inference.onnx_file import need, onnx_path
from ticketsmith.inference.runtimes import ArrayDecoder, CannotRunError, Deployment, FromFile, need_cpu


class OpenVino(FromFile):
    """OpenVINO's CPU plug-in, set for latency; ``bfloat16`` is its own conversion, where the processor has it."""

    name = "openvino"
    precisions = ("float32", "bfloat16")
    takes_onnx = True

    def __init__(self, precision: str = "float32") -> None:
        if precision not in self.precisions:
            raise RecipeError(
                f"runtime 'openvino': precision {precision!r} is not one of {', '.join(self.precisions)}."
            )
        self.precision = precision

    def deploy(self, model: nn.Module, example: Tensor, folder: Path) -> Deployment:
        """The model as ONNX, which OpenVINO reads. Raises CannotRunError when it cannot be written."""
        self._check()
        path = onnx_path(model, example, folder)
        options = {"precision": self.precision}
        return Deployment(path, "ticketsmith.inference.loaders:open_vino", ("openvino",), options)

    def decoder(self, model: nn.Module, example: Tensor) -> ArrayDecoder:
        """Sessions that give the cache to a step of the model and keep what comes out. Raises CannotRunError."""
        self._check()
        need_cpu(example)
        with tempfile.TemporaryDirectory(prefix="ticketsmith-") as folder:
            path, cache = write_step(model, example, Path(folder))
            begin = loaders.open_vino_steps(path, torch.get_num_threads(), self.precision)
        return ArrayDecoder(Stepping(begin, cache))

    def _check(self) -> None:
        need("openvino")
        if self.precision == "bfloat16" and not _has_bfloat16():
            raise CannotRunError("OpenVINO computes in float32 here: this processor has no bfloat16 instructions.")


def _has_bfloat16() -> bool:
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
