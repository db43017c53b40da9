"""What stays dense of a model, why, and what would prune it: a network is only as sparse as the weights that are pruned."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from torch import nn

from ticketsmith.pruning.names import matches
from ticketsmith.pruning.weights import Holder, Weight, by_default, kept_by_model, weights
from ticketsmith.spec import PruneRule


@dataclass(frozen=True)
class UnprunedMatrix:
    """A parameter of two or more axes that is not pruned. ``share`` is that of all parameters, 0..1; ``include`` the pattern
    for ``pruning.include`` that prunes it, and those of its kind, None where none can.
    """

    name: str
    shape: tuple[int, ...]
    count: int
    share: float
    why: str
    include: str | None


def unpruned_matrices(model: nn.Module, rule: PruneRule) -> list[UnprunedMatrix]:
    """The matrices that ``rule`` leaves dense, in the model's own order."""
    every = weights(model)
    total = sum(weight.parameter.numel() for weight in every)
    matrices = []
    for weight in every:
        if weight.parameter.dim() < 2 or _is_pruned(model, weight, rule):
            continue
        shape, count = tuple(weight.parameter.shape), weight.parameter.numel()
        include = _friendly(weight) if _can_be_included(weight, rule) else None
        matrices.append(UnprunedMatrix(weight.name, shape, count, count / total, _why(model, weight, rule), include))
    names = {weight.name: weight.names for weight in every}
    return [replace(one, include=_widened(one, matrices, names)) for one in matrices]


def _is_pruned(model: nn.Module, weight: Weight, rule: PruneRule) -> bool:
    included = by_default(model, weight) or any(weight.is_called(pattern) for pattern in rule.include)
    parts = weight.layout.parts
    excluded = [any(matches(name, pattern) for pattern in rule.exclude) for name in parts]
    return included and not any(weight.is_called(pattern) for pattern in rule.exclude) and not (parts and all(excluded))


def _can_be_included(weight: Weight, rule: PruneRule) -> bool:
    is_excluded = any(weight.is_called(pattern) for pattern in rule.exclude)
    return not is_excluded and all(holder.maskable for holder in weight.holders)


def _why(model: nn.Module, weight: Weight, rule: PruneRule) -> str:
    excluded = [pattern for pattern in rule.exclude if weight.is_called(pattern)]
    if excluded:
        return f"pruning.exclude names it ({excluded[0]})"
    if weight.layout.parts and any(weight.is_called(pattern) for pattern in rule.include):
        return "pruning.exclude names its parts"
    if not weight.parameter.requires_grad:
        return "frozen: it is not trained"
    if kept_by_model(model, weight):
        return "the model keeps it dense by default"
    holder = next(holder for holder in weight.holders if not holder.is_default)
    names = dict.fromkeys(holder.name for holder in weight.holders)
    shared = f" (shared by {', '.join(names)})" if len(names) > 1 else ""
    return _kind(holder) + shared


def _kind(holder: Holder) -> str:
    module, kind = holder.module, type(holder.module).__name__
    if holder.through:
        if holder.maskable:
            return f"under {holder.through}"
        if holder.is_length:
            return "lengths of weight norm"
        return f"{holder.through}: zeros of this are no zeros of {holder.name}"
    if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
        return f"recurrent layer ({kind})"
    if isinstance(module, nn.MultiheadAttention):
        return "queries, keys and values of attention"
    if isinstance(module, nn.ConvTranspose3d):
        return "transposed convolution in 3-d"
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        return "embedding"
    return f"parameter of {kind}"


def _friendly(weight: Weight) -> str:
    """What a user calls it: the weight of a layer rather than what that is made of."""
    return next((holder.name for holder in weight.holders if holder.through), weight.name)


def _widened(matrix: UnprunedMatrix, dense: Iterable[UnprunedMatrix], names: dict[str, tuple[str, ...]]) -> str | None:
    """A pattern for all dense matrices that are called alike, such as those of all layers, if it means no other parameter."""
    if matrix.include is None:
        return None
    for wide in (_pattern(matrix.include, numbers=True), _pattern(matrix.include, numbers=False)):
        named = {name for name, aliases in names.items() if any(matches(alias, wide) for alias in aliases)}
        alike = {one.name for one in dense if one.include and one.why == matrix.why and matches(one.include, wide)}
        if named == alike:
            return wide
    return matrix.include


def _pattern(name: str, numbers: bool) -> str:
    layer, dot, weight = name.rpartition(".")
    if numbers:
        layer = ".".join("*" if part.isdigit() else part for part in layer.split("."))
    return layer + dot + re.sub(r"^weight_(ih|hh|hr)(_l\d+(_reverse)?)?$", "weight_*", weight)
