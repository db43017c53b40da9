"""What a plan needs to know of a task, found by building it once: that it works, and how large it is."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ticketsmith.errors import TaskError, TicketSmithError
from ticketsmith.pruning.criteria import attempt, input_axes, prunable
from ticketsmith.tasks.build import build_model
from ticketsmith.tasks.flops import forward_flops
from ticketsmith.tasks.task import create, final_metrics, identity


@dataclass(frozen=True)
class TaskFacts:
    """``layers``: prunable weights by parameter name; ``ends``: outputs and inputs of those that have them.
    ``forward_flops``: of one example, dense.
    """

    identity: Mapping[str, Any]
    train_size: int
    metrics: tuple[str, ...]
    layers: Mapping[str, int]
    ends: Mapping[str, tuple[int, int]]
    parameters: int
    forward_flops: int


def examine(
    component: str | Mapping[str, Any],
    base: Path,
    include: tuple[str, ...] = (),
    exclude: tuple[str, ...] = (),
    criteria: Sequence[str | Mapping[str, Any]] = (),
) -> TaskFacts:
    """Builds the task and tries one small training batch on its model, and then each of ``criteria`` on its weights.

    Raises the errors of data and task, TaskError when the model does not fit, PruningError when nothing can be pruned or a
    criterion fails.
    """
    try:
        return _examine(component, base, include, exclude, criteria)
    except TicketSmithError:
        raise
    except Exception as error:  # a user's task or model may fail in any way
        raise TaskError(f"task: the model does not fit the data, or a part of the task fails: {told(error)}") from error


def told(error: Exception) -> str:
    """An error of a user's code in a line, with its place."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} (in {where.name}, {where.filename}:{where.lineno})"


def _examine(
    component: str | Mapping[str, Any],
    base: Path,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    criteria: Sequence[str | Mapping[str, Any]],
) -> TaskFacts:
    task = create(component, base)
    for promised in ("metrics", "train_size", "build_model", "batch", "loss", "evaluate", "example"):
        if not hasattr(task, promised):
            raise TaskError(f"task {type(task).__name__} has no {promised!r}: see ticketsmith.tasks.task.Task.")
    names = tuple(metric.name for metric in task.metrics)
    if "loss" not in names:
        raise TaskError(f"task {type(task).__name__} must measure 'loss' (it decides early stopping); it has {names}.")
    measured = (*names, *(metric.name for metric in final_metrics(task)))
    torch.manual_seed(0)
    model = build_model(task)
    generator = torch.Generator().manual_seed(0)
    batch = task.batch(torch.arange(2) % task.train_size, torch.device("cpu"), generator)
    task.loss(model, batch, generator).backward()  # type: ignore[no-untyped-call]
    pruned = prunable(model, include)
    layers = {name: parameter.numel() for name, parameter in pruned.items()}
    axes = {name: axis for name, axis in input_axes(model).items() if name in pruned}
    ends = {name: (pruned[name].shape[1 - axis], pruned[name].shape[axis]) for name, axis in axes.items()}
    for criterion in criteria:
        attempt(criterion, model, task, include, exclude)
    total = sum(parameter.numel() for parameter in model.parameters())
    return TaskFacts(
        identity(component, base, task), task.train_size, measured, layers, ends, total, forward_flops(task)
    )
