"""Whether a batch of a task fits into memory."""

from __future__ import annotations

from ticketsmith.errors import TaskError
from ticketsmith.memory import require
from ticketsmith.tasks.build import example
from ticketsmith.tasks.task import Task


def check_batch(task: Task, batch_size: int) -> None:
    """Raises TaskError when ``batch_size`` inputs, and the numbers that choose them, do not fit."""
    one = 8 + sum(tensor.numel() * tensor.element_size() for tensor in example(task, 1))
    require(batch_size * one, f"training.batch_size: a batch of {batch_size:,}", "Choose a smaller one.", TaskError)
