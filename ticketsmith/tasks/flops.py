"""How much arithmetic a model does."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from ticketsmith.models.size import check_one
from ticketsmith.tasks.task import Task


def forward_flops(task: Task) -> int:
    """Floating-point operations of one dense forward pass of one example (a multiply-add is two)."""
    model, example = task.build_model().eval(), task.example(1)
    check_one(model, example, "Take a smaller task.context, or smaller inputs.")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(example)
    return int(counter.get_total_flops())
