"""ONNX: the network with its zeros, and the network without its dead units."""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ticketsmith.export.subject import ExportError, Settings, Subject, Written

INPUT, OUTPUT = "input", "output"


def write_dense(subject: Subject, path: Path, settings: Settings) -> Written:
    """The network as it is, zeros included. Raises ExportError when it cannot be translated or gives other outputs."""
    return _write(subject, subject.model, path, "the ONNX file")


def write_compact(subject: Subject, path: Path, settings: Settings) -> Written:
    """Dead units and channels left out; the outputs are the same. Raises NothingToRemoveError when there are none."""
    try:
        compact = importlib.import_module("ticketsmith.pruning.compact").compact
    except ModuleNotFoundError as error:
        raise ExportError("this version of TicketSmith cannot remove dead units yet.") from error
    smaller: nn.Module = compact(subject.model, subject.task.example(1))
    counts = [sum(parameter.numel() for parameter in model.parameters()) for model in (subject.model, smaller)]
    written = _write(subject, smaller.eval(), path, "the compacted ONNX file")
    return Written(
        written.checked, written.load, written.max_error, {"parameters": counts[1], "parameters_before": counts[0]}
    )


def _write(subject: Subject, model: nn.Module, path: Path, what: str) -> Written:
    onnx, runtime = _needed("onnx"), _needed("onnxruntime")
    subject.single()
    _translate(model, subject.task.example(2), path)
    proto = onnx.load(str(path))
    for name, value in (("ticketsmith.key", subject.result.key), ("ticketsmith.sparsity", subject.result.sparsity)):
        proto.metadata_props.add(key=name, value=str(value))
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, str(path))
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def call(inputs: Tensor) -> Tensor:
        return torch.from_numpy(session.run([OUTPUT], {INPUT: inputs.numpy()})[0])

    error = subject.check(what, call)
    return Written(
        "checked by onnx.checker; outputs of ONNX Runtime compared with PyTorch's",
        (
            "import onnxruntime",
            'session = onnxruntime.InferenceSession("{name}")',
            f'outputs = session.run(None, {{"{INPUT}": inputs}})',
        ),
        error,
    )


def _translate(model: nn.Module, example: Tensor, path: Path) -> None:
    """The exporter that needs no package but onnx, and takes a fraction of a second.

    It is deprecated in favour of one that needs onnxscript. What it writes is run before anybody gets it.
    """
    names: dict[str, Any] = {"input_names": [INPUT], "output_names": [OUTPUT]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its deprecation, and of values that become constants: both runs would tell
        try:
            axes = {INPUT: {0: "batch"}, OUTPUT: {0: "batch"}}
            torch.onnx.export(model, (example,), str(path), dynamo=False, dynamic_axes=axes, **names)
        except Exception as error:  # it may fail in any way
            first = next(iter(str(error).splitlines()), "")
            raise ExportError(f"PyTorch cannot write this model as ONNX ({type(error).__name__}: {first}).") from error


def _needed(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ExportError(f'{name} is not installed: pip install "ticketsmith[serve]"') from error
