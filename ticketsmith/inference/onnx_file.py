"""The one writer of PyTorch's networks as ONNX: what is exported is what is benchmarked, byte for byte.

``runtime.onnx`` writes a ``Graph`` for the handover: it is there where no torch is, and knows the operators of a graph alone.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.jit._trace import TracerWarning

from ticketsmith.engines import CannotRunError, need
from ticketsmith.engines.onnx_runtime import BATCH
from ticketsmith.errors import in_a_line
from ticketsmith.evidence.results import Result
from ticketsmith.evidence.size import size_of
from ticketsmith.units import removed

INPUT, OUTPUT = "input", "output"

Axes = Mapping[str, Mapping[int, str]]
"""Inputs or outputs by name, in order: their axes whose sizes are free, each with the name of its size."""

_NOTES = "ticketsmith_notes"


def noted(model: nn.Module, result: Result) -> nn.Module:
    """The model, from now on with what its ONNX files tell of the run that it is of."""
    notes = {"key": result.key, "sparsity": result.sparsity, "removed": removed(size_of([result]))}
    setattr(model, _NOTES, {f"ticketsmith.{name}": str(value) for name, value in notes.items()})
    return model


def same_notes(model: nn.Module, other: nn.Module) -> nn.Module:
    """The model, from now on with the notes of another one that computes the same."""
    setattr(model, _NOTES, getattr(other, _NOTES, {}))
    return model


def write(model: nn.Module, example: Tensor, path: Path, copies: int = 2) -> bool:
    """A module of one input and one output as an ONNX file, for any number of inputs shaped like those of ``example``
    ``[b, ...]``; its notes become the file's metadata.

    It is traced on the first input, ``copies`` times. Gives whether PyTorch saw no size that became a constant. Raises
    CannotRunError when PyTorch cannot write it.
    """
    inputs = torch.cat([example[:1]] * copies)
    is_sure = translate(model, (inputs,), path, {INPUT: {0: BATCH}}, {OUTPUT: {0: BATCH}})
    notes = getattr(model, _NOTES, {})
    if notes:
        import onnx

        proto = onnx.load(str(path), load_external_data=False)
        for name, value in notes.items():
            proto.metadata_props.add(key=name, value=value)
        onnx.save(proto, str(path))
    return is_sure


def write_to_serve(model: nn.Module, example: Tensor, path: Path) -> int | None:
    """The same file, and the size of batches that a runtime may take for granted, that of ``example``.

    A model that computes with the size as with a constant is written for this size alone, and None is given.
    """
    need("onnx")
    if not write(model, example, path):
        third = path.with_name("three.onnx")
        write(model, example, third, copies=3)
        if third.read_bytes() != path.read_bytes():
            translate(model, (example,), path, {INPUT: {}}, {OUTPUT: {}})
            return None
    return len(example)


def translate(model: nn.Module, inputs: tuple[Tensor, ...], path: Path, ins: Axes, outs: Axes) -> bool:
    """Any module as ONNX; ``ins`` and ``outs`` name its inputs and outputs.

    By the exporter that needs no package but onnx and takes a fraction of a second, though PyTorch will retire it; by the
    other one, which knows more operators, where that fails and onnxscript is installed. Gives whether no value of the
    trace became a constant, as far as PyTorch tells. Raises CannotRunError.
    """
    reasons: list[str] = []
    for is_new in (False, True):
        if is_new and importlib.util.find_spec("onnxscript") is None:
            reasons.append("`pip install onnxscript` brings its other exporter, which knows more operators")
            break
        try:
            with _quiet() as doubts:
                _export(model, inputs, path, ins, outs, is_new)
        except Exception as error:  # they may fail in any way
            reasons.append(in_a_line(error))
        else:
            return not doubts
    raise CannotRunError(f"PyTorch cannot write this model as ONNX ({'; '.join(reasons)}).")


def _export(model: nn.Module, inputs: tuple[Tensor, ...], path: Path, ins: Axes, outs: Axes, is_new: bool) -> None:
    options: dict[str, Any] = {"dynamic_axes": {**ins, **outs}}
    if is_new:
        sizes = {name: torch.export.Dim(name) for axes in ins.values() for name in axes.values()}
        shapes = tuple({axis: sizes[name] for axis, name in axes.items()} for axes in ins.values())
        options = {"dynamic_shapes": shapes, "external_data": False, "verbose": False}
    with torch.no_grad():
        torch.onnx.export(model, inputs, str(path), dynamo=is_new, input_names=[*ins], output_names=[*outs], **options)


@contextlib.contextmanager
def _quiet() -> Iterator[list[warnings.WarningMessage]]:
    """No warnings of deprecation, and no program on the screen; gives those of values that become constants.

    C++ prints the program, past ``sys.stdout``; it would spoil the output of ``--json``.
    """
    sys.stdout.flush()
    before, stdout = logging.root.manager.disable, os.dup(1)
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(record=True) as doubts,
            contextlib.redirect_stdout(io.StringIO()),
            open(os.devnull, "w") as nowhere,
        ):
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", TracerWarning)
            TracerWarning.ignore_lib_warnings()  # type: ignore[no-untyped-call]
            os.dup2(nowhere.fileno(), 1)
            yield doubts
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)
        logging.disable(before)
