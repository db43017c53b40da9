"""Our own sparse runtime, as a rival among the others."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ticketsmith import native
from ticketsmith.errors import RecipeError
from ticketsmith.inference.runtimes import Call, CannotRunError
from ticketsmith.runtime.from_torch import UnsupportedError, from_torch
from ticketsmith.runtime.graph import GraphError
from ticketsmith.runtime.model import PRECISIONS, Model
from ticketsmith.runtime.tune import choices, tune


class Sparse:
    """Kernels that skip zeros, in one native call an inference; where a layer has too few zeros, dense kernels.

    ``tuned`` measures the formats of each layer first. ``precision`` is that of the weights of sparse products with one
    vector. Runs on as many threads as PyTorch is set to.
    """

    name = "sparse"

    def __init__(self, tuned: bool = True, precision: str = "float32") -> None:
        if precision not in PRECISIONS:
            raise RecipeError(f"runtime 'sparse': precision {precision!r} is not one of {', '.join(PRECISIONS)}.")
        self.tuned, self.precision = tuned, precision

    def prepare(self, model: nn.Module, example: Tensor) -> Call:
        """The model as a program of the sparse runtime.

        Raises CannotRunError on other devices than the CPU, without the kernel library, and for operators that are not
        known.
        """
        if example.device.type != "cpu":
            raise CannotRunError("it runs on CPUs only.")
        threads = torch.get_num_threads()
        try:
            native.library()
            graph = from_torch(model, example)
            chosen = choices(tune(graph, threads=threads, precision=self.precision)) if self.tuned else None
            ready = Model(graph, chosen, threads=threads, precision=self.precision)
            ready.prepare(len(example))
        except (native.NotBuiltError, UnsupportedError, GraphError) as error:
            raise CannotRunError(str(error)) from error

        def call(inputs: Tensor) -> Tensor:
            return torch.from_numpy(ready(inputs.detach().numpy()))

        return call
