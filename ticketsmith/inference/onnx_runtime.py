"""ONNX Runtime: on CPUs the dense rival to beat, with OpenVINO."""

from __future__ import annotations

import logging
from pathlib import Path

from torch import Tensor, nn

from ticketsmith.errors import RecipeError
from ticketsmith.inference.onnx_file import need, onnx_path
from ticketsmith.inference.runtimes import CannotRunError, Deployment, FromFile


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

    def deploy(self, model: nn.Module, example: Tensor, folder: Path) -> Deployment:
        """The model as ONNX. Raises CannotRunError when it cannot be written, or packages are missing."""
        need("onnxruntime")
        path = onnx_path(model, example, folder)
        if self.precision == "int8":
            path = _quantised(path, folder / "model.int8.onnx")
        return Deployment(path, "ticketsmith.inference.loaders:onnx_runtime", ("onnxruntime",))


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
