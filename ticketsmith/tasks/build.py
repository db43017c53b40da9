"""A task's model, ready to be counted and trained; and what is put into it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ticketsmith.errors import TaskError
from ticketsmith.memory import require
from ticketsmith.tasks.task import Task


def build_model(task: Task, anew: bool = False) -> nn.Module:
    """A fresh model of ``task``, on the CPU, in training mode; ``anew``: without pretrained weights.

    Lazy layers get their sizes, and so their weights, from one example. Raises TaskError for those that it does not reach.
    """
    model: nn.Module = getattr(task, "random_model", task.build_model)() if anew else task.build_model()
    if _lazy(model):
        training = model.training
        with torch.no_grad():
            model.eval()(*example(task, 1))
        model.train(training)
        if left := _lazy(model):
            raise TaskError(
                f"task.model: {left[0]!r} has no size yet after one example: give the layer its sizes (nn.Linear instead of "
                "nn.LazyLinear, say)."
            )
    return model


def example(task: Task, batch_size: int) -> tuple[Tensor, ...]:
    """What the model is called with: the task's ``example``, one tensor or several. Raises TaskError for anything else."""
    whole = task.example(batch_size)
    inputs = whole if isinstance(whole, tuple) else (whole,)
    for tensor in inputs:
        if not isinstance(tensor, Tensor):
            raise TaskError(f"task.example must give a tensor, or a tuple of them, not {type(tensor).__name__}.")
        if tensor.dim() == 0 or len(tensor) != batch_size:
            raise TaskError(
                f"task.example({batch_size}) gives a tensor of shape {tuple(tensor.shape)}: the first axis is the batch."
            )
    return inputs


def single_example(task: Task, batch_size: int) -> Tensor:
    """The one tensor that the model is called with. Raises TaskError when there are several."""
    inputs = example(task, batch_size)
    if len(inputs) > 1:
        raise TaskError(
            f"the model takes {len(inputs)} inputs: it is trained, judged and kept as a ticket, but speed is measured, and other "
            "formats are written, for models of one. Let a module join them: one tensor in, cut inside of `forward`."
        )
    return inputs[0]


def _lazy(model: nn.Module) -> list[str]:
    tensors = (*model.named_parameters(), *model.named_buffers())
    return [name for name, tensor in tensors if is_lazy(tensor)]


def check_batch(task: Task, batch_size: int) -> None:
    """Raises TaskError when ``batch_size`` inputs, and the numbers that choose them, do not fit."""
    one = 8 + sum(tensor.numel() * tensor.element_size() for tensor in example(task, 1))
    require(batch_size * one, f"training.batch_size: a batch of {batch_size:,}", "Choose a smaller one.", TaskError)
