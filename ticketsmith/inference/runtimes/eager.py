"""PyTorch as it comes, and compiled: the model itself, its pruned weights multiplied as zeros."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ticketsmith.errors import in_a_line
from ticketsmith.inference.runtimes import Call, CannotRunError, Deployment, check_precision
from ticketsmith.inference.runtimes.decoding import own
from ticketsmith.tasks.task import Decoder


class Eager:
    """Eager PyTorch in inference mode: in float32 the reference of every comparison, and a dense rival."""

    name = "torch"
    precisions = ("float32", "bfloat16")

    def __init__(self, precision: str = "float32") -> None:
        self.precision = check_precision(self.name, precision, self.precisions)

    def prepare(self, model: nn.Module, example: Tensor) -> Call:
        """The model's own forward pass; runs any model. In bfloat16: on a copy, and inputs are converted in the call."""
        if self.precision == "float32":
            return forward(model)
        return rounded(copy.deepcopy(model).to(torch.bfloat16))

    def decoder(self, model: nn.Module, example: Tensor) -> Decoder:
        """The model's own sessions; in bfloat16 those of a copy. Raises CannotRunError when it has none."""
        return own(model, getattr(torch, self.precision))

    def deploy(self, model: nn.Module, example: Tensor, folder: Path) -> Deployment:
        """The program that ``torch.export`` makes of the model."""
        low = self.precision == "bfloat16"
        network = copy.deepcopy(model).to(torch.bfloat16) if low else model
        inputs = example.bfloat16() if low and example.is_floating_point() else example
        return Deployment(export(network, inputs, folder), LOADER, LIBRARIES, {"precision": self.precision})


class Compiled:
    """``torch.compile`` for one shape of inputs. It needs a C++ compiler, and some seconds for each model."""

    name = "torch_compile"

    def prepare(self, model: nn.Module, example: Tensor) -> Call:
        """A compiled copy of the model. Raises CannotRunError where it cannot be compiled."""
        logging.getLogger("torch._inductor").setLevel(logging.ERROR)
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                # a program of its own: what is compiled is kept by the code of `forward`, and only so much of it
                program = torch.export.export(model, (example,)).module()
                compiled = torch.compile(program, dynamic=False)
                compiled(example.clone())
        except Exception as error:  # compilers fail in any way
            raise CannotRunError(f"the model cannot be compiled ({in_a_line(error)}).") from error

        return forward(compiled)

    def deploy(self, model: nn.Module, example: Tensor, folder: Path) -> Deployment:
        """The program before it is compiled: that happens at the first call."""
        return Deployment(export(model, example, folder), LOADER, (*LIBRARIES, "torch._inductor"), {"compiled": True})


def forward(model: Callable[..., Any]) -> Call:
    """The forward pass of a model in inference mode."""

    @torch.inference_mode()
    def call(inputs: Tensor) -> Tensor:
        outputs: Tensor = model(inputs)
        return outputs

    return call


def rounded(model: Callable[..., Any]) -> Call:
    """The same of a model in bfloat16: inputs and outputs are converted in the call."""

    @torch.inference_mode()
    def call(inputs: Tensor) -> Tensor:
        outputs: Tensor = model(inputs.bfloat16() if inputs.is_floating_point() else inputs)
        return outputs.float()

    return call


LOADER = "ticketsmith.inference.loaders:torch_program"
LIBRARIES = ("torch", "torch.export", "torch._export.serde.serialize", "torch.export.pt2_archive")
"""What PyTorch imports when it first reads a program."""


def export(model: nn.Module, example: Tensor, folder: Path) -> Path:
    """Writes the program of ``torch.export`` into ``folder``. Raises CannotRunError for models that it cannot read."""
    path = folder / "model.pt2"
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.export.save(torch.export.export(model, (example,)), str(path))
    except Exception as error:  # torch.export may fail in any way
        raise CannotRunError(f"torch.export cannot write this model ({in_a_line(error)}).") from error
    return path
