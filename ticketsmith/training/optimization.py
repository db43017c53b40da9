"""Optimizers and learning-rate schedules, from a spec."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from ticketsmith.spec import Training, in_steps


def make_optimizer(model: nn.Module, training: Training) -> torch.optim.Optimizer:
    """The optimizer of the spec, in torch's fused form: one pass over memory a step."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    lr, decay = training.lr, training.weight_decay
    if training.optimizer == "sgd":
        momentum, nesterov = training.momentum, training.nesterov
        return torch.optim.SGD(parameters, lr, momentum, weight_decay=decay, nesterov=nesterov, fused=True)
    if training.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr, weight_decay=decay, fused=True)
    return torch.optim.Adam(parameters, lr, weight_decay=decay, fused=True)


def learning_rate(training: Training, train_size: int) -> Callable[[int], float]:
    """The learning rate before step 0, 1, 2, ... as a function of the step."""

    def steps(duration: str) -> int:
        return in_steps(duration, train_size, training.batch_size)

    total, warmup = steps(training.duration), steps(training.warmup)
    milestones = [steps(milestone) for milestone in training.milestones]

    def rate(step: int) -> float:
        if step < warmup:
            return training.lr * (step + 1) / warmup
        if training.schedule == "step":
            return training.lr * training.gamma ** sum(step >= milestone for milestone in milestones)
        progress = (step - warmup) / max(1, total - warmup)
        if training.schedule == "cosine":
            return training.lr * 0.5 * (1.0 + math.cos(math.pi * progress))
        if training.schedule == "linear":
            return training.lr * (1.0 - progress)
        return training.lr

    return rate
