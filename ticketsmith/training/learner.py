"""The network that is trained, the step that changes it, and the seam to the one that is sealed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from ticketsmith import uncompiled
from ticketsmith.models.state import load, snapshot
from ticketsmith.pruning.weights import copied
from ticketsmith.spec import Training
from ticketsmith.tasks.task import Batch, Task
from ticketsmith.training.course import Course
from ticketsmith.training.optimization import make_optimizer
from ticketsmith.training.selection import Selection


class Learner(Protocol):
    """A model and what changes it, step by step. A masked weight is zero before, during and after every step.

    ``model`` says how the network is built; ``result`` is the one that a run gives, that is measured and sealed: the moving
    average of the weights where the spec asks for one, or else the weights themselves. Tensors leave and enter by ``state``
    and ``load`` alone, and by ``unfinished`` and ``resume``.
    """

    task: Task
    model: nn.Module
    device: torch.device
    kernels: str
    """``torch``, or the instruction set of the native ones."""

    @property
    def result(self) -> nn.Module:
        """To be called, and in evaluation mode alone; not to be changed."""
        ...

    @property
    def updates(self) -> int:
        """Of the moving average."""
        ...

    def advance(self, course: Course, begin: int, end: int) -> Sequence[float | Tensor]:
        """Trains from step ``begin`` on, at least one step and at most up to ``end``; the loss before each, in float64.

        It comes back within a second wherever a step takes less. How the steps are cut into calls changes no bytes.
        """
        ...

    def state(self, raw: bool = False) -> dict[str, Tensor]:
        """What is sealed: a copy of the result's weights and buffers on the CPU, dense; ``raw``: without the average, which a
        rewind point has. Raises TaskError for a part of a user's own that is neither a tensor nor plain JSON."""
        ...

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Puts what ``state`` gave into the result."""
        ...

    def unfinished(self) -> dict[str, Tensor]:
        """All tensors that the next steps depend on, by name, on the CPU."""
        ...

    def resume(self, tensors: Mapping[str, Tensor], updates: int) -> None:
        """Goes on from what ``unfinished`` gave; ``updates`` are those of the moving average."""
        ...


class MovingAverage:
    """An exponential moving average of weights: ``model`` is a copy that follows the one in training, by ``update`` after each
    of its steps.

    The decay grows with the number of updates n to its full value, ``min(decay, (1 + n) / (10 + n))``, so that the weights
    where training began are soon forgotten. Buffers (batch norm's, say) are the model's own. A weight that is always zero has
    an average of exactly zero, so masks hold.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copied(model)
        self.updates = 0
        self._decay = decay

    def update(self, model: nn.Module) -> None:
        decay = min(self._decay, (1 + self.updates) / (10 + self.updates))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), 1.0 - decay)
            for mine, theirs in zip(self.model.buffers(), model.buffers(), strict=True):
                mine.copy_(theirs)
        self.updates += 1


class TorchLearner:
    """A ``Learner`` by PyTorch, on any device.

    Gradients of masked weights are zeroed before the optimizer sees them, whatever they are, so its state (momentum, second
    moments) is zero there too, and weight decay decays zero.
    """

    kernels = "torch"

    def __init__(self, task: Task, model: nn.Module, masks: Mapping[str, Tensor], training: Training) -> None:
        self.task, self.model = task, model
        self.device = next(model.parameters()).device
        self.optimizer = make_optimizer(model, training)
        self._mixed = training.dtype == "bfloat16"
        parameters = dict(model.named_parameters())
        pruned = {name: mask.to(self.device) for name, mask in masks.items() if not bool(mask.all())}
        self._masked = [(parameters[name], Selection(mask, parameters[name].dtype)) for name, mask in pruned.items()]
        with torch.no_grad():
            for parameter, survivors in self._masked:
                survivors.apply_(parameter)
        self.average = MovingAverage(model, training.ema) if training.ema else None

    @property
    def result(self) -> nn.Module:
        return self.model if self.average is None else self.average.model

    @property
    def updates(self) -> int:
        return self.average.updates if self.average else 0

    def advance(self, course: Course, begin: int, end: int) -> Sequence[float | Tensor]:
        """One step."""
        generator = torch.Generator().manual_seed(course.augmentation(begin))
        _seed_layers(course.dropout(begin), self.device)
        batch = self.task.batch(course.order.indices(begin), self.device, generator)
        return [self.step(batch, course.rate(begin), generator).double()]

    def step(self, batch: Batch, lr: float, generator: torch.Generator) -> Tensor:
        """One iteration on ``batch``; returns the loss before it."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._mixed):
            loss = self.task.loss(self.model, batch, generator)
        loss.backward()  # type: ignore[no-untyped-call]
        for parameter, survivors in self._masked:
            if parameter.grad is not None:
                survivors.apply_(parameter.grad)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        uncompiled.step(self.optimizer)
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update(self.model)
        return loss.detach()

    def state(self, raw: bool = False) -> dict[str, Tensor]:
        return snapshot(self.model if raw else self.result)

    def load(self, state: Mapping[str, Tensor]) -> None:
        load(self.result, state)

    def unfinished(self) -> dict[str, Tensor]:
        tensors = {f"model/{name}": value for name, value in self.state(raw=True).items()}
        if self.average is not None:
            tensors |= {f"average/{name}": value for name, value in self.state().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {
                f"optimizer/{index}/{name}": value.detach().cpu() for name, value in state.items() if value is not None
            }
        return tensors

    def resume(self, tensors: Mapping[str, Tensor], updates: int) -> None:
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}}
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            part, _, rest = name.partition("/")
            if part == "optimizer":
                index, _, rest = rest.partition("/")
                moments.setdefault(int(index), {})[rest] = value
            elif part in parts:
                parts[part][rest] = value
        load(self.model, parts["model"])
        if self.average is not None:
            self.load(parts["average"])
            self.average.updates = updates
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})


def _seed_layers(seed: int, device: torch.device) -> None:
    """Seeds what dropout and the like draw from. (``torch.manual_seed`` does the same, 60 times slower.)"""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
