"""What a trained generative model makes, as files of its run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ticketsmith.errors import TaskError
from ticketsmith.evidence.sample_files import fault
from ticketsmith.tasks.task import Task
from ticketsmith.training.loop import judged


def sample_files(task: Task, model: nn.Module, device: torch.device) -> dict[str, bytes]:
    """The files that ``task.samples`` gives, none when the task does not generate. Raises TaskError.

    PyTorch's global generator is seeded alike for every run, so that levels differ by their weights alone. The model is
    left in the mode that it was in.
    """
    make: Any = getattr(task, "samples", None)
    if make is None:
        return {}
    torch.manual_seed(0)
    with judged(model):
        files = make(model, device)
    if not isinstance(files, Mapping):
        raise TaskError(f"task.samples must give a mapping of file names to bytes, not {type(files).__name__}.")
    for name, content in files.items():
        if what := fault(name, content):
            raise TaskError(f"task.samples: {name!r} {what}.")
    return dict(files)
