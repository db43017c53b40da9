"""Where a run starts: the weights and the mask that its spec names, read from the sealed runs it refers to."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from ticketsmith.errors import DivergedError
from ticketsmith.models.state import load
from ticketsmith.pruning.criteria import Scoring, score
from ticketsmith.pruning.masks import Masks, full, fully_excluded, prune, shuffle
from ticketsmith.pruning.weights import copied, layouts, prunable, pruned_by_default
from ticketsmith.spec import AtInit, Dense, Init, PruneRule, RunSpec, Same, Shuffle
from ticketsmith.store.contract import SealedRun
from ticketsmith.streams import derive
from ticketsmith.tasks.build import build_model
from ticketsmith.tasks.task import Task
from ticketsmith.training.tensors import from_bytes, masks_from_bytes

Parent = Callable[[str], SealedRun]
"""Finds a sealed run by key."""


def starting_model(spec: RunSpec, task: Task, parent: Parent) -> nn.Module:
    """The model with its starting weights, on the CPU, not yet masked.

    Of a task with pretrained weights, draw 0 of ``init`` has these and other draws are all chance.
    """
    draw = spec.weights.draw if isinstance(spec.weights, Init) else 0
    stream = derive(spec.seed, "init", draw)
    _seed_torch(stream)
    np.random.seed(stream % 2**32)  # for models of the user's own that draw from NumPy or Python
    random.seed(stream)
    model = build_model(task, anew=bool(draw))
    if not isinstance(spec.weights, Init):
        load(model, read_weights(parent(spec.weights.run)))
    return model


def _seed_torch(seed: int) -> None:
    """``torch.manual_seed``, which without an accelerator takes fifty times as long to find that there is none."""
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


def starting_masks(spec: RunSpec, task: Task, model: nn.Module, parent: Parent) -> Masks:
    """The mask that the spec names, over every prunable weight of ``model``, on the CPU."""
    mask = spec.mask
    if isinstance(mask, Dense):
        return full(pruned_by_default(model))
    if isinstance(mask, AtInit):
        scored = copied(model)  # a criterion may run it; the run must not start from what that leaves
        return _pruned(spec, task, scored, full(prunable(model, mask.rule.include)), mask.rule, mask.draw)
    source = parent(mask.run)
    masks = masks_from_bytes(source.read("mask.safetensors"), f"{source.folder}/mask.safetensors")
    if isinstance(mask, Same):
        return masks
    if isinstance(mask, Shuffle):
        generator = torch.Generator().manual_seed(derive(spec.seed, "masks", mask.draw))
        return shuffle(masks, generator, mask.groups, layouts(model), mask.structure, mask.block)
    trained = build_model(task)
    load(trained, read_weights(source))
    everything = full(prunable(trained, mask.rule.include))  # the dense run's mask knows nothing of `include`
    masks = {name: masks.get(name, whole) for name, whole in everything.items()}
    return _pruned(spec, task, trained, masks, mask.rule, 0)


def _pruned(spec: RunSpec, task: Task, model: nn.Module, masks: Masks, rule: PruneRule, draw: int) -> Masks:
    weights = {name: parameter for name, parameter in model.named_parameters() if name in masks}
    generator = torch.Generator().manual_seed(derive(spec.seed, "masks", draw))
    together = layouts(model)
    excluded = fully_excluded(rule, masks, together)
    scores = score(rule.criterion, Scoring(weights, masks, model, task, generator, excluded))
    return prune(masks, scores, rule, together)


def read_weights(run: SealedRun) -> dict[str, Tensor]:
    """The final weights and buffers of a sealed run, for ``state.load``.

    Raises DamagedRunError; DivergedError when it has none.
    """
    if "model.safetensors" not in run.files:
        raise DivergedError(f"{run.folder} diverged and left no weights to go on from.")
    return from_bytes(run.read("model.safetensors"), f"{run.folder}/model.safetensors")[0]
