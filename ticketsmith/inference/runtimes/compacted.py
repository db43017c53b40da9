"""Smaller dense networks: dead units and channels removed, then run by a dense runtime."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from torch import Tensor, nn

from ticketsmith.errors import RecipeError
from ticketsmith.inference.compact import NothingToRemoveError, compact
from ticketsmith.inference.onnx_file import same_notes
from ticketsmith.inference.runtimes import Call, CannotRunError, Deployment
from ticketsmith.inference.runtimes.dense_library import OnnxRuntime
from ticketsmith.inference.runtimes.eager import Eager


class Compacted:
    """Units and channels that no output depends on are removed; outputs stay what they were.

    ``on``: the dense runtime that runs what is left, ``onnxruntime`` (by default where it is installed) or ``torch``.
    """

    name = "compact"
    dense = False

    def __init__(self, on: str | None = None) -> None:
        if on is None:
            installed = all(importlib.util.find_spec(package) for package in ("onnx", "onnxruntime"))
            on = "onnxruntime" if installed else "torch"
        if on not in ("onnxruntime", "torch"):
            raise RecipeError(f"runtime 'compact': `on` is 'onnxruntime' or 'torch', not {on!r}.")
        self.on = on

    def prepare(self, model: nn.Module, example: Tensor) -> Call:
        """The smaller model on its dense runtime. Raises CannotRunError when nothing can be removed."""
        smaller = self._smaller(model, example)
        on_torch = self.on == "torch" or example.device.type != "cpu"
        return (Eager() if on_torch else OnnxRuntime()).prepare(smaller, example)

    def deploy(self, model: nn.Module, example: Tensor, folder: Path) -> Deployment:
        """The smaller model as its dense runtime's file."""
        smaller = self._smaller(model, example)
        return (Eager() if self.on == "torch" else OnnxRuntime()).deploy(smaller, example, folder)

    def _smaller(self, model: nn.Module, example: Tensor) -> nn.Module:
        try:
            with torch.no_grad():
                return same_notes(compact(model, example), model)
        except NothingToRemoveError as error:
            raise CannotRunError(str(error)) from error
