"""A small convolutional network for MNIST: about 99 % dense, and an epoch takes seconds on one core."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ticketsmith.models.initial import he_


class MnistCnn(nn.Module):
    """Three strided convolutions and one linear layer; ``width`` is the first layer's channels. 29,200 weights on MNIST."""

    def __init__(self, input_shape: tuple[int, ...], classes: int, width: int = 16) -> None:
        super().__init__()
        channels, height, columns = input_shape
        self.conv1 = nn.Conv2d(channels, width, 5, stride=3, padding=1)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1)
        rows, columns = (_after_strides(size) for size in (height, columns))
        self.output = nn.Linear(4 * width * rows * columns, classes)
        he_(self)

    def forward(self, inputs: Tensor) -> Tensor:
        output: Tensor = self.output(self.features(inputs).flatten(1))
        return output

    def features(self, inputs: Tensor) -> Tensor:
        """What the convolutions make of inputs: ``[b, 4 * width, rows, columns]``."""
        for convolution in (self.conv1, self.conv2, self.conv3):
            inputs = torch.relu(convolution(inputs))
        return inputs


def _after_strides(size: int) -> int:
    """Rows (or columns) that are left after the three convolutions: 28 -> 9 -> 5 -> 3."""
    first = (size - 3) // 3 + 1
    return (first + 3) // 4
