"""OpenVINO's CPU plug-in, set for latency: on CPUs the dense rival to beat, with ONNX Runtime."""

from __future__ import annotations

import contextlib
import io
import queue
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ticketsmith.engines import Arrays, Call, CannotRunError, Step, need
from ticketsmith.errors import in_a_line

BY_SIZE = True


def compiled(model: str | bytes, threads: int, precision: str = "float32", batch: int | None = None) -> Any:
    """A ``CompiledModel`` of a file, or of a model's bytes. ``precision`` is what it may compute in; ``batch`` the size of
    the first axis of each input."""
    import openvino

    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision],
    }
    core = openvino.Core()
    network = core.read_model(model) if isinstance(model, str) else core.read_model(model, b"")
    if batch is not None:
        network.reshape({port: [batch, *list(port.partial_shape)[1:]] for port in network.inputs})
    return core.compile_model(network, "CPU", options)


def check(precision: str) -> None:
    """Raises CannotRunError where the package is missing, or the processor's bfloat16."""
    need("openvino")
    if precision == "bfloat16":
        import openvino

        if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise CannotRunError("OpenVINO computes in float32 here: this processor has no bfloat16 instructions.")


def convert(path: Path, precision: str, folder: Path) -> Path:
    """The file itself: OpenVINO converts while it compiles."""
    return path


def quantise(
    path: Path,
    target: Path,
    examples: Sequence[NDArray[Any]],
    beside: Callable[[int], Sequence[NDArray[Any]]] = lambda batch: (),
) -> None:
    """Int8 after training by NNCF, as OpenVINO's documentation tells it, from batches ``[b, ...]`` of ``examples``;
    ``beside(b)`` are what further inputs the file has. ``target`` is an ``.xml``, beside which it writes the weights. Without
    accuracy control: the gates judge. Raises CannotRunError."""
    need("openvino", "nncf")
    import logging

    import nncf
    import openvino

    nncf.set_log_level(logging.ERROR)
    network = openvino.Core().read_model(str(path))
    singles = [
        dict(enumerate((example[index : index + 1], *beside(1))))
        for example in examples
        for index in range(len(example))
    ]
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            low = nncf.quantize(network, nncf.Dataset(singles), subset_size=len(singles))
        openvino.save_model(low, str(target), compress_to_fp16=False)
    except Exception as error:  # a library's own failures, of any kind
        raise CannotRunError(f"NNCF cannot quantise it ({in_a_line(error)}).") from error


def compress(path: Path, target: Path, bits: int) -> None:
    """The weights alone in 8 or 4 bits, by NNCF; ``target`` as for ``quantise``. Raises CannotRunError."""
    need("openvino", "nncf")
    import logging

    import nncf
    import openvino

    nncf.set_log_level(logging.ERROR)
    mode = nncf.CompressWeightsMode.INT8_ASYM if bits == 8 else nncf.CompressWeightsMode.INT4_SYM
    how = {} if bits == 8 else {"group_size": 32}
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            low = nncf.compress_weights(openvino.Core().read_model(str(path)), mode=mode, **how)
        openvino.save_model(low, str(target), compress_to_fp16=False)
    except Exception as error:  # a library's own failures, of any kind
        raise CannotRunError(f"NNCF cannot compress its weights ({in_a_line(error)}).") from error


def input_shapes(path: Path) -> list[list[int | None]]:
    """The shapes of a file's inputs; None is a free size."""
    import openvino

    ports = openvino.Core().read_model(str(path)).inputs
    return [[None if size.is_dynamic else size.get_length() for size in port.partial_shape] for port in ports]


def load(path: Path, threads: int, precision: str = "float32", batch: int | None = None) -> Arrays:
    """A file of one input and one output."""
    request = compiled(str(path), threads, precision, batch).create_infer_request()

    def arrays(inputs: NDArray[Any]) -> NDArray[Any]:
        outputs: NDArray[Any] = request.infer([inputs], share_inputs=True, share_outputs=True)[0]
        return outputs

    return arrays


def call(model: str | bytes, threads: int) -> Call:
    """A file, or a model's bytes, of any number of inputs and outputs."""
    network = compiled(model, threads)
    idle: queue.SimpleQueue[Any] = queue.SimpleQueue()  # a request is for one caller at a time

    def arrays(inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        try:
            request = idle.get_nowait()
        except queue.Empty:
            request = network.create_infer_request()
        results = request.infer(list(inputs), share_inputs=True)
        outputs = [results[index] for index in range(len(results))]
        idle.put(request)
        return outputs

    return arrays


def steps(path: Path, threads: int, precision: str = "float32") -> Callable[[], Step]:
    """A request for each caller, or rather two."""
    network = compiled(str(path), threads, precision)

    def begin() -> Step:
        # Outputs lie in a request's own memory. Two take turns, lest one writes where it reads what it was given.
        requests = [network.create_infer_request() for _ in range(2)]
        last: list[list[NDArray[Any]]] = [[], []]

        def step(inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
            turn = int(any(array is output for output in last[0] for array in inputs))
            results = requests[turn].infer(list(inputs), share_inputs=True, share_outputs=True)
            last[turn] = [results[index] for index in range(len(results))]
            return last[turn]

        return step

    return begin
