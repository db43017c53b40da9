"""A program in the making: what functions that lower nodes read, and what they add to it."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from ticketsmith.native import abi
from ticketsmith.runtime import layout
from ticketsmith.runtime.analysis import PART, Analysis
from ticketsmith.runtime.graph import GraphError, Node, Shape
from ticketsmith.runtime.layout import Layout
from ticketsmith.runtime.operands import Operand, Strided, Tensor, View, compact
from ticketsmith.runtime.resolutions import Resolutions
from ticketsmith.sparse.values import aligned

T = TypeVar("T")

_MOST_PICKED = 256
"""Inputs that ``SellDot`` picks from at once, and reads whole."""


class Instruction(NamedTuple):
    """One operation, before memory is assigned: the fields of a structure of the ABI, of which operands and arrays (or
    tuples of operands) have no address yet. ``uses``: the operands that must be in memory when it runs. ``batch``: it is done
    once for all samples. ``work`` counts multiply-adds."""

    kind: type[ctypes.Structure]
    fields: dict[str, Any]
    uses: tuple[Operand, ...]
    batch: bool
    work: int


class Steps(NamedTuple):
    """What a step of bytes is worth, and which stands for 0, of a value whose range is known; where kernels read both."""

    step: float
    inverse: float
    zero: float
    range_: Tensor

    @property
    def fields(self) -> dict[str, float]:
        return {"inverse": self.inverse, "zero": self.zero}


class Lowering:
    """The instructions so far, and where the values lie that they compute."""

    def __init__(self, analysis: Analysis, resolutions: Resolutions) -> None:
        self.analysis, self.resolutions = analysis, resolutions
        self.graph, self.shapes, self.lanes = analysis.graph, dict(analysis.shapes), analysis.lanes
        self.instructions: list[Instruction] = []
        self.arrays: list[NDArray[Any]] = []
        """What operands lie in: it must live as long as the program."""
        self.constants: dict[str, NDArray[np.float32]] = {}
        """Values that are known, in row-major order."""
        self.memory_floats = 0
        """What a session remembers between calls."""
        self.tensors: dict[str, Tensor] = {}
        self.phases: dict[Hashable, tuple[Tensor, list[tuple[int, int]]]] = {}
        """Inputs of convolutions with a stride, dealt into planes once for all that read them so."""
        self._lane_copies: dict[str, Tensor] = {}
        self._planes: dict[str, Tensor] = {}
        """Of constants."""
        self._packed: dict[Hashable, Any] = {}
        self.quantised: dict[str, Any] = {}
        """Values of 8 bits, once for all products that read them."""

    def emit(self, kind: type[ctypes.Structure], /, *, batch: bool = False, work: int = 0,
             uses: tuple[Operand, ...] | None = None, **fields: Any) -> None:  # fmt: skip
        """Adds an instruction. ``uses`` are the operands among ``fields``, where not said otherwise."""
        if uses is None:
            uses = tuple([value for value in fields.values() if isinstance(value, Operand)])
        self.instructions.append(Instruction(kind, fields, uses, batch, work))

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What ``make`` packs for ``key``, also where it is needed again."""
        if key not in self._packed:
            self._packed[key] = make()
        packed: T = self._packed[key]
        return packed

    def copy(self, source: Strided, target: Strided, extent: tuple[int, int, int], lanes: bool = False) -> None:
        """Planes, rows and columns from one layout to another; with ``lanes``, of all samples at once."""
        planes, rows, cols = extent
        self.emit(abi.Copy, in_=source, out=target, planes=planes, rows=rows, cols=cols, lanes=lanes, batch=lanes)

    def layout(self, shape: Shape) -> Layout:
        """Of one sample's value."""
        return self.resolutions.layout(shape)

    def new(self, node: Node) -> Tensor:
        """Memory for what ``node`` computes."""
        shape = self.shapes[node.output]
        if PART in node.output and node.output in self.tensors:  # of a value that lies somewhere already
            return self.tensors[node.output]
        if node.output in self.analysis.batched:
            tensor = Tensor.new(self.resolutions.lane_layout(shape), abi.Space.BATCH)
        else:
            tensor = Tensor.new(self.layout(shape), abi.Space.SAMPLE)
        self.tensors[node.output] = tensor
        return tensor

    def new_compact(self, node: Node) -> Tensor:
        """Memory for an image; without padding where all that read it want a vector."""
        shape, users = self.shapes[node.output], self.analysis.users(node.output)
        flattened = users and all(map(self.analysis.flattens, users)) and node.output not in self.graph.outputs
        if node.output in self.analysis.batched or len(shape) != 3 or not flattened:
            return self.new(node)
        tensor = self.tensors[node.output] = Tensor.new(layout.compact(*shape), abi.Space.SAMPLE)
        return tensor

    def new_view(self, node: Node) -> View:
        """Memory for what ``node`` computes, as an array."""
        return View.of(self.new(node), self.shapes[node.output])

    def read(self, name: str, node: Node) -> Tensor:
        """The value ``name`` where ``node`` can read it, laid out as planes."""
        tensor, own = self.read_tensor(name, node), self.layout(self.shapes[name])
        if tensor.space != abi.Space.CONSTANT or own.is_vector:
            return tensor
        if name not in self._planes:
            self._planes[name] = self.constant_planes(self.constants[name], own)
        return self._planes[name]

    def read_view(self, name: str, node: Node) -> View:
        """The value ``name`` as an array."""
        return View.of(self.read_tensor(name, node), self.shapes[name])

    def read_tensor(self, name: str, node: Node) -> Tensor:
        """The value ``name`` as it lies, or its copy to lanes where ``node`` computes in them."""
        tensor, shape = self.tensors[name], self.shapes[name]
        if node.output not in self.analysis.batched or tensor.batched:
            return tensor
        if name not in self._lane_copies:
            self._lane_copies[name] = Tensor.new(self.resolutions.lane_layout(shape), abi.Space.BATCH)
            self._copy_to_lanes(tensor, self._lane_copies[name], shape)
        return self._lane_copies[name]

    def read_residual(self, node: Node) -> Tensor | None:
        """What a product adds before its activation."""
        return None if node.residual is None else self.read(node.residual, node)

    def quantised_vector(self, name: str, source: Tensor) -> Tensor:
        """The vector ``name``, which lies in ``source``, for products of whole numbers."""
        if name not in self.quantised:
            floats = 2 * layout.LANES + layout.up(source.layout.planes, _MOST_PICKED) // 4
            self.quantised[name] = Tensor.new(layout.vector(floats), abi.Space.SAMPLE)
            self.emit(abi.QuantiseVector, in_=source, out=self.quantised[name], **self.known_fields(name))
        vector: Tensor = self.quantised[name]
        return vector

    def known_steps(self, name: str) -> Steps | None:
        """Those of the value ``name``, if its range is known."""
        if name not in self.graph.ranges:
            return None
        low, high = (np.float32(end) for end in self.graph.ranges[name])
        step = np.maximum((max(high, np.float32(0)) - min(low, np.float32(0))) / np.float32(255), np.float32(1e-30))
        inverse = np.float32(1) / step
        zero = np.clip(np.rint(-min(low, np.float32(0)) * inverse), 0, 255)
        memory = aligned(2 * layout.LANES, np.float32)
        memory[: layout.LANES], memory[layout.LANES :].view(np.int32)[:] = step, zero
        return Steps(float(step), float(inverse), float(zero), self._constant(memory, layout.vector(len(memory))))

    def known_fields(self, name: str) -> dict[str, Any]:
        """Of ``QuantiseVector``, for the value ``name``."""
        known = self.known_steps(name)
        return {"known": True, "step": known.step, **known.fields} if known else {}

    def constant(self, values: NDArray[Any]) -> View:
        """An array that is part of the program, as it is."""
        memory = aligned(values.size + layout.LANES, np.float32)
        memory[: values.size] = values.ravel()
        shape = values.shape or (1,)
        return View(self._constant(memory, layout.vector(values.size)), shape, compact(shape))

    def constant_planes(self, values: NDArray[Any], own: Layout) -> Tensor:
        """[features], [tokens, features] or [channels, rows, columns], laid out like a value."""
        if values.ndim < 3:  # without tokens the same for each column
            values = np.broadcast_to(values.T.reshape(own.planes, 1, -1), (own.planes, 1, own.cols))
        memory = aligned(own.origin + own.size, np.float32)
        strides = (4 * own.plane, 4 * own.row, 4)
        np.lib.stride_tricks.as_strided(memory[own.origin :], values.shape, strides)[:] = values
        return self._constant(memory, own)

    def _constant(self, memory: NDArray[Any], own: Layout) -> Tensor:
        """``memory``, which is laid out so. The space of constants begins at address zero."""
        self.arrays.append(memory)
        return Tensor.at(own, abi.Space.CONSTANT, memory.ctypes.data // 4)

    def remember(self, floats: int) -> Tensor:
        """Memory of a session. Raises GraphError when there would be too much of it."""
        tensor = Tensor.at(layout.vector(floats), abi.Space.MEMORY, self.memory_floats)
        self.memory_floats += layout.up(floats)
        if self.memory_floats > layout.MOST_FLOATS:
            raise GraphError(f"the session's memory would exceed {4 * layout.MOST_FLOATS:,} bytes: use less capacity.")
        return tensor

    def lane_extent(self, tensor: Tensor, shape: Shape) -> tuple[int, int, int]:
        """Planes, rows and columns of a value in lanes; all are columns of one row where nothing lies between."""
        own = tensor.layout
        if len(shape) == 1 or (own.row == own.cols and own.plane == own.rows * own.row):
            return 1, 1, math.prod(shape)
        return shape[0], shape[1], shape[2]

    def lane_side(self, tensor: Tensor, sample: int = 1) -> Strided:
        """A value in lanes as one side of a copy."""
        return Strided(tensor, tensor.layout.plane, tensor.layout.row, self.lanes, sample)

    def _copy_to_lanes(self, source: Tensor, target: Tensor, shape: Shape) -> None:
        """A vector or an image of each sample into its lane."""
        features = math.prod(shape)
        if source.space != abi.Space.INPUT:  # one behind the other first: element by element into lanes would be slow
            own, samples = source.layout, Tensor.new(layout.vector(features * self.lanes), abi.Space.BATCH)
            self.copy(
                Strided(source, own.plane, own.row), Strided(samples, own.rows * own.cols, own.cols, sample=features),
                (own.planes, own.rows, own.cols),
            )  # fmt: skip
            source = samples
        planes, rows, cols = self.lane_extent(target, shape)
        side = Strided(source, rows * cols, cols, sample=features)
        self.copy(side, self.lane_side(target), (planes, rows, cols), lanes=True)


def activation(node: Node) -> abi.Activation:
    """What the kernels call the activation that follows ``node``."""
    return abi.Activation[node.activation.upper()]
