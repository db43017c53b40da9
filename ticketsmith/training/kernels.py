"""Which kernels train a run: those that its spec asks for, where they can follow it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from ticketsmith.native import NotBuiltError, best_isa
from ticketsmith.spec import Training
from ticketsmith.tasks.task import Task
from ticketsmith.training.learner import Learner, TorchLearner
from ticketsmith.training.native.learner import NativeLearner
from ticketsmith.training.native.recognise import NotFollowedError, recognise
from ticketsmith.training.native.rule import SWAPPED
from ticketsmith.training.native.swap import Swap, SwapLearner, swappable
from ticketsmith.training.ranks import Ranks

_NAMED = 4
"""Layers that a note names."""


def make_learner(
    task: Task,
    model: nn.Module,
    masks: Mapping[str, Tensor],
    training: Training,
    device: torch.device,
    note: Callable[[str], None] = lambda text: None,
    ranks: Ranks | None = None,
    threads: int = 1,
) -> Learner:
    """What trains ``model``, which is its own from now on; with the other ``ranks``, if there are several. ``note`` hears why
    PyTorch does where native kernels were asked for. ``threads``: of native kernels, whose bytes do not depend on it.

    Which kernels these are follows from the spec, the module, the masks and the kind of device, never from a measurement.
    Raises NotBuiltError where native kernels are asked for, but were never built.
    """
    if training.kernels == "native" and device.type != "cpu":
        note(f"PyTorch trains it: native kernels are for CPUs, and this run is on {device.type}")
    elif training.kernels == "native":
        check_kernels(training, device.type)
        try:
            graph, examples = recognise(model, task, training, masks)
        except NotFollowedError as error:
            swap = swappable(model, task, training, masks)
            note(_told(str(error), swap, masks))
            names = swap.sparse(masks)
            if names or swap.functions:
                return SwapLearner(task, model, masks, training, names, bool(swap.functions), threads)
        else:
            return NativeLearner(task, model, masks, training, graph, examples, threads)
    return TorchLearner(task, model.to(device), masks, training, ranks if training.ranks > 1 else None)


def _told(why: str, swap: Swap, masks: Mapping[str, Tensor]) -> str:
    """The same for all runs of a recipe, whatever their sparsity."""
    parts = [" and ".join(swap.functions)] if swap.functions else []
    for axes, kind in ((2, "linear layers"), (4, "convolutions")):
        layers = [name.removesuffix(".weight") for name in swap.rows if masks[name].dim() == axes]
        more = len(layers) - _NAMED
        some = ", ".join(layers[:_NAMED]) + f" and {more} more" if more > 1 else ", ".join(layers)
        if layers:
            lost = f"{SWAPPED[axes][0]:.0%}"
            parts.append(f"those of its {kind} ({some}) that are large and have lost {lost} of their weights")
    kernels = f"native kernels only {', and '.join(parts)}" if parts else "no native kernels"
    return f"PyTorch trains it, and {kernels}: {why}"


def check_kernels(training: Training, device: str) -> None:
    """Raises NotBuiltError where native kernels are asked for that were never built here."""
    if training.kernels == "native" and device == "cpu":
        try:
            best_isa()
        except NotBuiltError as error:
            raise NotBuiltError(
                f"training.kernels: native: {error} Or let PyTorch train: --set training.kernels=torch."
            ) from error
