"""The weights of a model: which can be pruned, which are by default, what they are called, and how they belong together.

A parameter that several modules hold is one weight with several names, whatever the order in which they were registered.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from ticketsmith.errors import PruningError
from ticketsmith.pruning.layout import Layout
from ticketsmith.pruning.names import check_patterns, matches

_OUTPUT_FIRST = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_RECURRENT = (nn.RNNBase, nn.RNNCellBase)
_PROJECTIONS = ("q_proj_weight", "k_proj_weight", "v_proj_weight")


@dataclass(frozen=True, eq=False)
class Holder:
    """A module that computes with a parameter. ``tensor``: what the module calls the weight that it computes with, such as
    ``weight``. Under a norm or another parametrization, ``through``, this is made of the parameter by ``path``'s module.
    """

    path: str
    module: nn.Module
    tensor: str
    through: str = ""
    maskable: bool = True
    normed: int | None = None

    @property
    def name(self) -> str:
        return f"{self.path}.{self.tensor}" if self.path else self.tensor

    @property
    def is_length(self) -> bool:
        """Whether it is the other parameter of weight norm: the lengths, not the directions."""
        return self.through == "weight norm" and not self.maskable

    @property
    def is_default(self) -> bool:
        """Whether it is a weight that is pruned by default: that of a linear layer or a convolution, as it is."""
        by_default = (*_OUTPUT_FIRST, *_TRANSPOSED[:2])
        prunable_kind = isinstance(self.module, by_default) or _is_gpt2_linear(self.module)
        return prunable_kind and self.tensor == "weight" and not self.through

    @property
    def layout(self) -> Layout:
        """Of the module's own kind; ``parts`` and ``names`` with its path."""
        module, before = self.module, f"{self.path}." if self.path else ""
        inputs, groups, parts = None, 1, tuple[str, ...]()
        if not self.maskable:
            return Layout()
        if self.tensor == "weight" and isinstance(module, _TRANSPOSED):
            inputs, groups = 0, module.groups
        elif self.tensor == "weight" and _is_gpt2_linear(module):
            inputs = 0
        elif (self.tensor == "weight" and isinstance(module, _OUTPUT_FIRST)) or (
            self.tensor.startswith("weight_") and isinstance(module, _RECURRENT)
        ):
            inputs = 1
        elif isinstance(module, nn.MultiheadAttention) and self.tensor in ("in_proj_weight", *_PROJECTIONS):
            inputs = 1
            if self.tensor == "in_proj_weight":
                parts = tuple(before + name for name in _PROJECTIONS)
        return Layout(inputs, groups, parts, self.normed)


@dataclass(frozen=True, eq=False)
class Weight:
    """A parameter and all that hold it. ``names``: of the parameter itself, then what its holders call what they make of it."""

    names: tuple[str, ...]
    parameter: nn.Parameter
    holders: tuple[Holder, ...]

    @property
    def name(self) -> str:
        """The first name, which masks and stored runs have."""
        return self.names[0]

    def is_called(self, pattern: str) -> bool:
        """Whether a pattern names it, its layer, or one of those that share it."""
        return any(matches(name, pattern) for name in self.names)

    @property
    def is_default(self) -> bool:
        """Pruned by default: trained, and of a linear layer or a convolution wherever it is used."""
        return self.parameter.requires_grad and all(holder.is_default for holder in self.holders)

    @property
    def layout(self) -> Layout:
        """That of the first holder whose kind is known."""
        layouts = [holder.layout for holder in self.holders]
        best = next((layout for layout in layouts if layout.inputs is not None), layouts[0])
        names = [*self.names[1:]]
        names += [part for layout in layouts for part in layout.parts if part not in best.parts]
        return Layout(best.inputs, best.groups, best.parts, best.normed, tuple(names))


def weights(model: nn.Module) -> list[Weight]:
    """Every parameter of a model, each once, in the model's own order."""
    names: dict[int, list[str]] = {}
    parameters: dict[int, nn.Parameter] = {}
    holders: dict[int, list[Holder]] = {}
    # By a list of parametrizations: what it makes, and for whom.
    parametrized: dict[int, list[tuple[str, nn.Module, str]]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        for tensor, parametrizations in getattr(module, "parametrizations", {}).items():
            parametrized.setdefault(id(parametrizations), []).append((path, module, tensor))
        before = f"{path}." if path else ""
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            aliases_of = names.setdefault(id(parameter), [])
            if before + name not in aliases_of:
                aliases_of.append(before + name)
            parameters[id(parameter)] = parameter
            if id(module) in parametrized:
                new = [_parametrized(module, name, *place) for place in parametrized[id(module)]]
            else:
                new = [_plain(path, module, name)]
            holders.setdefault(id(parameter), []).extend(new)
    distinct = []
    for key, aliases_of in names.items():
        aliases = [holder.name for holder in holders[key] if holder.through and not holder.is_length]
        distinct.append(Weight(tuple(dict.fromkeys((*aliases_of, *aliases))), parameters[key], tuple(holders[key])))
    return distinct


def _plain(path: str, module: nn.Module, name: str) -> Holder:
    """A module that holds the parameter itself; or hooks of older kinds that make the weight of it before each call."""
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm) and name in (f"{hook.name}_v", f"{hook.name}_g"):
            is_direction = name.endswith("_v")
            return Holder(
                path, module, hook.name, "weight norm", is_direction, _axis(hook.dim) if is_direction else None
            )
        if isinstance(hook, SpectralNorm) and name == f"{hook.name}_orig":
            return Holder(path, module, hook.name, "spectral norm")
        if isinstance(hook, BasePruningMethod) and name == f"{hook._tensor_name}_orig":
            return Holder(path, module, hook._tensor_name, "torch.nn.utils.prune")
    return Holder(path, module, name)


def _parametrized(parametrizations: nn.Module, name: str, path: str, module: nn.Module, tensor: str) -> Holder:
    one = next(iter(parametrizations.children()))
    kind = type(one).__name__ if len(list(parametrizations.children())) == 1 else ""
    if kind == "_WeightNorm" and type(one).__module__.startswith("torch.nn."):
        is_direction = name == "original1"
        return Holder(path, module, tensor, "weight norm", is_direction, _axis(one.dim) if is_direction else None)
    if kind == "_SpectralNorm" and type(one).__module__.startswith("torch.nn."):
        return Holder(path, module, tensor, "spectral norm")
    kinds = ", ".join(type(child).__name__ for child in parametrizations.children())
    return Holder(path, module, tensor, f"the parametrization {kinds}", _keeps_zeros(module, tensor, name))


def _axis(dim: Any) -> int | None:
    return None if dim in (None, -1) else int(dim)


def _keeps_zeros(module: nn.Module, tensor: str, name: str) -> bool:
    """Whether zeros of the parameter are zeros of the weight that is made of it, found by trying two masks of chance."""
    if name != "original":
        return False  # several parameters make one weight
    generator = torch.Generator().manual_seed(0)
    try:
        trial: Any = copy.deepcopy(module).cpu().eval()
        original = trial.parametrizations[tensor].original
        mask = torch.rand(original.shape, generator=generator) < 0.5
        values = torch.randn(original.shape, generator=generator).to(original.dtype)
        with torch.no_grad():
            for survivors in (mask, ~mask):
                original.copy_(values.masked_fill(~survivors, 0.0))
                weight = getattr(trial, tensor)
                if weight.shape != original.shape or not bool((weight[~survivors] == 0).all()):
                    return False
    except Exception:  # a parametrization of the user's own may fail in any way
        return False
    return True


def prunable(model: nn.Module, include: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """The weights that sparsity is counted over, in the model's own order.

    Those of linear and convolution layers that are trained; biases, normalisation, embeddings, recurrent layers and what else
    there is only where ``include`` names them, and so the layers that the model itself names in ``dense_by_default``
    (patterns). A weight that several layers share is counted once, under the name that was registered first; any of its names
    means it, and it is pruned by default where all of them are. Raises PruningError for a pattern that matches nothing, for a
    parameter whose zeros would not be zeros of the weight, and for a model without any weight to prune.
    """
    every = weights(model)
    check_patterns(include, [name for weight in every for name in weight.names], "include")
    selected = [one for one in every if by_default(model, one) or any(one.is_called(pattern) for pattern in include)]
    for weight in selected:
        for holder in weight.holders:
            if not holder.maskable and not holder.is_length:
                raise PruningError(
                    f"pruning.include: {weight.name!r} cannot be pruned: {holder.through} makes {holder.name!r} of it, whose "
                    "zeros are others. Take it out of `pruning.include`."
                )
    if not selected:
        raise PruningError("the model has no linear or convolution layer; name parameters under `pruning.include`.")
    return {weight.name: weight.parameter for weight in selected}


def pruned_by_default(model: nn.Module) -> dict[str, Tensor]:
    """The weights that are prunable without any ``include``; none at all of a model of recurrent layers, say."""
    return {weight.name: weight.parameter for weight in weights(model) if by_default(model, weight)}


def by_default(model: nn.Module, weight: Weight) -> bool:
    """Whether a weight of ``model`` is pruned by default; a model may keep some by ``dense_by_default``."""
    return weight.is_default and not kept_by_model(model, weight)


def kept_by_model(model: nn.Module, weight: Weight) -> bool:
    """Whether the model names a weight among those that it wants dense."""
    return any(weight.is_called(pattern) for pattern in getattr(model, "dense_by_default", ()))


def layouts(model: nn.Module) -> dict[str, Layout]:
    """How the weights of each parameter belong together, by its first name."""
    return {weight.name: weight.layout for weight in weights(model)}


def computed(model: nn.Module) -> dict[str, Tensor]:
    """The weights that layers compute with, by the name of the parameter that they are made of; only where they are made,
    under a norm or another parametrization. Of the same shape as the parameter, and as in evaluation mode.
    """
    by_name: dict[str, Tensor] = {}
    for weight in weights(model):
        holder = weight.holders[0]
        if holder.through and holder.maskable:
            with torch.no_grad(), _evaluating(holder.module):
                by_name[weight.name] = _made(holder)
    return by_name


def _made(holder: Holder) -> Tensor:
    module: Any = holder.module
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm) and hook.name == holder.tensor:
            return hook.compute_weight(module)  # type: ignore[no-any-return]
        if isinstance(hook, SpectralNorm) and hook.name == holder.tensor:
            return hook.compute_weight(module, do_power_iteration=False)
        if isinstance(hook, BasePruningMethod) and hook._tensor_name == holder.tensor:
            return hook.apply_mask(module)  # type: ignore[no-any-return, no-untyped-call]
    weight: Tensor = getattr(module, holder.tensor)
    return weight


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Spectral norm would go on with its estimate in training mode."""
    before = [(one, one.training) for one in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for one, training in before:
            one.training = training


def renewed(model: nn.Module) -> nn.Module:
    """``model``, in which older norms have made their weights of the parameters that are there now, and not before a call.

    What they made while a graph was recorded could not be copied: torch refuses.
    """
    for module in model.modules():
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, (WeightNorm, SpectralNorm, BasePruningMethod)):
                tensor = hook._tensor_name if isinstance(hook, BasePruningMethod) else hook.name
                with torch.no_grad():
                    module.__dict__[tensor] = _made(Holder("", module, tensor))
    return model


def copied(model: nn.Module) -> nn.Module:
    """A deep copy."""
    return copy.deepcopy(renewed(model))


def is_linear_or_convolution(holder: Holder) -> bool:
    """Whether a weight is that of a layer whose inputs a criterion can listen to: called with one tensor that meets it."""
    supported = isinstance(holder.module, (*_OUTPUT_FIRST, *_TRANSPOSED)) or _is_gpt2_linear(holder.module)
    return supported and holder.tensor == "weight" and not holder.through


def _is_gpt2_linear(module: nn.Module) -> bool:
    """Hugging Face's ``Conv1D``, a linear layer whose weight is ``[in, out]``; told without importing transformers."""
    return f"{type(module).__module__}.{type(module).__name__}" == "transformers.pytorch_utils.Conv1D"
