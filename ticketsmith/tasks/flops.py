"""How much arithmetic a model does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils import flop_counter

from ticketsmith.models.size import bounded_by
from ticketsmith.tasks.build import build_model, example
from ticketsmith.tasks.task import Task
from ticketsmith.uncompiled import untraced

untraced(flop_counter._FlopCounterMode, "__torch_dispatch__")


def forward_flops(task: Task) -> int:
    """Floating-point operations of one dense forward pass of one example (a multiply-add is two)."""
    model, inputs = build_model(task).eval(), example(task, 1)
    bounded = bounded_by(*inputs, mend="Take a smaller task.context, or smaller inputs.")
    with torch.no_grad(), bounded, _plain_operators(), flop_counter.FlopCounterMode(display=False) as counter:
        model(*inputs)
    return int(counter.get_total_flops())


def step_flops(task: Task, batch_size: int) -> int:
    """Of one dense training step, forward and backward; no optimizer. Counted on two examples, which every layer takes."""
    model, generator = build_model(task), torch.Generator().manual_seed(0)
    batch = task.batch(torch.arange(2) % task.train_size, torch.device("cpu"), generator)
    with _plain_operators(), flop_counter.FlopCounterMode(display=False) as counter:
        task.loss(model, batch, generator).backward()  # type: ignore[no-untyped-call]
    return int(counter.get_total_flops()) * batch_size // 2


@contextmanager
def _plain_operators() -> Iterator[None]:
    """Recurrent and attention layers as the products that they consist of: the counter knows none that do all at once."""
    backends: Any = torch.backends  # its properties are not typed
    fast, fused = backends.mha.get_fastpath_enabled(), backends.mkldnn.enabled
    backends.mha.set_fastpath_enabled(False)
    backends.mkldnn.enabled = False
    try:
        yield
    finally:
        backends.mha.set_fastpath_enabled(fast)
        backends.mkldnn.enabled = fused
