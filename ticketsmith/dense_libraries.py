"""How dense libraries are set: alike for those that race and for those to which the sparse runtime hands a network.

Each library is imported where it is used, and nothing else is: what a process needs to serve is measured.
"""

from __future__ import annotations

from typing import Any


def onnx_session(model: str | bytes, threads: int) -> Any:
    """An ``InferenceSession`` of a file, or of a model's bytes, on the CPU; all optimisations of its graph are on."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def openvino_model(model: str | bytes, threads: int, precision: str = "float32") -> Any:
    """A ``CompiledModel`` of a file, or of a model's bytes, on the CPU, set for latency. ``precision`` is what it may compute
    in: float32 or bfloat16."""
    import openvino

    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision],
    }
    core = openvino.Core()
    return core.compile_model(model if isinstance(model, str) else core.read_model(model, b""), "CPU", options)
