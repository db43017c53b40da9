"""The network that is trained, the step that changes it, and the seam to the one that is sealed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Protocol

import torch
from torch import Tensor, nn

from ticketsmith import uncompiled
from ticketsmith.errors import TaskError
from ticketsmith.models.state import load, snapshot
from ticketsmith.pruning.weights import copied
from ticketsmith.spec import Training
from ticketsmith.tasks.task import Batch, Task
from ticketsmith.training.compilation import compiled, compiling
from ticketsmith.training.course import Course
from ticketsmith.training.optimization import make_optimizer
from ticketsmith.training.parts import parts
from ticketsmith.training.ranks import Exchange, Ranks
from ticketsmith.training.recomputation import blocks, recomputed
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
    threads: int
    """On which it computes, of those that it may have."""
    ranks: Ranks | None
    """The other processes of this run, where it has several."""

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
    threads = 1

    def __init__(
        self,
        task: Task,
        model: nn.Module,
        masks: Mapping[str, Tensor],
        training: Training,
        ranks: Ranks | None = None,
    ) -> None:
        self.task, self.model, self.ranks = task, model, ranks
        if training.ranks != (1 if ranks is None else ranks.size):
            raise TaskError(
                f"training.ranks is {training.ranks}: such a run is made by that many processes, which the local executor and "
                "pods start. Here is one: leave out `--executor debug`, or set `training.ranks: 1`, which is another run."
            )
        self.device = next(model.parameters()).device
        self.optimizer = make_optimizer(model, training)
        self._mixed = training.dtype == "bfloat16"
        self._accumulate, self._parts = training.accumulate, training.parts
        self._blocks = blocks(model) if training.activation_checkpointing else []
        self._called = compiled(model) if training.compile else model  # in training steps
        parameters = dict(model.named_parameters())
        pruned = {name: mask.to(self.device) for name, mask in masks.items() if not bool(mask.all())}
        self._masked = [(parameters[name], Selection(mask, parameters[name].dtype)) for name, mask in pruned.items()]
        self._exchange = None if ranks is None else Exchange(model, pruned, ranks)
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
        loss = self._backward(batch, generator)
        for parameter, survivors in self._masked:
            if parameter.grad is not None:
                survivors.apply_(parameter.grad)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        uncompiled.step(self.optimizer)
        self.optimizer.zero_grad()
        if self._exchange is not None:
            self._exchange.same_buffers()
        if self.average is not None:
            self.average.update(self.model)
        return loss

    def _backward(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Leaves the gradients of the batch in the parameters, part by part and over all ranks; its loss."""
        mine = batch if self.ranks is None else self.ranks.part(batch, generator)
        losses = []
        for part in parts(mine, self._accumulate):
            with compiling() if self._called is not self.model else nullcontext():
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self._mixed), recomputed(self._blocks):
                    loss = self.task.loss(self._called, part, generator)
                loss = loss if self._parts == 1 else loss / self._parts
                loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        loss = losses[0] if len(losses) == 1 else torch.stack(losses).sum()
        return loss if self._exchange is None else self._exchange.sum(loss)

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
