"""PyTorch as it comes: the model itself, its pruned weights multiplied as zeros."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ticketsmith.inference.runtimes import Call


class Eager:
    """Eager PyTorch in inference mode: the reference of every comparison, and a dense rival, not the strongest one."""

    name = "torch"

    def prepare(self, model: nn.Module, example: Tensor) -> Call:
        """The model's own forward pass; runs any model."""

        @torch.inference_mode()
        def call(inputs: Tensor) -> Tensor:
            outputs: Tensor = model(inputs)
            return outputs

        return call
