"""The masks of a rule, of scores that no chance and no processor changes; hashes of them are in ``masks.json``."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch

from tests.pruning import nets
from ticketsmith.pruning.masks import Masks, full, prune, shuffle
from ticketsmith.pruning.weights import layouts, prunable
from ticketsmith.spec import PruneRule


def masks_of(entry: dict[str, Any]) -> tuple[str, str]:
    """Hashes of the masks after ``times`` rounds of a rule on one of the nets, and of the random ticket of it."""
    model, rule = getattr(nets, entry["net"])(), PruneRule.model_validate_json(json.dumps(entry["rule"]))
    weights = prunable(model, rule.include)
    masks = full(weights)
    for turn in range(entry["times"]):  # with many ties
        scores = {
            name: ((torch.arange(weight.numel()) * 7919 + turn) % 101).double().view(weight.shape)
            for name, weight in weights.items()
        }
        masks = prune(masks, scores, rule, layouts(model))
    generator = torch.Generator().manual_seed(3)
    return _hash(masks), _hash(shuffle(masks, generator, entry["shuffle"], layouts(model)))


def _hash(masks: Masks) -> str:
    digest = hashlib.sha256()
    for name, mask in masks.items():
        digest.update(name.encode() + mask.numpy().tobytes())
    return digest.hexdigest()[:16]
