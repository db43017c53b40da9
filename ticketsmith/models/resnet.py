"""ResNet-20 for 32x32 images (He et al. 2016, section 4.2), as in Frankle et al. (ICML 2020)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ticketsmith.models.initial import he_


class Block(nn.Module):
    """Two 3x3 convolutions with batch norm; a 1x1 convolution on the shortcut where the shape changes."""

    def __init__(self, channels: int, wide: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, wide, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(wide)
        self.conv2 = nn.Conv2d(wide, wide, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(wide)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != wide:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, wide, 1, stride=stride, bias=False), nn.BatchNorm2d(wide))

    def forward(self, inputs: Tensor) -> Tensor:
        features = torch.relu(self.norm1(self.conv1(inputs)))
        return torch.relu(self.norm2(self.conv2(features)) + self.shortcut(inputs))


class ResNet20(nn.Module):
    """Three stages of three blocks, 16-32-64 channels (times ``width / 16``): 272,000 weights on CIFAR-10."""

    def __init__(self, input_shape: tuple[int, ...], classes: int, width: int = 16) -> None:
        super().__init__()
        self.conv = nn.Conv2d(input_shape[0], width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        blocks, channels = [], width
        for wide in (width, 2 * width, 4 * width):
            for index in range(3):
                blocks.append(Block(channels, wide, stride=2 if index == 0 and wide != width else 1))
                channels = wide
        self.blocks = nn.Sequential(*blocks)
        self.output = nn.Linear(channels, classes)
        he_(self)

    def forward(self, inputs: Tensor) -> Tensor:
        features = self.blocks(torch.relu(self.norm(self.conv(inputs))))
        output: Tensor = self.output(F.adaptive_avg_pool2d(features, 1).flatten(1))
        return output
