"""LeNet-300-100 (LeCun et al. 1998), as in Frankle & Carbin (ICLR 2019)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ticketsmith.models.initial import glorot_


class LeNet(nn.Module):
    """A fully connected network with ReLU; hidden layers are called ``fc1``, ``fc2``, ..., the last one ``output``."""

    def __init__(self, input_shape: tuple[int, ...], classes: int, widths: tuple[int, ...] = (300, 100)) -> None:
        super().__init__()
        sizes = (math.prod(input_shape), *widths)
        self.hidden = [f"fc{index + 1}" for index in range(len(widths))]
        for name, size, width in zip(self.hidden, sizes, widths, strict=False):
            self.add_module(name, nn.Linear(size, width))
        self.output = nn.Linear(sizes[-1], classes)
        glorot_(self)

    def forward(self, inputs: Tensor) -> Tensor:
        activations = inputs.flatten(1)
        for name in self.hidden:
            activations = torch.relu(self.get_submodule(name)(activations))
        output: Tensor = self.output(activations)
        return output


def lenet_300_100(input_shape: tuple[int, ...], classes: int) -> LeNet:
    """784-300-100-10 on MNIST: 266,200 weights."""
    return LeNet(input_shape, classes)
