"""ONNX Runtime's CPU provider: on CPUs the dense rival to beat, with OpenVINO."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ticketsmith.engines import Arrays, Call, CannotRunError, Step, need
from ticketsmith.errors import in_a_line

BY_SIZE = False
BATCH = "batch"
"""The name of the axis that ``load`` fixes."""


def session(model: str | bytes, threads: int, batch: int | None = None, optimised: bool = True) -> Any:
    """An ``InferenceSession`` of a file, or of a model's bytes.

    ``batch`` is the size of an axis of the name ``BATCH``. Not ``optimised``: the graph is computed as it is written, and
    what goes wrong is not logged.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3 if optimised else 4
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if batch is not None:
        options.add_free_dimension_override_by_name(BATCH, batch)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def check(precision: str) -> None:
    """Raises CannotRunError where the package is missing."""
    need("onnxruntime")


def convert(path: Path, precision: str, folder: Path, per_channel: bool = False) -> Path:
    """For int8: by dynamic quantisation, weights before and activations at each call; ``per_channel``: with a scale for each
    output. Raises CannotRunError."""
    if precision == "float32":
        return path
    need("onnx")
    from onnxruntime.quantization import QuantType, quantize_dynamic

    target = folder / f"{path.stem}.int8.onnx"
    with _quantising():
        quantize_dynamic(str(path), str(target), weight_type=QuantType.QInt8, per_channel=per_channel)
    return target


CALIBRATIONS = {"minmax": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}
"""How static quantisation takes the range of activations from examples, by the names of its own ``CalibrationMethod``."""


def quantise_static(path: Path, target: Path, examples: Sequence[NDArray[Any]], calibration: str) -> None:
    """Static int8 in QDQ form, as ONNX Runtime's documentation tells it: the graph is pre-processed, weights have a scale for
    each output channel, activations the range that ``calibration`` takes from ``examples`` (batches ``[b, ...]``).

    Raises CannotRunError.
    """
    need("onnx")
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    name, prepared = session(str(path), 1).get_inputs()[0].name, target.with_name(f"{target.stem}.prepared.onnx")
    feed = iter([{name: example} for example in examples])

    class Reader:
        def get_next(self) -> Any:
            return next(feed, None)

    with _quantising():
        quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared), str(target), Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod[CALIBRATIONS[calibration]],
        )  # fmt: skip


@contextlib.contextmanager
def _quantising() -> Iterator[None]:
    """Without its advice, which it gives on the root logger and on the screen; its failures are CannotRunErrors."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    except Exception as error:  # a library's own failures, of any kind
        raise CannotRunError(f"ONNX Runtime cannot quantise it ({in_a_line(error)}).") from error
    finally:
        root.setLevel(level)


def load(path: Path, threads: int, precision: str = "float32", batch: int | None = None) -> Arrays:
    """A file of one input and one output."""
    opened = session(str(path), threads, batch)
    name, run = opened.get_inputs()[0].name, opened.run

    def arrays(inputs: NDArray[Any]) -> NDArray[Any]:
        outputs: NDArray[Any] = run(None, {name: inputs})[0]
        return outputs

    return arrays


def call(model: str | bytes, threads: int) -> Call:
    """A file, or a model's bytes, of any number of inputs and outputs."""
    opened = session(model, threads)
    names, run = [port.name for port in opened.get_inputs()], opened.run

    def arrays(inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        outputs: list[NDArray[Any]] = run(None, dict(zip(names, inputs, strict=True)))
        return outputs

    return arrays


def steps(path: Path, threads: int, precision: str = "float32") -> Callable[[], Step]:
    """A session serves all callers."""
    step = call(str(path), threads)
    return lambda: step
