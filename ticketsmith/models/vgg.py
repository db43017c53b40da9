"""VGG-16 for 32x32 images with batch norm and one linear layer, as in Frankle et al. (ICML 2020)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ticketsmith.models.initial import he_

_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG16(nn.Module):
    """Thirteen 3x3 convolutions, max-pools between the five stages, then average pooling: 14.7 million weights."""

    def __init__(self, input_shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.convolutions, self.norms = nn.ModuleList(), nn.ModuleList()
        channels = input_shape[0]
        for wide in (wide for stage in _STAGES for wide in stage):
            self.convolutions.append(nn.Conv2d(channels, wide, 3, padding=1, bias=False))
            self.norms.append(nn.BatchNorm2d(wide))
            channels = wide
        self.output = nn.Linear(channels, classes)
        he_(self)

    def forward(self, inputs: Tensor) -> Tensor:
        features, layer = inputs, 0
        for index, stage in enumerate(_STAGES):
            if index:
                features = F.max_pool2d(features, 2)
            for _ in stage:
                features = torch.relu(self.norms[layer](self.convolutions[layer](features)))
                layer += 1
        output: Tensor = self.output(F.adaptive_avg_pool2d(features, 1).flatten(1))
        return output
