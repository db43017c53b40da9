"""PyTorch with its own sparse matrices: linear layers as CSR, everything else as it is."""

from __future__ import annotations

import copy
import warnings

import torch
from torch import Tensor, nn

from ticketsmith.errors import RecipeError
from ticketsmith.inference.runtimes import Call, CannotRunError
from ticketsmith.inference.runtimes.decoding import own
from ticketsmith.inference.runtimes.eager import Eager
from ticketsmith.tasks.task import Decoder
from ticketsmith.units import percent


class Csr:
    """``torch.sparse_csr`` for linear layers with at least ``min_sparsity`` zeros and ``min_weights`` weights.

    Other layers stay dense: convolutions, for which PyTorch has no sparse kernels, and layers for which the overhead of
    a sparse call, or its few zeros, would make it slower than the dense one for certain.
    """

    name = "torch_csr"
    dense = False

    def __init__(self, min_sparsity: float = 0.7, min_weights: int = 10_000) -> None:
        if not 0.0 <= min_sparsity <= 1.0:
            raise RecipeError(f"runtime 'torch_csr': min_sparsity lies between 0 and 1, not {min_sparsity}.")
        self.min_sparsity = min_sparsity
        self.min_weights = min_weights

    def prepare(self, model: nn.Module, example: Tensor) -> Call:
        """A copy of the model with sparse layers; the dense parameters are shared with ``model``, not copied.

        Raises CannotRunError when no layer is worth a sparse matrix, or when the model reads the weights of a layer
        by itself.
        """
        return Eager().prepare(self._sparse(model), example)

    def decoder(self, model: nn.Module, example: Tensor) -> Decoder:
        """Sessions of such a copy. Raises CannotRunError as ``prepare`` does, and for models without sessions."""
        return own(self._sparse(model))

    def _sparse(self, model: nn.Module) -> nn.Module:
        modules = {module for module in model.modules() if self._takes(module)}
        if not modules:
            raise CannotRunError(
                f"no linear layer has {percent(self.min_sparsity)} zeros and {self.min_weights:,} weights or more (one with "
                "hooks or parametrizations is not taken): it would run like dense PyTorch."
            )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse ")  # "is in beta state", "checks are disabled"
            return _replaced(model, modules)

    def _takes(self, module: nn.Module) -> bool:
        # a subclass or a hook may do more than a linear layer does
        if type(module) is not nn.Linear or module._forward_hooks or module._forward_pre_hooks:
            return False
        weight = module.weight
        zeros = weight.numel() - int(torch.count_nonzero(weight))
        return weight.numel() >= self.min_weights and zeros >= self.min_sparsity * weight.numel()


class _CsrLinear(nn.Module):
    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        dense = linear.weight.detach().to_sparse_csr()
        # 32-bit indices are what the vendors' kernels take: a quarter faster than 64-bit ones
        self.weight = torch.sparse_csr_tensor(
            dense.crow_indices().int(), dense.col_indices().int(), dense.values(), dense.shape
        )
        self.bias = linear.weight.new_zeros(linear.out_features) if linear.bias is None else linear.bias.detach()

    def forward(self, inputs: Tensor) -> Tensor:
        rows = inputs.reshape(-1, inputs.shape[-1])
        if len(rows) == 1:  # half the time of a product with a matrix of one column
            outputs = torch.addmv(self.bias, self.weight, rows[0])
        else:
            outputs = torch.addmm(self.bias[:, None], self.weight, rows.t()).t()
        return outputs.reshape(*inputs.shape[:-1], -1)


def _replaced(model: nn.Module, modules: set[nn.Module]) -> nn.Module:
    """``model`` with each of ``modules`` as a sparse layer, under every name that it has."""
    memo: dict[int, object] = {id(parameter): parameter for parameter in model.parameters()}
    memo.update((id(module), _CsrLinear(module)) for module in modules if isinstance(module, nn.Linear))
    replaced: nn.Module = copy.deepcopy(model, memo)
    return replaced
