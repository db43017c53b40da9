"""How much arithmetic a model does."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from ticketsmith.tasks.task import Task


def forward_flops(task: Task) -> int:
    """Floating-point operations of one dense forward pass of one example (a multiply-add is two)."""
    model = task.build_model().eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(task.example(1))
    return int(counter.get_total_flops())
