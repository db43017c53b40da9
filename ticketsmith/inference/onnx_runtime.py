"""ONNX Runtime: on CPUs the dense rival to beat, with OpenVINO."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from ticketsmith.errors import RecipeError
from ticketsmith.inference import loaders
from ticketsmith.inference.decoding import Stepping, write_step
from ticketsmith.inference.onnx_file import need, onnx_path
from ticketsmith.inference.runtimes import ArrayDecoder, CannotRunError, Deployment, FromFile, OnnxFile, need_cpu


class OnnxRuntime(FromFile):
    """ONNX Runtime's CPU provider. ``int8`` is its dynamic quantisation: weights before, activations at each call."""

    name = "onnxruntime"
    precisions = ("float32", "int8")
    takes_onnx = True

    def __init__(self, precision: str = "float32") -> None:
        if precision not in self.precisions:
            raise RecipeError(
                f"runtime 'onnxruntime': precision {precision!r} is not one of {', '.join(self.precisions)}."
            )
        self.precision = precision

    def deploy(self, model: nn.Module | OnnxFile, example: Tensor, folder: Path) -> Deployment:
        """The model as ONNX. Raises CannotRunError when it cannot be written, or packages are missing."""
        need("onnxruntime")
        path = onnx_path(model, example, folder)
        if self.precision == "int8":
            path = _quantised(path, folder / "model.int8.onnx")
        return Deployment(path, "ticketsmith.inference.loaders:onnx_runtime", ("onnxruntime",))

    def decoder(self, model: nn.Module, example: Tensor) -> ArrayDecoder:
        """Sessions that give the cache to a step of the model and keep what comes out. Raises CannotRunError."""
        need("onnxruntime")
        need_cpu(example)
        with tempfile.TemporaryDirectory(prefix="ticketsmith-") as folder:
            path, cache = write_step(model, example, Path(folder))
            if self.precision == "int8":
                path = _quantised(path, Path(folder) / "step.int8.onnx")
            step = loaders.onnx_runtime_step(path, torch.get_num_threads())
        return ArrayDecoder(Stepping(lambda: step, cache))


def _quantised(path: Path, target: Path) -> Path:
    need("onnx")
    from onnxruntime.quantization import QuantType, quantize_dynamic

    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it advises to pre-process on the root logger, each time
    try:
        quantize_dynamic(str(path), str(target), weight_type=QuantType.QInt8)
    except Exception as error:  # a library's own failures, of any kind
        first = next(iter(str(error).splitlines()), "")
        raise CannotRunError(f"ONNX Runtime cannot quantise it ({type(error).__name__}: {first}).") from error
    finally:
        root.setLevel(level)
    return target
