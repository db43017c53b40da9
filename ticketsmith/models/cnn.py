"""A small convolutional network for MNIST: about 99 % dense, cheap enough for a laptop."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ticketsmith.models.initial import he_


class MnistCnn(nn.Module):
    """Two strided 5x5 / 3x3 convolutions and two linear layers; ``width`` is the first layer's channels."""

    def __init__(self, input_shape: tuple[int, ...], classes: int, width: int = 16, hidden: int = 64) -> None:
        super().__init__()
        channels, height, columns = input_shape
        self.conv1 = nn.Conv2d(channels, width, 5, stride=2, padding=2)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        rows, columns = -(-height // 4), -(-columns // 4)
        self.fc = nn.Linear(2 * width * rows * columns, hidden)
        self.output = nn.Linear(hidden, classes)
        he_(self)

    def forward(self, inputs: Tensor) -> Tensor:
        features = torch.relu(self.conv2(torch.relu(self.conv1(inputs))))
        output: Tensor = self.output(torch.relu(self.fc(features.flatten(1))))
        return output
