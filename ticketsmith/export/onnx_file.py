"""ONNX: the network with its zeros, and the network without its dead units."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ticketsmith.engines import CannotRunError, need, onnx_runtime
from ticketsmith.export.subject import ExportError, ExportSettings, Subject, Written
from ticketsmith.inference import onnx_file
from ticketsmith.inference.compact import compact
from ticketsmith.tasks.build import single_example


def write_dense(subject: Subject, path: Path, settings: ExportSettings) -> Written:
    """The network as it is, zeros included. Raises ExportError when it cannot be translated or gives other outputs."""
    return _write(subject, subject.model, path, "the ONNX file")


def write_compact(subject: Subject, path: Path, settings: ExportSettings) -> Written:
    """Dead units and channels left out; the outputs are the same. Raises NothingToRemoveError when there are none."""
    smaller = compact(subject.model, single_example(subject.task, 1))
    counts = [sum(parameter.numel() for parameter in model.parameters()) for model in (subject.model, smaller)]
    written = _write(subject, smaller.eval(), path, "the compacted ONNX file")
    return Written(
        written.checked, written.load, written.max_error, {"parameters": counts[1], "parameters_before": counts[0]}
    )


def _write(subject: Subject, model: nn.Module, path: Path, what: str) -> Written:
    try:
        need("onnx", "onnxruntime")
        subject.single()
        onnx_file.write(onnx_file.noted(model, subject.result), single_example(subject.task, 1), path)
    except CannotRunError as error:
        raise ExportError(str(error)) from error
    import onnx

    try:
        onnx.checker.check_model(onnx.load(str(path)), full_check=True)
        run = onnx_runtime.load(path, threads=1)
    except Exception as error:  # errors of several kinds, without a common base
        raise ExportError(f"{what} is not valid: {next(iter(str(error).splitlines()), '')}") from error

    def call(inputs: Tensor) -> Tensor:
        try:
            return torch.from_numpy(np.asarray(run(inputs.numpy())))
        except Exception as error:  # a batch size that became a constant, say
            raise ExportError(f"{what} does not run: {next(iter(str(error).splitlines()), '')}") from error

    difference = subject.check(what, call)
    return Written(
        "checked by onnx.checker; outputs of ONNX Runtime compared with PyTorch's",
        (
            "import onnxruntime",
            'session = onnxruntime.InferenceSession("{name}")',
            f'outputs = session.run(None, {{"{onnx_file.INPUT}": inputs}})',
        ),
        difference,
    )
