"""Wanda: a weight is worth its magnitude times the strength of its input (Sun et al. 2023, arXiv:2306.11695).

No gradient and no retraining: one pass over a few calibration examples. The paper compares weights within each output
of a layer, which is ``pruning.scope: row`` in a recipe.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ticketsmith.errors import PruningError
from ticketsmith.pruning.criteria import Scoring
from ticketsmith.pruning.names import layer_of
from ticketsmith.pruning.weights import is_linear_or_convolution, weights

_BATCH = 32


def wanda(scoring: Scoring, examples: int = 128) -> dict[str, Tensor]:
    """``|w| * ||x||_2``: x are the inputs that a weight meets on ``examples`` training examples, drawn from the
    replicate's stream for masks.

    A weight that several layers share meets the inputs of all. Raises PruningError for a weight that is none of a linear or
    convolution layer as it is, or whose layer is never called; not for those that are excluded, which score nothing.
    """
    if examples < 1:
        raise PruningError(f"criterion 'wanda': examples is {examples}; at least 1 is needed to calibrate on.")
    pruned = [name for name in scoring.weights if name not in scoring.excluded]
    squares = _squared_inputs(scoring, pruned, examples)
    scored = {name: scoring.weights[name].detach().abs() * squares[name].sqrt() for name in pruned}
    return {name: torch.zeros_like(scoring.weights[name]) for name in scoring.excluded} | scored


def _squared_inputs(scoring: Scoring, pruned: list[str], examples: int) -> dict[str, Tensor]:
    """Sums of squared inputs by parameter name, each of a shape that multiplies with the weight."""
    sums: dict[str, Tensor] = {}
    holders = {weight.name: weight.holders for weight in weights(scoring.model)}

    def listen(name: str, layer: nn.Module) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        if scoring.weights[name].ndim > 2:  # a convolution is asked for a gradient: by a copy, which has no hook
            layer = copy.deepcopy(layer).requires_grad_()

        def before(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            met = _met(layer, inputs[0].detach().float().square())
            sums[name] = sums[name] + met if name in sums else met

        return before

    for name in pruned:
        if not all(is_linear_or_convolution(one) for one in holders[name]):
            raise PruningError(
                f"criterion 'wanda' scores linear and convolution layers; {name!r} is no weight of one. Take it out of "
                "`pruning.include`."
            )
    hooks = [
        one.module.register_forward_pre_hook(listen(name, one.module))
        for name in pruned
        for one in {id(holder.module): holder for holder in holders[name]}.values()
    ]
    was_training = scoring.model.training
    scoring.model.eval()
    try:
        task, cpu = scoring.task, torch.device("cpu")
        indices = torch.randperm(task.train_size, generator=scoring.generator)[:examples]
        with torch.no_grad():
            for part in torch.split(indices, _BATCH):
                task.loss(scoring.model, task.batch(part, cpu, scoring.generator), scoring.generator)
    finally:
        scoring.model.train(was_training)
        for hook in hooks:
            hook.remove()
    for name in pruned:
        if name not in sums:
            layer = layer_of(name)
            raise PruningError(
                f"criterion 'wanda': layer {layer!r} is not called on the calibration examples, so its inputs are not known. "
                f"Keep it dense with `pruning.exclude: [{layer}]`."
            )
    return sums


def _met(module: nn.Module, squared: Tensor) -> Tensor:
    """For each weight of ``module`` the sum of the squared inputs (``squared``) that it is multiplied with."""
    weight = module.get_parameter("weight")
    if weight.ndim == 2:
        total = squared.flatten(0, -2).sum(0)
        return total if isinstance(module, nn.Linear) else total[:, None]
    # A convolution is linear in its weight: the derivative of the sum of its outputs is the sum of the inputs met,
    # wherever kernel, stride, padding and groups lead.
    with torch.enable_grad():
        return torch.autograd.grad(module(squared).sum(), weight)[0]
