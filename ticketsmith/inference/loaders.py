"""Models from files, each made ready by its runtime: what a server does. Only the runtime itself is imported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

Arrays = Callable[[NDArray[Any]], NDArray[Any]]
"""Inputs ``[batch, ...]`` to outputs ``[batch, ...]``."""


def onnx_runtime(path: Path, threads: int) -> Arrays:
    """ONNX Runtime on the CPU, all its graph optimisations on."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name, run = session.get_inputs()[0].name, session.run

    def call(inputs: NDArray[Any]) -> NDArray[Any]:
        outputs: NDArray[Any] = run(None, {name: inputs})[0]
        return outputs

    return call


def open_vino(path: Path, threads: int, precision: str = "float32") -> Arrays:
    """OpenVINO on the CPU, set for latency. ``precision`` is what it may compute in: float32 or bfloat16."""
    import openvino

    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision],
    }
    request = openvino.Core().compile_model(str(path), "CPU", options).create_infer_request()

    def call(inputs: NDArray[Any]) -> NDArray[Any]:
        outputs: NDArray[Any] = request.infer([inputs], share_inputs=True, share_outputs=True)[0]
        return outputs

    return call


def sparse(path: Path, threads: int, precision: str = "float32") -> Arrays:
    """Our sparse runtime."""
    from ticketsmith.runtime import load

    return load(path, threads=threads, precision=precision)


def torch_program(path: Path, threads: int, compiled: bool = False, precision: str = "float32") -> Arrays:
    """PyTorch on a program of ``torch.export``, optionally compiled."""
    import torch

    torch.set_num_threads(threads)
    model = torch.export.load(str(path)).module()
    run = torch.compile(model) if compiled else model
    dtype = torch.bfloat16 if precision == "bfloat16" else None

    @torch.inference_mode()
    def call(inputs: NDArray[Any]) -> NDArray[Any]:
        given = torch.from_numpy(inputs)
        outputs = run(given.to(dtype) if dtype is not None and given.is_floating_point() else given)
        array: NDArray[Any] = outputs.float().numpy()
        return array

    return call
