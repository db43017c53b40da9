"""Networks of PyTorch as the kernels of training see them, for benchmarks and tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ticketsmith.spec import Training
from ticketsmith.tasks.task import PlainExamples, Task
from ticketsmith.training.native.graph import Graph
from ticketsmith.training.native.recognise import recognise

Loss = Literal["cross_entropy", "squared_error"]


class Residual(nn.Module):
    """A block of a residual network: relu(norm(conv(x)) + x)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)

    def forward(self, inputs: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(inputs)) + inputs)


@dataclass(frozen=True)
class _Plain:
    """Of a task no more than what is asked to follow its model."""

    shape: tuple[int, int, int]
    judged: Loss

    def plain_examples(self) -> PlainExamples:
        inputs = torch.zeros(1, *self.shape, dtype=torch.uint8)
        return PlainExamples(inputs, torch.zeros(1, dtype=torch.int64), (0.0,), (1.0,), self.judged, 10)


def graph(model: nn.Module, shape: tuple[int, int, int], loss: Loss) -> Graph:
    """``model`` of ten outputs, as the kernels follow it."""
    training = Training(optimizer="sgd", lr=0.1, batch_size=1, duration="1it")
    return recognise(model.train(), cast(Task, _Plain(shape, loss)), training, {})[0]


def arrays(model: nn.Module) -> dict[str, np.ndarray[Any, Any]]:
    """Copies of its state."""
    return {name: value.detach().numpy().copy() for name, value in model.state_dict().items()}


def prune(model: nn.Module, density: float) -> dict[str, np.ndarray[Any, Any]]:
    """Random masks of all weights of layers but the last, which ``model`` then obeys."""
    generator = np.random.default_rng(0)
    weights = [(name, parameter) for name, parameter in model.named_parameters() if parameter.dim() > 1]
    masks = {name: generator.random(parameter.shape) < density for name, parameter in weights[:-1]}
    with torch.no_grad():
        for name, parameter in weights[:-1]:
            parameter.mul_(torch.from_numpy(masks[name]))
    return masks
