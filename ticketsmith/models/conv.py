"""Conv-2, Conv-4 and Conv-6: scaled-down VGGs for CIFAR-10 (Frankle & Carbin, ICLR 2019, figure 2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ticketsmith.models.initial import glorot_


class ConvNet(nn.Module):
    """Pairs of 3x3 convolutions with a 2x2 max-pool after each pair, then linear layers of 256, 256 and ``classes``."""

    def __init__(self, input_shape: tuple[int, ...], classes: int, pairs: tuple[int, ...]) -> None:
        super().__init__()
        channels, height, width = input_shape
        self.convolutions = nn.ModuleList()
        for wide in pairs:
            self.convolutions.append(nn.Conv2d(channels, wide, 3, padding=1))
            self.convolutions.append(nn.Conv2d(wide, wide, 3, padding=1))
            channels, height, width = wide, height // 2, width // 2
        self.fc1 = nn.Linear(channels * height * width, 256)
        self.fc2 = nn.Linear(256, 256)
        self.output = nn.Linear(256, classes)
        glorot_(self)

    def forward(self, inputs: Tensor) -> Tensor:
        features = inputs
        for index, convolution in enumerate(self.convolutions):
            features = torch.relu(convolution(features))
            if index % 2:
                features = F.max_pool2d(features, 2)
        features = torch.relu(self.fc1(features.flatten(1)))
        output: Tensor = self.output(torch.relu(self.fc2(features)))
        return output


def conv2(input_shape: tuple[int, ...], classes: int) -> ConvNet:
    """64, 64, pool; 4.3 million weights on CIFAR-10."""
    return ConvNet(input_shape, classes, (64,))


def conv4(input_shape: tuple[int, ...], classes: int) -> ConvNet:
    """Conv-2, then 128, 128, pool; 2.4 million weights on CIFAR-10."""
    return ConvNet(input_shape, classes, (64, 128))


def conv6(input_shape: tuple[int, ...], classes: int) -> ConvNet:
    """Conv-4, then 256, 256, pool; 2.3 million weights on CIFAR-10 (the paper's table says 1.7 million)."""
    return ConvNet(input_shape, classes, (64, 128, 256))
