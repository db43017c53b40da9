"""ONNX: the network with its zeros, and the network without its dead units."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ticketsmith.evidence.size import size_of
from ticketsmith.export.subject import ExportError, Settings, Subject, Written
from ticketsmith.inference.compact import compact
from ticketsmith.tasks.build import single_example
from ticketsmith.units import removed

INPUT, OUTPUT = "input", "output"


def write_dense(subject: Subject, path: Path, settings: Settings) -> Written:
    """The network as it is, zeros included. Raises ExportError when it cannot be translated or gives other outputs."""
    return _write(subject, subject.model, path, "the ONNX file")


def write_compact(subject: Subject, path: Path, settings: Settings) -> Written:
    """Dead units and channels left out; the outputs are the same. Raises NothingToRemoveError when there are none."""
    smaller = compact(subject.model, single_example(subject.task, 1))
    counts = [sum(parameter.numel() for parameter in model.parameters()) for model in (subject.model, smaller)]
    written = _write(subject, smaller.eval(), path, "the compacted ONNX file")
    return Written(
        written.checked, written.load, written.max_error, {"parameters": counts[1], "parameters_before": counts[0]}
    )


def _write(subject: Subject, model: nn.Module, path: Path, what: str) -> Written:
    onnx, runtime = _needed("onnx"), _needed("onnxruntime")
    subject.single()
    _translate(model, single_example(subject.task, 2), path)
    proto = onnx.load(str(path))
    told = {
        "key": subject.result.key,
        "sparsity": subject.result.sparsity,
        "removed": removed(size_of([subject.result])),
    }
    for name, value in told.items():
        proto.metadata_props.add(key=f"ticketsmith.{name}", value=str(value))
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    try:
        onnx.checker.check_model(proto, full_check=True)
        onnx.save(proto, str(path))
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # errors of several kinds, without a common base
        raise ExportError(f"{what} is not valid: {next(iter(str(error).splitlines()), '')}") from error

    def call(inputs: Tensor) -> Tensor:
        try:
            return torch.from_numpy(session.run([OUTPUT], {INPUT: inputs.numpy()})[0])
        except Exception as error:  # a batch size that became a constant, say
            raise ExportError(f"{what} does not run: {next(iter(str(error).splitlines()), '')}") from error

    difference = subject.check(what, call)
    return Written(
        "checked by onnx.checker; outputs of ONNX Runtime compared with PyTorch's",
        (
            "import onnxruntime",
            'session = onnxruntime.InferenceSession("{name}")',
            f'outputs = session.run(None, {{"{INPUT}": inputs}})',
        ),
        difference,
    )


def _translate(model: nn.Module, example: Tensor, path: Path) -> None:
    """By the exporter that needs no package but onnx and takes a fraction of a second, though PyTorch will retire it; by
    the other one, which knows more operators, where that fails and onnxscript is installed.

    What either writes is run before anybody gets it.
    """
    reasons = []
    for is_new in (False, True):
        if is_new and importlib.util.find_spec("onnxscript") is None:
            reasons.append("`pip install onnxscript` brings its other exporter, which knows more operators")
            break
        try:
            with _quiet():
                _export(model, example, path, is_new)
        except Exception as error:  # they may fail in any way
            reasons.append(f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}")
        else:
            return
    raise ExportError(f"PyTorch cannot write this model as ONNX ({'; '.join(reasons)}).")


def _export(model: nn.Module, example: Tensor, path: Path, is_new: bool) -> None:
    options: dict[str, Any] = {"dynamic_axes": {INPUT: {0: "batch"}, OUTPUT: {0: "batch"}}}
    if is_new:
        options = {"dynamic_shapes": ({0: torch.export.Dim("batch")},), "external_data": False, "verbose": False}
    torch.onnx.export(
        model, (example,), str(path), dynamo=is_new, input_names=[INPUT], output_names=[OUTPUT], **options
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No warnings of deprecation and of values that become constants: the outputs are checked. No program on the screen.

    C++ prints that, past ``sys.stdout``; it would spoil the output of ``--json``.
    """
    sys.stdout.flush()
    before, stdout = logging.root.manager.disable, os.dup(1)
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), open(os.devnull, "w") as nowhere:
            warnings.simplefilter("ignore")
            os.dup2(nowhere.fileno(), 1)
            yield
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)
        logging.disable(before)


def _needed(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ExportError(f'{name} is not installed: pip install "ticketsmith[serve]"') from error
