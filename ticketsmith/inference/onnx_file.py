"""Models as ONNX files: written from PyTorch, and what is to be known of a given one."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ticketsmith.inference.runtimes import CannotRunError, OnnxFile

OPSET = 17


def need(*packages: str) -> None:
    """Raises CannotRunError, with what to install, when one of ``packages`` is not there."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise CannotRunError(f'{package} is not installed: pip install "ticketsmith[serve]".')


def onnx_path(model: nn.Module | OnnxFile, example: Tensor, folder: Path) -> Path:
    """The ONNX file of a model, for inputs of the shape of ``example``; a module is written into ``folder``.

    Raises CannotRunError when PyTorch cannot write it.
    """
    if isinstance(model, OnnxFile):
        return model.path
    need("onnx")
    path = folder / "model.onnx"
    write(model, (example,), path)
    return path


def write(model: nn.Module, inputs: tuple[Tensor, ...], path: Path, **names: Any) -> None:
    """Writes a module as ONNX; ``names`` are those of ``torch.onnx.export``. Raises CannotRunError when PyTorch cannot."""
    try:
        with torch.no_grad(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            torch.onnx.export(model, inputs, str(path), dynamo=False, opset_version=OPSET, **names)
    except Exception as error:  # the exporter may fail in any way
        first = next(iter(str(error).splitlines()), "")
        raise CannotRunError(f"PyTorch cannot write it as ONNX ({type(error).__name__}: {first}).") from error
