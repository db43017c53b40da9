"""PyTorch compiled: ``torch.compile`` with its default backend."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from ticketsmith.inference.runtimes import Call, CannotRunError, Deployment
from ticketsmith.inference.runtimes.eager import LIBRARIES, LOADER, export


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
            first = next(iter(str(error).splitlines()), "")
            raise CannotRunError(f"the model cannot be compiled ({type(error).__name__}: {first}).") from error

        @torch.inference_mode()
        def call(inputs: Tensor) -> Tensor:
            outputs: Tensor = compiled(inputs)
            return outputs

        return call

    def deploy(self, model: nn.Module, example: Tensor, folder: Path) -> Deployment:
        """The program before it is compiled: that happens at the first call."""
        return Deployment(export(model, example, folder), LOADER, (*LIBRARIES, "torch._inductor"), {"compiled": True})
