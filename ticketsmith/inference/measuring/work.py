"""The arithmetic and the memory traffic of one call that no runtime can avoid: what a roofline is drawn with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from ticketsmith.inference.measuring import weights

BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}
"""Bytes of one weight, by precision."""


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

    Counts products with weights; what a model does beside them is not counted, so this is a lower bound.
    """
    read, outputs = weights.of_module(model, call, inputs)
    written = outputs.numel() if isinstance(outputs, Tensor) else 0
    return Work(read.flops, read.kept + read.beside, inputs.numel() + written)
