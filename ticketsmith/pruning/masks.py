"""Masks: boolean tensors, True where a weight survives; how they are ranked, shuffled and stored."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ticketsmith.errors import DamagedRunError
from ticketsmith.pruning.arithmetic import pruned_layers, refuse_empty, survivors, targets
from ticketsmith.spec import PruneRule

Masks = dict[str, Tensor]
"""Parameter name to a boolean tensor of the parameter's shape, True where the weight survives."""


def full(parameters: Mapping[str, Tensor]) -> Masks:
    """The dense network's masks: everything survives."""
    return {name: torch.ones_like(value, dtype=torch.bool) for name, value in parameters.items()}


def prune(masks: Mapping[str, Tensor], scores: Mapping[str, Tensor], rule: PruneRule) -> Masks:
    """Removes the lowest-scored surviving weights, exactly as many as the rule says.

    Ties are broken by position (layer order, then flat index; the earlier one goes first), so the result is the same
    everywhere. Excluded layers pass as they are, and no fraction is taken of them. Raises PruningError when a layer would
    be left empty or a pattern of the rule names none.
    """
    alive = {name: int(masks[name].sum()) for name in pruned_layers(rule, list(masks))}
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


def shuffle(masks: Mapping[str, Tensor], generator: torch.Generator) -> Masks:
    """A random ticket: each layer keeps its number of weights, at random places (Frankle & Carbin's layer-wise control)."""
    shuffled = {}
    for name, mask in masks.items():
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
