"""A small convolutional network for MNIST: about 99 % dense, and an epoch takes seconds on one core."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ticketsmith.models.initial import he_


class MnistCnn(nn.Module):
    """Three strided convolutions and one linear layer; ``width`` is the first layer's channels. 33,680 weights on MNIST."""

    def __init__(self, input_shape: tuple[int, ...], classes: int, width: int = 16) -> None:
        super().__init__()
        channels, height, columns = input_shape
        self.conv1 = nn.Conv2d(channels, width, 5, stride=2, padding=2)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1)
        self.output = nn.Linear(4 * width * -(-height // 8) * -(-columns // 8), classes)
        he_(self)

    def forward(self, inputs: Tensor) -> Tensor:
        features = inputs
        for convolution in (self.conv1, self.conv2, self.conv3):
            features = torch.relu(convolution(features))
        output: Tensor = self.output(features.flatten(1))
        return output
