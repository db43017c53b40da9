"""Runtimes of NVIDIA GPUs: CUDA graphs, and 2:4 semi-structured sparsity."""

from __future__ import annotations

import copy
import warnings

import torch
from torch import Tensor, nn

from ticketsmith.errors import RecipeError
from ticketsmith.inference.runtimes import Call, CannotRunError, check_precision
from ticketsmith.inference.runtimes.eager import Eager, rounded

_WARM_UP_CALLS = 3


class CudaGraph:
    """Eager PyTorch, recorded once and replayed: no launch of a kernel costs the CPU anything."""

    name = "cuda_graph"
    precisions = Eager.precisions

    def __init__(self, precision: str = "float32") -> None:
        self.precision = check_precision(self.name, precision, self.precisions)

    def prepare(self, model: nn.Module, example: Tensor) -> Call:
        """The recorded forward pass. Raises CannotRunError without a GPU."""
        _need_gpu(example)
        eager, static = Eager(self.precision).prepare(model, example), example.clone()
        side = torch.cuda.Stream(example.device)  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream(example.device))
        with torch.cuda.stream(side):  # what libraries set up at their first calls cannot be recorded
            for _ in range(_WARM_UP_CALLS):
                eager(static)
        torch.cuda.current_stream(example.device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = eager(static)

        def call(inputs: Tensor) -> Tensor:
            static.copy_(inputs)
            graph.replay()
            return outputs

        return call


class SemiStructured:
    """Linear layers whose weights have 2 zeros in every 4, on the sparse tensor cores, in bfloat16.

    Needs an Ampere GPU or newer. Other layers stay dense.
    """

    name = "torch_24"
    dense = False
    precision = "bfloat16"
    precisions = ("bfloat16",)

    def __init__(self, precision: str = "bfloat16") -> None:
        if precision not in self.precisions:
            raise RecipeError("runtime 'torch_24': it computes in bfloat16 only.")

    def prepare(self, model: nn.Module, example: Tensor) -> Call:
        """A copy of the model with semi-structured weights. Raises CannotRunError when no layer has the pattern."""
        _need_gpu(example)
        if torch.cuda.get_device_capability(example.device) < (8, 0):
            raise CannotRunError("it needs an NVIDIA GPU of the Ampere generation or newer.")
        smaller, count = copy.deepcopy(model).to(torch.bfloat16), 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "is in prototype stage"
            for module in smaller.modules():
                if type(module) is nn.Linear and two_of_four(module.weight):
                    sparse = torch.sparse.to_sparse_semi_structured(module.weight.detach())
                    module.weight = nn.Parameter(sparse, requires_grad=False)
                    count += 1
        if not count:
            raise CannotRunError(
                "no linear layer has 2 zeros in every 4 neighbouring weights and sizes that are multiples of 64: "
                "prune with a 2:4 pattern."
            )
        return rounded(smaller)


def two_of_four(weight: Tensor) -> bool:
    """Whether every 4 neighbouring weights of a row hold 2 zeros or more, in sizes that the tensor cores take."""
    rows, columns = weight.shape
    if rows % 64 or columns % 64:
        return False
    nonzero = torch.count_nonzero(weight.detach().reshape(rows, -1, 4), dim=-1)
    return bool((nonzero <= 2).all())


def _need_gpu(example: Tensor) -> None:
    if example.device.type != "cuda":
        raise CannotRunError("it needs an NVIDIA GPU: --device cuda.")
