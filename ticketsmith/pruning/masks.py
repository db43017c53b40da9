"""Masks: boolean tensors, True where a weight survives; how they are ranked, shuffled and stored."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ticketsmith.errors import DamagedRunError
from ticketsmith.pruning.arithmetic import named, pruned_layers, rate, refuse_empty, survivors, targets
from ticketsmith.pruning.groups import PLAIN, Layout, Layouts, joined, neighbours, of_layers, rows, slices, split
from ticketsmith.spec import PruneRule, n_of_m

Masks = dict[str, Tensor]
"""Parameter name to a boolean tensor of the parameter's shape, True where the weight survives."""


def full(parameters: Mapping[str, Tensor]) -> Masks:
    """The dense network's masks: everything survives."""
    return {name: torch.ones_like(value, dtype=torch.bool) for name, value in parameters.items()}


def prune(
    masks: Mapping[str, Tensor], scores: Mapping[str, Tensor], rule: PruneRule, layouts: Layouts | None = None
) -> Masks:
    """Removes the lowest-scored surviving weights, exactly as many as the rule says.

    ``layouts`` (``weights.layouts``) say which layers a parameter consists of, each of which is pruned for itself, and where
    its outputs and inputs lie, which ``scope: row`` and patterns need. Parameters without inputs (biases, norms) are compared
    as a whole, and refused by a pattern.

    Ties are broken by position (layer order, then flat index; the earlier one goes first), so the result is the same
    everywhere. Excluded layers pass as they are, and no fraction is taken of them. Raises PruningError when a layer would
    be left empty or a pattern of the rule names none.
    """
    layouts = layouts or {}
    layers = of_layers(masks, layouts)
    rule = named(rule, {name: layout.names for name, layout in layers.items()})
    whole = split(masks, layouts)
    chosen = pruned_layers(rule, list(whole))
    before = {name: whole[name] for name in chosen}
    ranked = split(scores, layouts)
    values = {name: _guarded(before[name], ranked[name], layers[name].normed) for name in chosen}
    after = _pruned(before, values, rule, layers)
    for name, mask in after.items():
        refuse_empty(name, int(mask.sum()), _least(mask, layers[name].normed))
    return joined({**whole, **after}, masks, layouts)


def fully_excluded(rule: PruneRule, masks: Mapping[str, Tensor], layouts: Layouts) -> frozenset[str]:
    """The parameters of which the rule prunes no layer. Raises PruningError for a pattern that names none."""
    layers = of_layers(masks, layouts)
    chosen = set(pruned_layers(named(rule, {name: layout.names for name, layout in layers.items()}), list(layers)))
    parts = {name: layouts.get(name, PLAIN).parts or (name,) for name in masks}
    return frozenset(name for name, several in parts.items() if not chosen & set(several))


def _pruned(masks: Masks, scores: Mapping[str, Tensor], rule: PruneRule, layouts: Layouts) -> Masks:
    if rule.pattern is not None:
        n, m = n_of_m(rule.pattern)
        return {name: _keep_pattern(name, mask, scores[name], layouts[name], n, m) for name, mask in masks.items()}
    if rule.scope == "row":
        return {name: _keep_of_rows(mask, scores[name], layouts[name], rule, name) for name, mask in masks.items()}
    alive = {name: int(mask.sum()) for name, mask in masks.items()}
    if rule.scope == "layer":
        keep = targets(rule, alive)
        return {name: _keep_highest(mask, scores[name], keep[name]) for name, mask in masks.items()}
    joint = torch.cat([mask.flatten() for mask in masks.values()])
    ranked = torch.cat([scores[name].flatten().double() for name in masks])
    kept = _keep_highest(joint, ranked, survivors(sum(alive.values()), rule.fraction, rule.rounds))
    parts = torch.split(kept, [mask.numel() for mask in masks.values()])
    return {name: part.view_as(mask) for (name, mask), part in zip(masks.items(), parts, strict=True)}


def _guarded(mask: Tensor, scores: Tensor, normed: int | None) -> Tensor:
    """The scores; under weight norm, that of the best survivor of each slice is infinite, so that none loses all."""
    if normed is None:
        return scores
    index = slices(mask.shape, normed)
    best = scores.double().masked_fill(~mask, -math.inf).flatten()[index].argmax(1, keepdim=True)
    guarded = scores.double().flatten()
    guarded[index.gather(1, best)] = math.inf
    return guarded.view_as(mask)


def _least(mask: Tensor, normed: int | None) -> int:
    """How many weights a layer must keep."""
    return 1 if normed is None else mask.shape[normed]


def _keep_highest(mask: Tensor, scores: Tensor, keep: int) -> Tensor:
    alive = mask.flatten().nonzero().squeeze(1)
    order = torch.sort(scores.flatten()[alive], stable=True).indices
    kept = torch.zeros(mask.numel(), dtype=torch.bool, device=mask.device)
    kept[alive[order[len(alive) - keep :]]] = True
    return kept.view_as(mask)


def _keep_of_rows(mask: Tensor, scores: Tensor, layout: Layout, rule: PruneRule, name: str) -> Tensor:
    index = rows(mask.shape, layout)
    alive = mask.flatten()[index].sum(1)
    keep = {int(count): survivors(int(count), rate(rule, name), rule.rounds) for count in set(alive.tolist())}
    return _keep_highest_of_each(mask, scores, index, torch.tensor([keep[int(count)] for count in alive]))


def _keep_pattern(name: str, mask: Tensor, scores: Tensor, layout: Layout, n: int, m: int) -> Tensor:
    index = neighbours(name, mask.shape, layout, m)
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
    layouts: Layouts | None = None,
) -> Masks:
    """A random ticket: each layer keeps its number of weights, at random places (Frankle & Carbin's layer-wise control).

    With ``groups``, weights move only among M neighbours (see ``ticketsmith.pruning.groups``), so that a pattern stays one.
    """
    layouts = layouts or {}
    layers = of_layers(masks, layouts)
    shuffled = {}
    for name, mask in split(masks, layouts).items():
        layout = layers[name]
        if groups and not bool(mask.all()):
            index = neighbours(name, mask.shape, layout, groups)
            places = torch.rand(index.shape, generator=generator).argsort(dim=1, stable=True)
            moved = torch.empty(mask.numel(), dtype=torch.bool)
            moved[index] = mask.flatten()[index].gather(1, places)
            shuffled[name] = moved.view_as(mask)
        elif layout.normed is not None:
            everywhere = torch.ones_like(mask)
            chance = _guarded(everywhere, torch.rand(mask.shape, generator=generator), layout.normed)
            shuffled[name] = _keep_highest(everywhere, chance, int(mask.sum()))
        else:
            order = torch.randperm(mask.numel(), generator=generator)
            shuffled[name] = mask.flatten()[order].view_as(mask)
    return joined(shuffled, masks, layouts)


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
