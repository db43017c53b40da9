"""Training examples from which static quantisation takes the ranges of activations."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray

from ticketsmith.engines import CannotRunError
from ticketsmith.streams import derive
from ticketsmith.tasks.build import single_example
from ticketsmith.tasks.task import Task

EXAMPLES, BATCH = 512, 32


def calibration(task: Task) -> list[NDArray[Any]]:
    """Batches of training inputs, drawn at random, always the same ones. Raises CannotRunError where they are none."""
    generator = torch.Generator().manual_seed(derive(0, "calibration"))
    size = min(EXAMPLES, task.train_size)
    indices = torch.randperm(task.train_size, generator=generator)[:size]
    wanted = single_example(task, 1)
    batches = []
    for part in torch.split(indices, BATCH):
        inputs = task.batch(part, torch.device("cpu"), generator)[0]
        if inputs.shape[1:] != wanted.shape[1:] or inputs.dtype != wanted.dtype:
            raise CannotRunError(
                "the task's training batches do not begin with what the model takes: nothing to calibrate with."
            )
        batches.append(inputs.detach().cpu().contiguous().numpy())
    return batches
