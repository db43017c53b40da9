"""A network in training by the native kernels: its weights, what the optimizer remembers of them, and the steps.

A graph becomes a list of operations (:data:`ticketsmith.native.abi.TRAINING`), made once: one call of the library runs it for
many steps. Weights that a mask has pruned do not exist where their layer is sparse: values, moments and averages are those of
survivors.
"""

from __future__ import annotations

import ctypes
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ticketsmith.native import abi, best_isa, library
from ticketsmith.native.abi import Isa
from ticketsmith.training.native.assembly import Assembly
from ticketsmith.training.native.graph import Graph
from ticketsmith.training.native.packing import VECTOR
from ticketsmith.training.native.parameters import OptimizerSettings, Parameters

_EVALUATION = 64
"""At least so many examples are evaluated at once."""


@dataclass(frozen=True)
class Normalise:
    """What becomes of a number of an example: ``x * scale + shift``, one for all channels or one for each."""

    scale: NDArray[np.float32] | float
    shift: NDArray[np.float32] | float


@dataclass(frozen=True)
class Examples:
    """``inputs`` [N, ...], uint8 or float32; ``targets``: labels int64 [N], or float32 [N, outputs]."""

    inputs: NDArray[Any]
    targets: NDArray[Any]


class Engine:
    """Trains and evaluates ``graph`` from ``parameters`` (named as in a ``state_dict``, buffers too).

    ``masks`` are boolean, of weights that are pruned; ``sparse`` names those whose layers take the sparse kernels, the others
    stay dense with zeros in them. Bytes depend on none of: how steps are divided into calls, ``threads``, what runs beside.
    """

    def __init__(
        self,
        graph: Graph,
        parameters: Mapping[str, NDArray[Any]],
        masks: Mapping[str, NDArray[Any]],
        sparse: Collection[str],
        batch_size: int,
        optimizer: OptimizerSettings,
        normalise: Normalise | None = None,
        isa: Isa | None = None,
        threads: int = 1,
    ) -> None:
        self._graph, self._batch, self._optimizer, self._threads = graph, batch_size, optimizer, threads
        self._isa = best_isa() if isa is None else isa
        self._parameters = Parameters(graph, parameters, masks, sparse, optimizer)
        self._assembly = Assembly(graph, self._parameters, batch_size, _affine(graph, normalise))
        self._steps = 0
        self._seconds: NDArray[np.float64] | None = None

    @property
    def steps(self) -> int:
        """How many steps the optimizer has made."""
        return self._steps

    def train(
        self, data: Examples, indices: NDArray[np.int64], rates: NDArray[np.float64], dropout_seeds: NDArray[Any]
    ) -> NDArray[np.float64]:
        """``len(rates)`` steps on the examples ``indices`` [steps, batch]; the loss before each."""
        steps = len(rates)
        indices = np.ascontiguousarray(indices, np.int64).reshape(steps, self._batch)
        inputs, targets = self._inputs(data.inputs), self._targets(data.targets)
        if indices.size and (indices.min() < 0 or indices.max() >= min(len(inputs), len(targets))):
            raise IndexError(f"examples are numbered 0 to {min(len(inputs), len(targets)) - 1}")
        losses = np.zeros(steps, np.float64)
        rates = np.ascontiguousarray(rates, np.float64)
        seeds = np.ascontiguousarray(dropout_seeds).astype(np.int64).reshape(steps)
        settings = self._optimizer
        job = abi.Job(
            data=inputs.ctypes.data, targets=targets.ctypes.data, indices=indices.ctypes.data, rates=rates.ctypes.data,
            seeds=seeds.ctypes.data, losses=losses.ctypes.data, item=inputs.itemsize, samples=self._batch, steps=steps,
            before=self._steps, optimizer=settings.number, nesterov=settings.nesterov, momentum=settings.momentum,
            decay=settings.weight_decay, average=settings.ema or 0.0,
            seconds=None if self._seconds is None else self._seconds.ctypes.data,
        )  # fmt: skip
        self._run(self._assembly.step(), job)
        self._steps += steps
        return losses

    def step(self, inputs: NDArray[Any], targets: NDArray[Any], rate: float, dropout_seed: int) -> float:
        """One step on a batch; the loss before it."""
        one = np.arange(self._batch)[None]
        return float(self.train(Examples(inputs, targets), one, np.array([rate]), np.array([dropout_seed]))[0])

    def forward(self, inputs: NDArray[Any], averaged: bool = False) -> NDArray[np.float32]:
        """[n, outputs] of any number of inputs, in evaluation mode; ``averaged``: of the average of the weights."""
        inputs = self._inputs(inputs)
        operations, most = self._assembly.evaluation(averaged, max(self._batch, _EVALUATION))
        outputs = np.empty((len(inputs), int(np.prod(self._graph.nodes[-1].shape))), np.float32)
        indices = np.arange(len(inputs), dtype=np.int64)
        for first in range(0, len(inputs), most):
            count = min(most, len(inputs) - first)
            job = abi.Job(
                data=inputs.ctypes.data, indices=indices[first:].ctypes.data, outputs=outputs[first:].ctypes.data,
                item=inputs.itemsize, samples=count, steps=1,
            )  # fmt: skip
            self._run(operations, job)
        return outputs

    def parameters(self, averaged: bool = False) -> dict[str, NDArray[Any]]:
        """Dense copies, named and shaped as in a ``state_dict``, buffers too; ``averaged``: the average of the weights."""
        return self._parameters.dense(averaged, self._steps)

    def state(self) -> dict[str, NDArray[Any]]:
        """All that the next step depends on, exact: copies."""
        return {"steps": np.array(self._steps, np.int64), **self._parameters.state(self._steps)}

    def load(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Goes on from what ``state`` gave."""
        self._steps = int(state["steps"])
        self._parameters.load(state, self._steps)

    def measure(self) -> None:
        """From now on the time of operations is measured, which takes some itself."""
        self._seconds = np.zeros(len(self._assembly.step()), np.float64)

    def seconds(self) -> dict[str, float]:
        """On the processor, by part of a step, since ``measure``; ``weights`` holds the optimizer, too."""
        parts = dict.fromkeys(self._assembly.parts, 0.0)
        for part, seconds in zip(self._assembly.parts, () if self._seconds is None else self._seconds, strict=False):
            parts[part] += float(seconds)
        return parts

    def held(self) -> int:
        """Bytes of parameters, of what the optimizer remembers of them, of gradients, masks and tables; not of values."""
        return self._parameters.held() + self._assembly.held()

    def _run(self, operations: Any, job: abi.Job) -> None:
        library().ts_train(operations, len(operations), int(self._isa), ctypes.byref(job), self._threads)

    def _inputs(self, inputs: NDArray[Any]) -> NDArray[Any]:
        if inputs.dtype != np.uint8:
            inputs = np.asarray(inputs, np.float32)
        size = int(np.prod(self._graph.input_shape))
        if inputs[:1].size not in (0, size):
            raise ValueError(f"an example has {inputs[:1].size} numbers; the network takes {size}")
        return np.ascontiguousarray(inputs).reshape(len(inputs), size)

    def _targets(self, targets: NDArray[Any]) -> NDArray[Any]:
        outputs = int(np.prod(self._graph.nodes[-1].shape))
        if self._graph.loss == "squared_error":
            return np.ascontiguousarray(targets, np.float32).reshape(len(targets), outputs)
        labels = np.ascontiguousarray(targets, np.int64).reshape(-1)
        if labels.size and (labels.min() < 0 or labels.max() >= outputs):
            raise ValueError(f"labels are 0 to {outputs - 1}; there are {labels.min()} to {labels.max()}")
        return labels


def _affine(graph: Graph, normalise: Normalise | None) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """[numbers of an example, rounded up to vectors] of scales and of shifts."""
    channels, *image = graph.input_shape
    pixels = int(np.prod(image))
    parts = (1.0, 0.0) if normalise is None else (normalise.scale, normalise.shift)
    each = [np.repeat(np.broadcast_to(np.asarray(part, np.float32).reshape(-1), channels), pixels) for part in parts]
    scale, shift = (np.append(part, np.zeros(-len(part) % VECTOR, np.float32)) for part in each)
    return scale, shift
