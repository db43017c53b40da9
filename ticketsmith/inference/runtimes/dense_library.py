"""Dense libraries that read ONNX files, by way of ``ticketsmith.engines``: on CPUs the rivals to beat."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ticketsmith import engines
from ticketsmith.inference.onnx_file import write_to_serve
from ticketsmith.inference.runtimes import ArrayDecoder, Deployment, FromFile, OnnxFile, check_precision, need_cpu
from ticketsmith.inference.runtimes.decoding import Stepping, write_step


class DenseLibrary(FromFile):
    """The engine of a name, in one of its precisions, on as many threads as PyTorch is set to."""

    takes_onnx = True
    name: str
    precisions: tuple[str, ...]

    def __init__(self, precision: str = "float32") -> None:
        self.precision = check_precision(self.name, precision, self.precisions)

    def deploy(self, model: nn.Module | OnnxFile, example: Tensor, folder: Path) -> Deployment:
        """The model as ONNX: the bytes that an export gives. Raises CannotRunError when it cannot be written."""
        engine = self._engine()
        options: dict[str, Any] = {"precision": self.precision}
        if isinstance(model, OnnxFile):
            path = model.path
        else:
            path = folder / "model.onnx"
            options["batch"] = write_to_serve(model, example, path)
        path = engine.convert(path, self.precision, folder)
        return Deployment(path, f"{engine.__name__}:load", (self.name,), options)

    def decoder(self, model: nn.Module, example: Tensor) -> ArrayDecoder:
        """Sessions that give the cache to a step of the model and keep what comes out. Raises CannotRunError."""
        engine = self._engine()
        need_cpu(example)
        with tempfile.TemporaryDirectory(prefix="ticketsmith-") as folder:
            path, cache = write_step(model, example, Path(folder))
            path = engine.convert(path, self.precision, Path(folder))
            begin = engine.steps(path, torch.get_num_threads(), self.precision)
        return ArrayDecoder(Stepping(begin, cache))

    def _engine(self) -> Any:
        engine = engines.engine(self.name)
        engine.check(self.precision)
        return engine


class OnnxRuntime(DenseLibrary):
    """``int8`` is its dynamic quantisation: weights before, activations at each call."""

    name = "onnxruntime"
    precisions = ("float32", "int8")


class OpenVino(DenseLibrary):
    """``bfloat16`` is its own conversion, where the processor has it."""

    name = "openvino"
    precisions = ("float32", "bfloat16")
