"""Parameters in training: their values, and what the optimizer and the moving average remember of each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ticketsmith.native import abi
from ticketsmith.training.native.graph import BatchNorm, Conv, Graph, Linear
from ticketsmith.training.native.packing import FEATURE, VECTOR, channels_a_part, distance, zeros
from ticketsmith.training.native.pattern import Ints, Survivors

Array = NDArray[Any]


@dataclass(frozen=True)
class OptimizerSettings:
    """As those of PyTorch's optimizers; Adam's betas and epsilon are its defaults. ``ema``: the decay of the moving average."""

    kind: Literal["sgd", "adam", "adamw"]
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    ema: float | None = None

    @property
    def number(self) -> int:
        """As the kernels know it."""
        return {"sgd": int(self.momentum != 0), "adam": 2, "adamw": 3}[self.kind]

    @property
    def parts(self) -> tuple[str, ...]:
        """What there is of each weight."""
        moments = ("values", "first", "second")[: 1 + min(2, self.number)]
        return (*moments, "average") if self.ema else moments


class Stored:
    """``size`` numbers and what is remembered of each."""

    def __init__(self, size: int, settings: OptimizerSettings) -> None:
        self.size = size
        self.arrays: dict[str, Array] = {part: zeros(size) for part in settings.parts}
        self.operands: Array | None = None
        """What products of a step read, where that is not the values themselves."""

    def address(self, part: str = "values", first: int = 0) -> int:
        return int(self.arrays[part].ctypes.data) + 4 * first

    def operand(self, first: int = 0) -> int:
        """The address of what products of a step read."""
        return self.address("values", first) if self.operands is None else int(self.operands.ctypes.data) + 4 * first

    def parameter(self, first: int = 0) -> abi.Parameter:
        return abi.Parameter(**{part: self.address(part, first) for part in self.arrays})


class SparseWeight(Stored):
    """A matrix of which only ``survivors`` exist."""

    def __init__(self, weight: Array, mask: NDArray[np.bool_], settings: OptimizerSettings) -> None:
        self.density = float(mask.mean())
        flat = mask.ndim == 2  # a convolution's gradient reads all channels at once
        part = channels_a_part(FEATURE, self.density) if flat else mask[0].size
        self.survivors = Survivors.of(mask.reshape(len(mask), -1), part)
        super().__init__(self.survivors.size, settings)
        self.shape = weight.shape
        self._tables: dict[Any, tuple[Ints, Ints]] = {}
        for part in {"values", "average"} & set(self.arrays):
            self.arrays[part][self.survivors.slots] = self.survivors.values(weight)

    def dense(self, part: str) -> Array:
        return self.survivors.matrix(self.arrays[part][self.survivors.slots]).reshape(self.shape)

    def extras(self) -> list[Array]:
        """What it holds beside the numbers."""
        survivors = self.survivors
        return [survivors.places, survivors.slots, survivors.columns, survivors.rows]

    def table(self, key: Any, build: Callable[[], tuple[Ints, Ints]]) -> tuple[Ints, Ints]:
        """Taps of sums with this weight, which training and evaluation share."""
        if key not in self._tables:
            self._tables[key] = build()
        return self._tables[key]


class DenseWeight(Stored):
    """A matrix whose rows lie ``distance`` apart; ``mask`` has a bit for each weight, where any is pruned."""

    def __init__(self, weight: Array, mask: NDArray[np.bool_] | None, settings: OptimizerSettings) -> None:
        matrix = weight.reshape(len(weight), -1)
        self.shape, self.taps = weight.shape, matrix.shape[1]
        self.distance, self.density = distance(self.taps), 1.0
        super().__init__(len(weight) * self.distance, settings)
        for part in {"values", "average"} & set(self.arrays):
            self._matrix(part)[:] = matrix if mask is None else np.where(mask.reshape(matrix.shape), matrix, 0)
        self.mask: Array | None = None
        if mask is not None:
            bits = np.zeros((len(weight), self.distance), np.bool_)
            bits[:, : self.taps] = mask.reshape(matrix.shape)
            self.mask = np.packbits(bits, axis=None, bitorder="little").view(np.uint16)

    def extras(self) -> list[Array]:
        """What it holds beside the numbers."""
        return [] if self.mask is None else [self.mask]

    def _matrix(self, part: str) -> Array:
        view: Array = self.arrays[part].reshape(-1, self.distance)[:, : self.taps]
        return view

    def dense(self, part: str) -> Array:
        return self._matrix(part).reshape(self.shape)


class Vector:
    """Part of the parameters of one number a channel, which lie together, each from a multiple of 16 on."""

    def __init__(self, all_of_them: Stored, first: int, size: int) -> None:
        self.stored, self.first, self.size = all_of_them, first, size

    def address(self, part: str) -> int:
        return self.stored.address(part, self.first)

    def dense(self, part: str) -> Array:
        return self.stored.arrays[part][self.first : self.first + self.size].copy()


class Parameters:
    """All of a network, by name."""

    def __init__(
        self,
        graph: Graph,
        values: Mapping[str, Array],
        masks: Mapping[str, Array],
        sparse: Collection[str],
        settings: OptimizerSettings,
    ) -> None:
        self.settings = settings
        self.weights: dict[str, SparseWeight | DenseWeight] = {}
        for node in graph.nodes:
            if isinstance(node, Linear | Conv):
                weight = np.asarray(values[node.weight], np.float32)
                mask = np.asarray(masks[node.weight], np.bool_) if node.weight in masks else None
                if node.weight in sparse:
                    self.weights[node.weight] = SparseWeight(
                        weight, np.ones(weight.shape, np.bool_) if mask is None else mask, settings
                    )
                else:
                    self.weights[node.weight] = DenseWeight(
                        weight, None if mask is None or mask.all() else mask, settings
                    )
        for stored in self.weights.values() if graph.bfloat16 else ():
            stored.operands = zeros(stored.size)
        names = list(dict.fromkeys(_vectors(graph)))
        sizes = [-(-values[name].size // VECTOR) * VECTOR for name in names]
        self.small = Stored(max(VECTOR, sum(sizes)), settings)
        self.gradient = zeros(max(VECTOR, sum(sizes)))
        self.vectors = {
            name: Vector(self.small, sum(sizes[:index]), values[name].size) for index, name in enumerate(names)
        }
        for name, vector in self.vectors.items():
            for part in {"values", "average"} & set(self.small.arrays):
                self.small.arrays[part][vector.first : vector.first + vector.size] = values[name]
        self.buffers: dict[str, Array] = {}
        self.moments: dict[str, tuple[Array, Array]] = {}
        """Of each batch norm: means and 1 / deviations of the channels of the last batch."""
        self.counts: dict[str, int] = {}
        for node in graph.nodes:
            if isinstance(node, BatchNorm):
                for name in (node.running_mean, node.running_var):
                    self.buffers[name] = zeros(-(-values[name].size // VECTOR) * VECTOR)
                    self.buffers[name][: values[name].size] = values[name]
                self.moments[node.name] = zeros(len(values[node.running_mean])), zeros(len(values[node.running_mean]))
                self.counts[node.num_batches_tracked] = int(values[node.num_batches_tracked])
        self._scratch = zeros(0)
        self._shapes = {name: np.shape(value) for name, value in values.items()}

    def room(self, count: int) -> Array:
        """So many floats for the gradient of one layer, while an operation runs."""
        if self._scratch.size < count:
            self._scratch = zeros(count)
        return self._scratch

    def dense(self, averaged: bool, steps: int) -> dict[str, Array]:
        part = "average" if averaged and "average" in self.settings.parts else "values"
        found: dict[str, Array] = {name: weight.dense(part) for name, weight in self.weights.items()}
        found |= {name: vector.dense(part) for name, vector in self.vectors.items()}
        found |= {name: buffer[: self._shapes[name][0]].copy() for name, buffer in self.buffers.items()}
        found |= {name: np.array(count + steps, np.int64) for name, count in self.counts.items()}
        return {name: found[name] for name in self._shapes if name in found}

    def state(self, steps: int) -> dict[str, Array]:
        counts = {f"counts/{name}": np.array(count + steps, np.int64) for name, count in self.counts.items()}
        return {name: array.copy() for name, array in self._arrays()} | counts

    def load(self, state: Mapping[str, Array], steps: int) -> None:
        for name, array in self._arrays():
            array[:] = state[name]
        self.counts = {name: int(state[f"counts/{name}"]) - steps for name in self.counts}

    def held(self) -> int:
        """Bytes of all of them."""
        own = [self.gradient, self._scratch, *(array for _, array in self._arrays())]
        for weight in self.weights.values():
            own += weight.extras() if weight.operands is None else [*weight.extras(), weight.operands]
        return sum(array.nbytes for array in own)

    def _arrays(self) -> Iterator[tuple[str, Array]]:
        for name, weight in self.weights.items():
            for part, array in weight.arrays.items():
                yield f"{part}/{name}", array
        for part, array in self.small.arrays.items():
            yield f"{part}", array
        for name, buffer in self.buffers.items():
            yield f"buffers/{name}", buffer


def _vectors(graph: Graph) -> Iterator[str]:
    for node in graph.nodes:
        if isinstance(node, Linear | Conv) and node.bias:
            yield node.bias
        if isinstance(node, BatchNorm):
            yield from (node.weight, node.bias)
