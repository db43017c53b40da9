"""A ticket trained again: from its start weights and its mask, by its spec. The same bytes come out, on the same machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ticketsmith.config.load import parse_recipe
from ticketsmith.errors import DivergedError, RecipeError
from ticketsmith.export.masked_bytes import TicketFileError
from ticketsmith.export.ticket import Ticket
from ticketsmith.models.state import load
from ticketsmith.plugins import is_dotted
from ticketsmith.pruning.masks import Masks, full
from ticketsmith.pruning.weights import pruned_by_default
from ticketsmith.spec import Continue, Init, Rewind, RunSpec, from_canonical
from ticketsmith.store.contract import SealedRun
from ticketsmith.tasks.build import build_model
from ticketsmith.tasks.task import Task
from ticketsmith.training.kernels import make_learner
from ticketsmith.training.learner import Learner
from ticketsmith.training.loop import Progress, measure, train
from ticketsmith.training.produce import prepared
from ticketsmith.training.start import starting_model
from ticketsmith.training.tensors import from_bytes, masks_from_bytes, to_bytes

Tell = Callable[[int, int], None]
"""``tell(step, steps)``: how far training is."""


@dataclass(frozen=True, eq=False)
class Retrained:
    """``same``: the weights are those of the ticket, bit for bit. ``max_difference``: of any weight. ``test``: metrics."""

    model: nn.Module
    same: bool
    max_difference: float
    test: dict[str, float]


def task_of(ticket: Ticket, base: Path | None = None) -> Task:
    """The task that a ticket was trained for, with data and code checked against its spec.

    ``base`` is the folder where relative paths and modules of the recipe's own are found. Naming it lets their code run:
    without it, a recipe that names code of its own is refused. Raises TicketSmithError, also when data or code are others.
    """
    recipe = parse_recipe(ticket.recipe, "the ticket's recipe", base or Path())
    own = _own_code(recipe.task_component)
    if base is None and own:
        raise RecipeError(
            f"the ticket names code that is no part of TicketSmith: {', '.join(own)}. If you trust it, name the folder where "
            "it lies by --base (in Python: `base=`)."
        )
    component = json.dumps(recipe.task_component, sort_keys=True)
    return prepared(component, base or Path(), json.dumps(ticket.spec.task, sort_keys=True))[0]


def _own_code(component: Any) -> list[str]:
    """Every dotted name in a component."""
    if isinstance(component, Mapping):
        return [name for value in component.values() for name in _own_code(value)]
    if isinstance(component, list | tuple):
        return [name for value in component for name in _own_code(value)]
    return [component] if isinstance(component, str) and is_dotted(component) else []


def retrain(ticket: Ticket, task: Task, tell: Tell = lambda step, steps: None) -> Retrained:
    """Trains the ticket's mask from its start weights once more, on the CPU.

    Call ``training.device.prepare`` before for deterministic kernels. Raises TicketFileError when the file does not say
    where training began, DivergedError when the loss ends up not finite.
    """
    model = start_model(ticket, task)
    masks = masks_from_bytes(ticket.files["mask.safetensors"], "the ticket's mask")
    learner = _trained(ticket.spec, task, model, masks, tell)
    weights = learner.state()
    sealed = ticket.tensors()
    difference = max(
        float((weights[name].double() - sealed[name].double()).abs().max())
        for name in sealed
        if sealed[name].is_floating_point()
    )
    same = hashlib.sha256(to_bytes(weights)).digest() == hashlib.sha256(ticket.files["model.safetensors"]).digest()
    test = measure(task, learner.result, "test", learner.device)
    trained = build_model(task)
    load(trained, weights)
    return Retrained(trained.eval(), same, difference, test)


def start_model(ticket: Ticket, task: Task) -> nn.Module:
    """The model with the weights that training began with: from the file, or made anew from the specs in it.

    In those from a file, weights that the mask removes are zero. Raises TicketFileError when neither can be had.
    """
    if ticket.start_file is not None:
        model = build_model(task)
        load(model, from_bytes(ticket.start_file, "the ticket's start weights")[0])
        return model
    spec = ticket.spec
    if isinstance(spec.weights, Init):
        return starting_model(spec, task, _no_parent)
    if isinstance(spec.weights, Continue):
        raise TicketFileError(
            "this run went on from another run's weights, and the file does not hold them: export it with --start-weights."
        )
    return _rewound(spec.weights, ticket, task)


def _rewound(weights: Rewind, ticket: Ticket, task: Task) -> nn.Module:
    point = next((from_canonical(dict(node["spec"])) for node in ticket.chain if node["key"] == weights.run), None)
    if point is None or not isinstance(point.weights, Init):
        raise TicketFileError("it does not hold the spec of the run that it was rewound to.")
    model = starting_model(point, task, _no_parent)
    learner = _trained(point, task, model, full(pruned_by_default(model)), lambda step, steps: None)
    rewound = build_model(task)
    load(rewound, learner.state(raw=True))
    return rewound


def _trained(spec: RunSpec, task: Task, model: nn.Module, masks: Masks, tell: Tell) -> Learner:
    stop = spec.end(task.train_size)
    progress = Progress(step=spec.begin, interval_start=spec.begin)

    def after_steps(progress: Progress, loss: float | Tensor) -> None:
        tell(progress.step, stop)

    learner = make_learner(task, model, masks, spec.training, torch.device("cpu"))
    train(learner, spec.training, spec.seed, progress, stop, after_steps)
    if progress.diverged:
        raise DivergedError(f"training diverged before step {progress.step}: this machine computes something else.")
    return learner


def _no_parent(key: str) -> SealedRun:
    raise TicketFileError(f"it needs the run {key[:8]}, which is not in it.")
