"""Batches in equal parts: for gradient accumulation, one part after another, and for ranks, one part each."""

from __future__ import annotations

import torch

from ticketsmith.errors import TaskError
from ticketsmith.tasks.task import Batch


def parts(batch: Batch, count: int) -> list[Batch]:
    """``batch``, whose tensors have ``count * n`` examples along their first axis, in ``count`` parts of n, in order.

    The mean over the parts of a loss that is a mean over examples is the loss of the batch, and so are the gradients. Raises
    TaskError where the tensors of a batch are not examples, or are no multiple of ``count``.
    """
    if count == 1:
        return [batch]
    sizes = {len(tensor) if tensor.dim() else 0 for tensor in batch}
    size = max(sizes)
    if len(sizes) > 1 or size % count:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in batch)
        raise TaskError(
            f"training: `accumulate` and `ranks` cut a batch into {count} equal parts along the first axis of its tensors. The "
            f"task's batch has tensors of shape {shapes}: leave both out, or let its first axis be the examples."
        )
    return list(zip(*(torch.split(tensor, size // count) for tensor in batch), strict=True))
