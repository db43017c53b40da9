"""Masks: boolean tensors, True where a weight survives; how they are ranked, shuffled and stored."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ticketsmith.errors import DamagedRunError
from ticketsmith.pruning.arithmetic import pruned_layers, rate, refuse_empty, survivors, targets
from ticketsmith.pruning.groups import neighbours, rows
from ticketsmith.spec import PruneRule, n_of_m

Masks = dict[str, Tensor]
"""Parameter name to a boolean tensor of the parameter's shape, True where the weight survives."""


def full(parameters: Mapping[str, Tensor]) -> Masks:
    """The dense network's masks: everything survives."""
    return {name: torch.ones_like(value, dtype=torch.bool) for name, value in parameters.items()}


def prune(
    masks: Mapping[str, Tensor],
    scores: Mapping[str, Tensor],
    rule: PruneRule,
    input_axes: Mapping[str, int] | None = None,
) -> Masks:
    """Removes the lowest-scored surviving weights, exactly as many as the rule says.

    ``input_axes``: the axis of each parameter along which its inputs lie (``criteria.input_axes``); ``scope: row`` and
    patterns need it. Parameters without one (biases, norms) are compared as a whole, and refused by a pattern.

    Ties are broken by position (layer order, then flat index; the earlier one goes first), so the result is the same
    everywhere. Excluded layers pass as they are, and no fraction is taken of them. Raises PruningError when a layer would
    be left empty or a pattern of the rule names none.
    """
    alive = {name: int(masks[name].sum()) for name in pruned_layers(rule, list(masks))}
    axes = dict(input_axes or {})
    if rule.pattern is not None:
        n, m = n_of_m(rule.pattern)
        return {
            **masks,
            **{name: _keep_pattern(name, masks[name], scores[name], axes.get(name), n, m) for name in alive},
        }
    if rule.scope == "row":
        kept_rows = {name: _keep_of_rows(masks[name], scores[name], axes.get(name), rule, name) for name in alive}
        for name, mask in kept_rows.items():
            refuse_empty(name, int(mask.sum()))
        return {**masks, **kept_rows}
    if rule.scope == "layer":
        keep = targets(rule, alive)
        return {**masks, **{name: _keep_highest(masks[name], scores[name], keep[name]) for name in alive}}
    joined = torch.cat([masks[name].flatten() for name in alive])
    ranked = torch.cat([scores[name].flatten().double() for name in alive])
    kept = _keep_highest(joined, ranked, survivors(sum(alive.values()), rule.fraction, rule.rounds))
    parts = torch.split(kept, [masks[name].numel() for name in alive])
    pruned = {name: part.view_as(masks[name]) for name, part in zip(alive, parts, strict=True)}
    for name, mask in pruned.items():
        refuse_empty(name, int(mask.sum()))
    return {**masks, **pruned}


def _keep_highest(mask: Tensor, scores: Tensor, keep: int) -> Tensor:
    alive = mask.flatten().nonzero().squeeze(1)
    order = torch.sort(scores.flatten()[alive], stable=True).indices
    kept = torch.zeros(mask.numel(), dtype=torch.bool, device=mask.device)
    kept[alive[order[len(alive) - keep :]]] = True
    return kept.view_as(mask)


def _keep_of_rows(mask: Tensor, scores: Tensor, axis: int | None, rule: PruneRule, name: str) -> Tensor:
    index = torch.arange(mask.numel()).view(1, -1) if axis is None else rows(mask.shape, axis)
    alive = mask.flatten()[index].sum(1)
    keep = {int(count): survivors(int(count), rate(rule, name), rule.rounds) for count in set(alive.tolist())}
    return _keep_highest_of_each(mask, scores, index, torch.tensor([keep[int(count)] for count in alive]))


def _keep_pattern(name: str, mask: Tensor, scores: Tensor, axis: int | None, n: int, m: int) -> Tensor:
    index = neighbours(name, mask.shape, axis, m)
    return _keep_highest_of_each(mask, scores, index, torch.full((len(index),), n))


def _keep_highest_of_each(mask: Tensor, scores: Tensor, index: Tensor, keep: Tensor) -> Tensor:
    """Of each group (``index``, flat, ``[groups, size]``) the ``keep`` (``[groups]``) highest survivors; ties by position."""
    ranked = scores.flatten().double().masked_fill(~mask.flatten(), -math.inf)[index]
    order = torch.sort(ranked, dim=1, stable=True).indices
    stays = torch.arange(index.shape[1]) >= index.shape[1] - keep[:, None]
    kept = torch.zeros(mask.numel(), dtype=torch.bool)
    kept[index.gather(1, order)[stays]] = True
    return kept.view_as(mask) & mask


def shuffle(
    masks: Mapping[str, Tensor],
    generator: torch.Generator,
    groups: int | None = None,
    input_axes: Mapping[str, int] | None = None,
) -> Masks:
    """A random ticket: each layer keeps its number of weights, at random places (Frankle & Carbin's layer-wise control).

    With ``groups``, weights move only among M neighbours (see ``ticketsmith.pruning.groups``), so that a pattern stays one.
    """
    shuffled = {}
    for name, mask in masks.items():
        if groups and not bool(mask.all()):
            index = neighbours(name, mask.shape, (input_axes or {}).get(name), groups)
            places = torch.rand(index.shape, generator=generator).argsort(dim=1, stable=True)
            moved = torch.empty(mask.numel(), dtype=torch.bool)
            moved[index] = mask.flatten()[index].gather(1, places)
            shuffled[name] = moved.view_as(mask)
            continue
        order = torch.randperm(mask.numel(), generator=generator)
        shuffled[name] = mask.flatten()[order].view_as(mask)
    return shuffled


Shapes = list[tuple[str, list[int]]]
"""Names and shapes of masks, in the model's order: ties are broken by it."""


def pack(masks: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Shapes]:
    """Bit-packed masks, and the shapes needed to unpack them: 1/32 of the weights' size."""
    bits = {name: torch.from_numpy(np.packbits(mask.cpu().numpy().reshape(-1))) for name, mask in masks.items()}
    return bits, [(name, list(mask.shape)) for name, mask in masks.items()]


def unpack(bits: Mapping[str, Tensor], shapes: Shapes) -> Masks:
    """The inverse of ``pack``. Raises DamagedRunError when bits and shapes do not fit."""
    masks = {}
    try:
        for name, shape in shapes:
            count, packed = math.prod(shape), bits[name].numpy()
            if len(packed) != -(-count // 8):
                raise ValueError(f"{len(packed)} bytes for {count} weights")
            flat = np.unpackbits(packed, count=count)
            masks[name] = torch.from_numpy(flat.astype(bool).reshape(shape))
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedRunError(f"a mask does not fit its shape: {error}") from error
    return masks
