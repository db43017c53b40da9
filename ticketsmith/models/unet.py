"""A small U-Net that is told the time and the class: the network of a generative model of images."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ticketsmith.errors import TaskError
from ticketsmith.models.initial import he_

_GROUP = 8
"""Channels of a group of the group norm; with few, the norm would wipe out what tells channels apart."""


class Block(nn.Module):
    """Two 3x3 convolutions around a shift by the condition; a 1x1 convolution on the shortcut where the channels change."""

    def __init__(self, channels: int, wide: int, condition: int) -> None:
        super().__init__()
        self.norm1 = _norm(channels)
        self.conv1 = nn.Conv2d(channels, wide, 3, padding=1)
        self.condition = nn.Linear(condition, wide)
        self.norm2 = _norm(wide)
        self.conv2 = nn.Conv2d(wide, wide, 3, padding=1)
        self.shortcut: nn.Module = nn.Identity() if channels == wide else nn.Conv2d(channels, wide, 1)

    def forward(self, inputs: Tensor, condition: Tensor) -> Tensor:
        features = self.norm2(self.conv1(F.silu(self.norm1(inputs)))) + self.condition(condition)[:, :, None, None]
        output: Tensor = self.conv2(F.silu(features)) + self.shortcut(inputs)
        return output


class UNet(nn.Module):
    """A noisy image, its time and class to the image, ``[b, c + 1 + classes, h, w]`` to ``[b, c, h, w]``.

    82,000 parameters on MNIST. Residual blocks at half and quarter size, with ``width`` and ``4 * width`` channels, joined by
    skips, after Ho et al. (2020), without attention. ``h`` and ``w`` must be multiples of 4, ``width`` of 8.
    """

    dense_by_default = ("condition1",)  # time and class come through few weights: none is spare

    def __init__(self, input_shape: tuple[int, ...], classes: int, width: int = 8) -> None:
        super().__init__()
        if len(input_shape) != 3 or input_shape[1] % 4 or input_shape[2] % 4:
            raise TaskError(
                "task.model 'unet' halves an image twice: it needs images [channels, height, width] whose sides are "
                f"multiples of 4, not inputs of shape {tuple(input_shape)}."
            )
        if width < _GROUP or width % _GROUP:
            raise TaskError(f"task.model 'unet': width must be a multiple of {_GROUP}, not {width}.")
        channels, wide, condition = input_shape[0], 4 * width, 4 * width
        self.condition1 = nn.Linear(1 + classes, condition)
        self.condition2 = nn.Linear(condition, condition)
        self.input = nn.Conv2d(channels, width, 3, stride=2, padding=1)
        self.down1 = Block(width, width, condition)
        self.halve = nn.Conv2d(width, wide, 3, stride=2, padding=1)
        # Convolutions do not know where they are, so that noise and class alone could not tell where a stroke belongs.
        self.place = nn.Parameter(0.5 * torch.randn(1, wide, input_shape[1] // 4, input_shape[2] // 4))
        self.down2 = Block(wide, wide, condition)
        self.middle = Block(wide, wide, condition)
        self.up2 = Block(2 * wide, wide, condition)
        self.up1 = Block(wide + width, width, condition)
        self.norm = _norm(width)
        self.output = nn.Conv2d(width + channels, channels, 3, padding=1)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):  # as PyTorch begins them, the condition would be too faint to be learned
                he_(layer)

    def forward(self, inputs: Tensor) -> Tensor:
        channels = (
            self.output.out_channels
        )  # after them: the time, then 1 for the class and 0 for the others, each a plane
        images, condition = inputs[:, :channels], inputs[:, channels:].mean((2, 3))
        condition = F.silu(self.condition2(F.silu(self.condition1(condition))))
        half = self.down1(self.input(images), condition)
        quarter = self.down2(self.halve(half) + self.place, condition)
        features = self.up2(torch.cat([self.middle(quarter, condition), quarter], 1), condition)
        features = self.up1(torch.cat([_twice(features), half], 1), condition)
        output: Tensor = self.output(torch.cat([_twice(F.silu(self.norm(features))), images], 1))
        return output


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(channels // _GROUP, channels)


def _twice(features: Tensor) -> Tensor:
    return F.interpolate(features, scale_factor=2.0, mode="nearest")
