"""Masks: boolean tensors, True where a weight survives; how they are ranked, shuffled and stored."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ticketsmith.errors import DamagedRunError
from ticketsmith.pruning import structure as structures
from ticketsmith.pruning.distribution import DISTRIBUTIONS, Candidates, by_layer, highest
from ticketsmith.pruning.layout import PLAIN, Layout, Layouts, joined, neighbours, of_layers, slices, split
from ticketsmith.pruning.names import pruned_layers, resolved
from ticketsmith.pruning.schedule import refuse_empty
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
    its outputs and inputs lie, which ``scope: row``, patterns and blocks need. Parameters without inputs (biases, norms) are
    compared as a whole, and refused by a pattern.

    Ties are broken by position (layer order, then flat index; the earlier one goes first), so the result is the same
    everywhere. Excluded layers pass as they are, and no fraction is taken of them. Raises PruningError when a layer would
    be left empty or a pattern of the rule names none.
    """
    layouts = layouts or {}
    layers = of_layers(masks, layouts)
    rule = resolved(rule, {name: layout.names for name, layout in layers.items()})
    whole, scored = split(masks, layouts), split(scores, layouts)
    names = pruned_layers(rule, list(whole))
    units = {
        name: structures.units(name, whole[name].shape, layers[name], rule.structure, rule.block) for name in names
    }
    candidates = (
        (name, _candidates(rule, name, whole[name], scored[name], units[name], layers[name])) for name in names
    )
    distribution = by_layer if rule.pattern else DISTRIBUTIONS[rule.scope]
    stays = distribution(candidates, rule)
    pruned = {name: _mask(stays[name], units[name], whole[name]) for name in names}
    for name, mask in pruned.items():
        normed = layers[name].normed
        refuse_empty(name, int(mask.sum()), 1 if normed is None else mask.shape[normed])
    return joined({**whole, **pruned}, masks, layouts)


def _candidates(
    rule: PruneRule, name: str, mask: Tensor, scores: Tensor, units: Tensor | None, layout: Layout
) -> Candidates:
    """A unit is worth the mean of its weights' scores, and alive as long as one of them is."""
    guarded, pattern = _guarded(mask, scores if scores.is_floating_point() else scores.double(), layout.normed), None
    rows_of_blocks = None
    if rule.pattern:
        n, m = n_of_m(rule.pattern)
        pattern = neighbours(name, mask.shape, layout, m), n
    worth, alive = guarded.flatten(), mask.flatten()
    if units is not None:
        worth, alive = structures.worth(worth, units), structures.alive(alive, units)
    if rule.block is not None:
        rows_of_blocks = layout.groups * -(-layout.ends(mask.shape)[0] // layout.groups // rule.block[0])
    return Candidates(worth, alive, mask.shape, layout, pattern, rows_of_blocks)


def _mask(stays: Tensor, units: Tensor | None, mask: Tensor) -> Tensor:
    """``mask`` without the units that do not stay."""
    if units is None:
        return stays.view_as(mask)
    flat, places = torch.zeros(mask.numel(), dtype=torch.bool), units[stays].flatten()
    flat[places[places >= 0]] = True
    return flat.view_as(mask) & mask


def fully_excluded(rule: PruneRule, masks: Mapping[str, Tensor], layouts: Layouts) -> frozenset[str]:
    """The parameters of which the rule prunes no layer. Raises PruningError for a pattern that names none."""
    layers = of_layers(masks, layouts)
    pruned = set(pruned_layers(resolved(rule, {name: layout.names for name, layout in layers.items()}), list(layers)))
    parts = {name: layouts.get(name, PLAIN).parts or (name,) for name in masks}
    return frozenset(name for name, layers_of_it in parts.items() if pruned.isdisjoint(layers_of_it))


def _guarded(mask: Tensor, scores: Tensor, normed: int | None) -> Tensor:
    """The scores; under weight norm, that of the best survivor of each slice is infinite, so that none loses all."""
    if normed is None:
        return scores
    index = slices(mask.shape, normed)
    best = scores.double().masked_fill(~mask, -math.inf).flatten()[index].argmax(1, keepdim=True)
    guarded = scores.double().flatten()
    guarded[index.gather(1, best)] = math.inf
    return guarded.view_as(mask)


def shuffle(
    masks: Mapping[str, Tensor],
    generator: torch.Generator,
    groups: int | None = None,
    layouts: Layouts | None = None,
    structure: str = "unstructured",
    block: tuple[int, int] | None = None,
) -> Masks:
    """A random ticket: each layer keeps its number of weights, at random places (Frankle & Carbin's layer-wise control).

    With ``groups``, weights move only among M neighbours (see ``ticketsmith.pruning.layout``), so that a pattern stays one;
    with a ``structure``, whole units move; with a ``block``, whole blocks, those at the edge among their like. A layer of which
    nothing is gone stays as it is.
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
        elif block is not None:
            shuffled[name] = mask if bool(mask.all()) else _shuffled_blocks(name, mask, layout, block, generator)
        elif layout.normed is not None:
            everywhere, chance = torch.ones_like(mask), torch.rand(mask.shape, generator=generator)
            chance = _guarded(everywhere, chance, layout.normed).flatten()
            moved = highest(chance, everywhere.flatten(), int(mask.sum()))
            shuffled[name] = moved.view_as(mask)
        elif structure != "unstructured" and bool(mask.all()):
            shuffled[name] = mask
        else:
            units = structures.units(name, mask.shape, layout, structure)
            places = torch.arange(mask.numel())[:, None] if units is None else units
            moved = mask.flatten().clone()
            moved[places] = mask.flatten()[places[torch.randperm(len(places), generator=generator)]]
            shuffled[name] = moved.view_as(mask)
    return joined(shuffled, masks, layouts)


def _shuffled_blocks(
    name: str, mask: Tensor, layout: Layout, block: tuple[int, int], generator: torch.Generator
) -> Tensor:
    """Blocks change places with those of as many weights, so that the layer keeps its number of weights."""
    units = structures.units(name, mask.shape, layout, "unstructured", block)
    assert units is not None
    stays, sizes = structures.alive(mask.flatten(), units), (units >= 0).sum(1)
    for size in sorted(set(sizes.tolist())):
        places = (sizes == size).nonzero().squeeze(1)
        stays[places] = stays[places[torch.randperm(len(places), generator=generator)]]
    return _mask(stays, units, torch.ones_like(mask))


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
