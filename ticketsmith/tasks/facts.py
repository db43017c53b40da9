"""What a plan needs to know of a task, found by building it once: that it works, and how large it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ticketsmith.errors import TaskError
from ticketsmith.plugins import failure, foreign
from ticketsmith.pruning.criteria import attempt
from ticketsmith.pruning.layout import of_layers, split
from ticketsmith.pruning.layout_version import layout_version
from ticketsmith.pruning.schedule import Layer
from ticketsmith.pruning.unpruned import UnprunedMatrix, unpruned_matrices
from ticketsmith.pruning.weights import layouts, prunable
from ticketsmith.spec import PruneRule
from ticketsmith.tasks.build import build_model
from ticketsmith.tasks.flops import forward_flops
from ticketsmith.tasks.task import Task, create, final_metrics, identity


@dataclass(frozen=True)
class TaskFacts:
    """``layers``: the prunable layers by name; ``unpruned``: the matrices that stay dense. ``layout``: that of rules for this
    model (see PruneRule). ``forward_flops``: of one example, dense. ``split_sizes``: examples by split, where the task tells.
    ``task``: the one that was built, so that whoever trains or measures next need not load its data again.
    """

    identity: Mapping[str, Any]
    train_size: int
    metrics: tuple[str, ...]
    layers: Mapping[str, Layer]
    unpruned: Sequence[UnprunedMatrix]
    layout: int
    parameters: int
    forward_flops: int
    split_sizes: Mapping[str, int]
    task: Task = field(repr=False, compare=False)


def examine(
    component: str | Mapping[str, Any],
    base: Path,
    rule: PruneRule | None = None,
    criteria: Sequence[str | Mapping[str, Any]] = (),
) -> TaskFacts:
    """Builds the task and tries one small training batch on its model, and then each of ``criteria`` on its weights.

    ``rule`` says which weights are pruned. Raises the errors of data and task, TaskError when the model does not fit,
    PruningError when nothing can be pruned or a criterion fails.
    """
    what = "task: the model does not fit the data, or a part of the task fails"
    with foreign(lambda error: TaskError(f"{what}: {failure(error)}")):
        return _examine(component, base, rule or PruneRule(fraction=0.5), criteria)


def _examine(
    component: str | Mapping[str, Any],
    base: Path,
    rule: PruneRule,
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
    weights = prunable(model, rule.include)
    for criterion in criteria:
        attempt(criterion, model, task, rule.include, rule.exclude)
    called = [one if isinstance(one, str) else str(one["name"]) for one in criteria]
    return TaskFacts(
        identity(component, base, task),
        task.train_size,
        measured,
        _layers(model, weights),
        unpruned_matrices(model, rule),
        layout_version(model, rule, called),
        sum(parameter.numel() for parameter in model.parameters()),
        forward_flops(task),
        dict(getattr(task, "split_sizes", {})),
        task,
    )


def _layers(model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Layer]:
    """What a schedule needs to know of the layers that ``weights`` consist of."""
    by_parameter = layouts(model)
    by_layer = of_layers(weights, by_parameter)
    layers = {}
    for name, weight in split(weights, by_parameter).items():
        layout = by_layer[name]
        least = 1 if layout.normed is None else weight.shape[layout.normed]
        layers[name] = Layer(weight.numel(), *layout.ends(weight.shape), least, layout.names, layout.groups)
    return layers
