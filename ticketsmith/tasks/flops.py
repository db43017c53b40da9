"""How much arithmetic a model does."""

from __future__ import annotations

import torch
from torch.utils import flop_counter

from ticketsmith.tasks.build import build_model, example
from ticketsmith.tasks.task import Task
from ticketsmith.uncompiled import untraced

untraced(flop_counter._FlopCounterMode, "__torch_dispatch__")


def forward_flops(task: Task) -> int:
    """Floating-point operations of one dense forward pass of one example (a multiply-add is two)."""
    model = build_model(task).eval()
    inputs = example(task, 1)
    with torch.no_grad(), flop_counter.FlopCounterMode(display=False) as counter:
        model(*inputs)
    return int(counter.get_total_flops())
