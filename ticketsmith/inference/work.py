"""The arithmetic and the memory traffic of one call that no runtime can avoid: what a roofline is drawn with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}
"""Bytes of one weight, by precision."""

_PRODUCTS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Work:
    """``flops`` at least (a multiply-add is two), ``weights`` that are not zero, ``values``: inputs and outputs."""

    flops: float
    weights: int
    values: int

    def bytes(self, precision: str) -> float:
        """What must be read and written at least: weights that are not zero, inputs and outputs, once each."""
        return float(self.weights * BYTES[precision] + 4 * self.values)


def work(model: nn.Module, call: Callable[[Tensor], Tensor], inputs: Tensor) -> Work:
    """Of one ``call`` of ``model`` on ``inputs`` ``[batch, ...]``: weights that are not zero, wherever they are used.

    Counts linear layers and convolutions; what a model does beside them is not counted, so this is a lower bound.
    """
    flops = 0.0

    def count(module: nn.Module, given: object, made: Tensor) -> None:
        nonlocal flops
        weight = module.weight
        assert isinstance(weight, Tensor)
        flops += 2.0 * int(torch.count_nonzero(weight)) * (made.numel() / len(weight))

    products = [module for module in model.modules() if isinstance(module, _PRODUCTS)]
    handles = [module.register_forward_hook(count) for module in products]
    try:
        with torch.inference_mode():
            outputs = call(inputs.clone())
    finally:
        for handle in handles:
            handle.remove()
    weights = sum(int(torch.count_nonzero(parameter)) for parameter in {id(p): p for p in model.parameters()}.values())
    made = outputs.numel() if isinstance(outputs, Tensor) else 0
    return Work(flops, weights, inputs.numel() + made)
