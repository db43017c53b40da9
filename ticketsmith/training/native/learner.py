"""A ``Learner`` whose steps are whole calls of the kernel library: weights that are pruned take neither time nor memory."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ticketsmith.models.state import load, snapshot
from ticketsmith.native import best_isa
from ticketsmith.spec import Training
from ticketsmith.tasks.task import PlainExamples, Task, inherits_with
from ticketsmith.training.course import Course
from ticketsmith.training.native.engine import Engine, Examples, Normalise
from ticketsmith.training.native.graph import Dropout, Graph
from ticketsmith.training.native.parameters import OptimizerSettings
from ticketsmith.training.native.rule import sparse_weights
from ticketsmith.training.ranks import Ranks

CALL = 0.1
"""Seconds that a call should take: progress and Ctrl-C wait for it."""

_GROWTH = 8
"""How many times more steps a call may take than the one before."""

_PREFIX = "native/"


class NativeLearner:
    """A ``Learner`` of a network that the kernels follow as a whole, on the CPU.

    The values of pruned weights do not exist in it: ``state`` puts their zeros back. Its ``model`` keeps the modules and no
    values, except where the task measures by means of its own, which may ask for more than the model's outputs.
    """

    ranks: Ranks | None = None

    def __init__(
        self,
        task: Task,
        model: nn.Module,
        masks: Mapping[str, Tensor],
        training: Training,
        graph: Graph,
        examples: PlainExamples,
        threads: int = 1,
    ) -> None:
        self.task, self.model, self.device = task, model, torch.device("cpu")
        self.updates = 0  # the engine counts its own
        self._isa, self.threads = best_isa(), threads
        self.kernels = self._isa.name.lower()
        state = snapshot(model)
        self._shapes = {name: (value.shape, value.dtype) for name, value in state.items()}
        self._graph, self._batch = graph, training.batch_size
        self._masks = {name: mask.numpy() for name, mask in masks.items() if not bool(mask.all())}
        self._sparse = sparse_weights(graph, self._masks)
        self._examples = Examples(examples.inputs.numpy(), examples.targets.numpy())
        self._augmented, self._averaged = examples.augmented, training.ema > 0
        self._normalise = None if self._augmented else _normalise(examples)
        self._drops = any(isinstance(node, Dropout) for node in graph.nodes)
        self._engine = self._new(
            state,
            self._normalise,
            OptimizerSettings(
                training.optimizer, training.momentum, training.nesterov, training.weight_decay, training.ema or None
            ),
        )
        self._loaded: dict[str, Tensor] | None = None
        self._judges: dict[bool, Engine] = {}
        self._steps = 1
        self._plain = inherits_with(task, "plain_examples", "evaluate", "evaluate_final", "samples")
        self._outputs = Outputs(self)
        if self._plain:
            model._apply(lambda tensor: torch.empty_like(tensor, device="meta"))  # type: ignore[no-untyped-call]

    def _new(self, state: Mapping[str, Tensor], normalise: Normalise | None, optimizer: OptimizerSettings) -> Engine:
        weights = {name: value.numpy() for name, value in state.items()}
        return Engine(
            self._graph, weights, self._masks, self._sparse, self._batch, optimizer, normalise, self._isa, self.threads
        )

    @property
    def result(self) -> nn.Module:
        if self._plain:
            return self._outputs
        load(self.model, self.state())
        return self.model

    def advance(self, course: Course, begin: int, end: int) -> Sequence[float | Tensor]:
        """As many steps as fit ``CALL``, to judge by the last call."""
        self._forget()
        steps = min(self._steps, end - begin)
        began = time.perf_counter()
        losses = self._one_by_one(course, begin, steps) if self._augmented else self._at_once(course, begin, steps)
        seconds = time.perf_counter() - began
        self._steps = max(1, min(int(steps * CALL / max(seconds, 1e-9)), _GROWTH * steps))
        return losses

    def measure(self) -> None:
        """From now on ``parts`` are measured."""
        self._engine.measure()

    @property
    def parts(self) -> dict[str, float]:
        """Seconds of all steps by part, since they are measured."""
        return self._engine.seconds()

    def _at_once(self, course: Course, begin: int, steps: int) -> list[float]:
        every = range(begin, begin + steps)
        indices = course.order.indices(begin, steps).numpy().reshape(steps, self._batch)
        rates = np.array([course.rate(step) for step in every])
        seeds = np.array([course.dropout(step) if self._drops else 0 for step in every])
        losses: list[float] = self._engine.train(self._examples, indices, rates, seeds).tolist()
        return losses

    def _one_by_one(self, course: Course, begin: int, steps: int) -> list[float]:
        losses = []
        generator = torch.Generator()
        for step in range(begin, begin + steps):
            generator.manual_seed(course.augmentation(step))
            inputs, targets = self.task.batch(course.order.indices(step), self.device, generator)
            seed = course.dropout(step) if self._drops else 0
            losses.append(
                self._engine.step(inputs.numpy().reshape(len(inputs), -1), targets.numpy(), course.rate(step), seed)
            )
        return losses

    def outputs(self, inputs: np.ndarray, stored: bool) -> np.ndarray:
        """Of the result, in evaluation mode, ``[n, outputs]``. ``inputs``: as the task has ``stored`` them, or as the model takes
        them."""
        if self._loaded is None and stored == (self._normalise is not None):
            return self._engine.forward(inputs, self._averaged)
        if stored not in self._judges:
            normalise = self._normalise if stored else None
            self._judges[stored] = self._new(self.state(), normalise, OptimizerSettings("sgd"))
        return self._judges[stored].forward(inputs)

    def state(self, raw: bool = False) -> dict[str, Tensor]:
        if self._loaded is not None and not raw:
            return {name: value.clone() for name, value in self._loaded.items()}
        arrays = self._engine.parameters(self._averaged and not raw)
        return {
            name: torch.from_numpy(np.array(arrays[name])).to(dtype).reshape(shape)
            for name, (shape, dtype) in self._shapes.items()
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        self._judges.clear()
        self._loaded = dict(state)

    def unfinished(self) -> dict[str, Tensor]:
        return {_PREFIX + name: torch.from_numpy(np.array(value)) for name, value in self._engine.state().items()}

    def resume(self, tensors: Mapping[str, Tensor], updates: int) -> None:
        self._forget()
        self._engine.load(
            {name.removeprefix(_PREFIX): value.numpy() for name, value in tensors.items() if name.startswith(_PREFIX)}
        )

    def _forget(self) -> None:
        self._judges.clear()
        self._loaded = None


class Outputs(nn.Module):
    """The learner's result as a module that is called in evaluation mode. It keeps no tensors."""

    def __init__(self, learner: NativeLearner) -> None:
        super().__init__()
        self._learner = learner

    def forward(self, inputs: Tensor) -> Tensor:
        """Of inputs as the model takes them."""
        return torch.from_numpy(self._learner.outputs(inputs.numpy(), stored=False))

    def of_stored(self, inputs: Tensor) -> Tensor:
        """Of inputs as the task has stored them, which are normalised on the way."""
        return torch.from_numpy(self._learner.outputs(inputs.numpy(), stored=True))


def _normalise(examples: PlainExamples) -> Normalise:
    """One scale and shift for each channel, or for all where they are alike."""
    numbers = [np.array(one[:1] if len(set(one)) == 1 else one) for one in (examples.mean, examples.std)]
    mean, std = numbers
    whole = 255.0 if examples.inputs.dtype == torch.uint8 else 1.0
    return Normalise((1.0 / (whole * std)).astype(np.float32), (-mean / std).astype(np.float32))
