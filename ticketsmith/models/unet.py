"""A small U-Net that is told the time: the network of a generative model of images."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ticketsmith.errors import TaskError

_GROUPS = 8


class Block(nn.Module):
    """Two 3x3 convolutions around a shift by the time; a 1x1 convolution on the shortcut where the channels change."""

    def __init__(self, channels: int, wide: int, time: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(_GROUPS, channels)
        self.conv1 = nn.Conv2d(channels, wide, 3, padding=1)
        self.time = nn.Linear(time, wide)
        self.norm2 = nn.GroupNorm(_GROUPS, wide)
        self.conv2 = nn.Conv2d(wide, wide, 3, padding=1)
        self.shortcut: nn.Module = nn.Identity() if channels == wide else nn.Conv2d(channels, wide, 1)

    def forward(self, inputs: Tensor, time: Tensor) -> Tensor:
        features = self.conv1(F.silu(self.norm1(inputs))) + self.time(time)[:, :, None, None]
        output: Tensor = self.conv2(F.silu(self.norm2(features))) + self.shortcut(inputs)
        return output


class UNet(nn.Module):
    """Image and time in, image out: ``[b, c + 1, h, w]`` to ``[b, c, h, w]``; the last input channel is filled with the time.

    The U-Net of Ho et al. (2020, DDPM) without attention, small: residual blocks at half and quarter size, with ``width``
    and ``2 * width`` channels, joined by skips. At full size there are only the first convolution, which halves the image,
    and the last one. ``h`` and ``w`` must be multiples of 4, ``width`` of 8. Raises TaskError when the sizes do not fit.
    """

    dense_by_default = ("time1",)  # each of its weights is the only one that its unit has

    def __init__(self, input_shape: tuple[int, ...], width: int = 16) -> None:
        super().__init__()
        if len(input_shape) != 3 or input_shape[1] % 4 or input_shape[2] % 4:
            raise TaskError(
                "task.model 'unet' halves an image twice: it needs images [channels, height, width] whose sides are "
                f"multiples of 4, not inputs of shape {tuple(input_shape)}."
            )
        if width < _GROUPS or width % _GROUPS:
            raise TaskError(f"task.model 'unet': width must be a multiple of {_GROUPS}, not {width}.")
        channels, wide, time = input_shape[0], 4 * width, 4 * width
        self.time1 = nn.Linear(1, time)
        self.time2 = nn.Linear(time, time)
        self.input = nn.Conv2d(channels, width, 3, stride=2, padding=1)
        self.down1 = Block(width, width, time)
        self.halve = nn.Conv2d(width, wide, 3, stride=2, padding=1)
        self.down2 = Block(wide, wide, time)
        self.middle = Block(wide, wide, time)
        self.up2 = Block(2 * wide, wide, time)
        self.up1 = Block(wide + width, width, time)
        self.norm = nn.GroupNorm(_GROUPS, width)
        self.output = nn.Conv2d(width + channels, channels, 3, padding=1)

    def forward(self, inputs: Tensor) -> Tensor:
        images, time = inputs[:, :-1], inputs[:, -1:].mean((2, 3))
        time = F.silu(self.time2(F.silu(self.time1(time))))
        half = self.down1(self.input(images), time)
        quarter = self.down2(self.halve(half), time)
        features = self.up2(torch.cat([self.middle(quarter, time), quarter], 1), time)
        features = self.up1(torch.cat([_twice(features), half], 1), time)
        output: Tensor = self.output(torch.cat([_twice(F.silu(self.norm(features))), images], 1))
        return output


def _twice(features: Tensor) -> Tensor:
    return F.interpolate(features, scale_factor=2.0, mode="nearest")
