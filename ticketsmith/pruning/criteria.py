"""Criteria: what a weight is worth. The lowest scores are removed first.

A criterion is a function ``(Scoring) -> {parameter name: tensor of scores}``. Name your own in the recipe as
``pruning.criterion: my_package.my_module:my_criterion``.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ticketsmith.errors import PruningError, TicketSmithError
from ticketsmith.plugins import build, resolve
from ticketsmith.pruning.arithmetic import check_patterns, matches
from ticketsmith.pruning.masks import Masks

if TYPE_CHECKING:
    from ticketsmith.tasks.task import Task

BUILTINS = {
    "magnitude": "ticketsmith.pruning.criteria:magnitude",
    "random": "ticketsmith.pruning.criteria:random",
    "wanda": "ticketsmith.pruning.wanda:wanda",
}

_OUTPUT_FIRST = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_INPUT_FIRST = (nn.ConvTranspose1d, nn.ConvTranspose2d)


@dataclass(frozen=True)
class Scoring:
    """What a criterion may look at: the prunable weights (pruned ones are zero), their masks, the whole model and task.

    ``generator`` is the replicate's own stream for masks, on the CPU. ``excluded``: parameters that this round leaves as they
    are; nobody looks at their scores.
    """

    weights: Mapping[str, Tensor]
    masks: Masks
    model: nn.Module
    task: Task
    generator: torch.Generator
    excluded: frozenset[str] = frozenset()


def magnitude(scoring: Scoring) -> dict[str, Tensor]:
    """|w| (Han et al. 2015; Frankle & Carbin 2019)."""
    return {name: weight.detach().abs() for name, weight in scoring.weights.items()}


def random(scoring: Scoring) -> dict[str, Tensor]:
    """Uniform chance: the control that any criterion must beat."""
    return {name: torch.rand(weight.shape, generator=scoring.generator) for name, weight in scoring.weights.items()}


def score(criterion: str | Mapping[str, Any], scoring: Scoring) -> dict[str, Tensor]:
    """Scores of every prunable weight by the named criterion, on the CPU.

    Raises PruningError when a criterion of the user's own fails, or gives scores that cannot be ranked.
    """
    name, options = _split(criterion)
    try:
        scores = build("criterion", name, BUILTINS, options, scoring=scoring)
    except TicketSmithError:
        raise
    except Exception as error:  # a user's function may fail in any way
        where = traceback.extract_tb(error.__traceback__)[-1]
        raise PruningError(
            f"criterion {name!r} failed: {type(error).__name__}: {error} (in {where.name}, {where.filename}:{where.lineno})"
        ) from error
    for parameter, mask in scoring.masks.items():
        given = scores.get(parameter) if isinstance(scores, Mapping) else None
        if not isinstance(given, Tensor) or given.shape != mask.shape:
            raise PruningError(f"criterion {name!r} must give a tensor of shape {tuple(mask.shape)} for {parameter!r}.")
        scores_of_survivors = given.detach().cpu()[mask.cpu()]
        if parameter not in scoring.excluded and not bool(torch.isfinite(scores_of_survivors).all()):
            raise PruningError(f"criterion {name!r} gave scores for {parameter!r} that are not finite numbers.")
    return {parameter: scores[parameter].detach().cpu() for parameter in scoring.masks}


def attempt(
    criterion: str | Mapping[str, Any], model: nn.Module, task: Task, include: tuple[str, ...], exclude: tuple[str, ...]
) -> None:
    """Scores the weights of a fresh model once, so that a mistake is told before anything is trained.

    A criterion with an option ``examples`` is given two of them at most. Raises RecipeError and PruningError.
    """
    name, options = _split(criterion)
    few = options.get("examples", 2)
    if "examples" in inspect.signature(resolve("criterion", name, BUILTINS)).parameters and isinstance(few, int):
        options["examples"] = min(few, 2)
    weights = prunable(model, include)
    masks = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}
    excluded = frozenset(name for name in weights if any(matches(name, pattern) for pattern in exclude))
    score({"name": name, **options}, Scoring(weights, masks, model, task, torch.Generator().manual_seed(0), excluded))


def _split(criterion: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    if isinstance(criterion, str):
        return criterion, {}
    return str(criterion["name"]), {key: value for key, value in criterion.items() if key != "name"}


def prunable(model: nn.Module, include: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """The weights that sparsity is counted over, in the model's own order.

    Those of linear and convolution layers that are trained; biases, normalisation and embeddings only where ``include``
    names them, and so the layers that the model itself names in ``dense_by_default`` (patterns). A weight that several
    layers share is counted once. Raises PruningError for a pattern that matches nothing, and for a model without any such
    layer.
    """
    parameters = dict(model.named_parameters())
    check_patterns(include, list(parameters), "include")
    kept: tuple[str, ...] = tuple(getattr(model, "dense_by_default", ()))
    by_default = {
        name
        for name in input_axes(model)
        if parameters[name].requires_grad and not any(matches(name, pattern) for pattern in kept)
    }
    chosen: dict[str, Tensor] = {
        name: parameter
        for name, parameter in parameters.items()
        if name in by_default or any(matches(name, pattern) for pattern in include)
    }
    if not chosen:
        raise PruningError("the model has no linear or convolution layer; name parameters under `pruning.include`.")
    return chosen


def input_axes(model: nn.Module) -> dict[str, int]:
    """The weights of linear and convolution layers by name, each with the axis along which its inputs lie."""
    parameters = dict(model.named_parameters())
    axes = {
        f"{name}.weight" if name else "weight": axis
        for name, module in model.named_modules()
        if (axis := input_axis(module)) is not None
    }
    return {name: axis for name, axis in axes.items() if name in parameters}


def input_axis(module: nn.Module) -> int | None:
    """The axis of ``module.weight`` along which its inputs lie; None for what is no linear or convolution layer."""
    if isinstance(module, _OUTPUT_FIRST):
        return 1
    return 0 if isinstance(module, _INPUT_FIRST) or _is_gpt2_linear(module) else None


def _is_gpt2_linear(module: nn.Module) -> bool:
    """Hugging Face's ``Conv1D``, a linear layer whose weight is ``[in, out]``; told without importing transformers."""
    return f"{type(module).__module__}.{type(module).__name__}" == "transformers.pytorch_utils.Conv1D"
