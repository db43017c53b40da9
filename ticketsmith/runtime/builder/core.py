"""What front ends build graphs with: operations on values as PyTorch and ONNX see them, whose first axis is the batch.

A model is read with a batch of one, so that shapes are numbers. Constants are NumPy arrays. What the runtime cannot compute
raises ValueError; the front end names the operator and its place.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ticketsmith.errors import TicketSmithError
from ticketsmith.runtime.graph import MOST_AXES, MOST_PORTS, Graph, Node, Port, Shape

Array = NDArray[Any]

HIDDEN = -1e30
"""Stands for minus infinity: scores of what attention must not see."""


class UnsupportedError(TicketSmithError):
    """A model does what the sparse runtime cannot; the message names the operator. A dense runtime may serve it."""


@dataclass(frozen=True)
class Value:
    """A value: its shape with the batch, and the shape that its node ``name`` has in the graph. ``batch``: the axis that
    the batch is, or is the outer part of, as far as that is known. ``integer``: tokens of an input, not computed with.
    ``boolean``: of zeros and ones."""

    name: str
    shape: Shape
    inner: Shape
    batch: int | None = 0
    integer: bool = False
    boolean: bool = False


def strip(shape: Shape) -> Shape:
    """A shape without its first axis where that is 1."""
    return shape[1:] if len(shape) > 1 and shape[0] == 1 else shape or (1,)


class Builder:
    """Nodes one after another. Values and arrays go in, a value comes out."""

    def __init__(self) -> None:
        self.ports: list[Port] = []
        self.nodes: list[Node] = []
        self.tensors: dict[str, NDArray[np.float32]] = {}
        self.names: dict[int, str] = {}
        self._owner: dict[str, int] = {}
        self._alive: list[Array] = []  # so that no id is used twice
        self._forms: dict[tuple[str, Shape], str] = {}
        self._output = ""
        self._count = 0

    def graph(self, outputs: Sequence[Any]) -> Graph:
        """The graph whose outputs are these values."""
        if not outputs or len(outputs) > MOST_PORTS:
            count = f"{len(outputs)} outputs"
            raise UnsupportedError(f"the model has {count}; the sparse runtime serves 1 to {MOST_PORTS}.")
        names = []
        for index, value in enumerate(outputs):
            what = f"the model's output {index}"
            if not isinstance(value, Value):
                raise UnsupportedError(f"{what} is not computed from its inputs by known operators.")
            if not value.shape or value.shape[0] != 1 or value.batch not in (0, None):
                raise UnsupportedError(f"{what} has no batch as its first axis.")
            self.begin(f"output_{index}")
            inner = value.shape[1:] or (1,)
            name = self.at(value, inner)
            if any(name == port.name for port in self.ports):
                if value.integer:
                    raise UnsupportedError(f"{what} is its input.")
                name = self.emit("reshape", [name], inner, shape=list(inner))
            names.append(name)
        first = self.ports[0]
        return Graph(
            first.name, first.shape, first.dtype, tuple(self.nodes), names[0], self.tensors, tuple(self.ports[1:]),
            tuple(names[1:]), scalars=tuple(place for place, one in enumerate(outputs) if one.shape == (1,)),
        )  # fmt: skip

    def begin(self, output: str) -> None:
        """The name of what is computed next; of several nodes it is the last that has it."""
        self._output, self._count = output, 0

    def input(self, name: str, shape: Shape, dtype: str) -> Value:
        """An input; ``shape`` has the batch of one."""
        if len(self.ports) >= MOST_PORTS:
            raise UnsupportedError(f"the model has more than {MOST_PORTS} inputs.")
        if not shape or shape[0] != 1:
            raise UnsupportedError(f"input {name!r} of shape {shape} has no batch as its first axis.")
        self.ports.append(Port(name, shape[1:], dtype))
        return Value(name, shape, shape[1:] or (1,), 0, dtype == "int64")

    def emit(self, op: str, inputs: Sequence[str], inner: Shape, weights: dict[str, Any] | None = None,
             **attributes: Any) -> str:  # fmt: skip
        """One node more; its name."""
        name = self._output if not self._count else f"{self._output}.{self._count}"
        self._count += 1
        weights = {key: one for key, one in (weights or {}).items() if one is not None}
        parameters = {key: self._tensor(one, f"{name}.{key}") for key, one in weights.items()}
        self.nodes.append(Node(op, tuple(inputs), name, parameters, attributes))
        self._forms[name, inner] = name
        return name

    def keep_shape(self, op: str, x: Value, inner: Shape, weights: dict[str, Any] | None = None,
                   **attributes: Any) -> Value:  # fmt: skip
        """``x`` after an operator that keeps its shape, which reads it as an array of shape ``inner``."""
        name = self.emit(op, [self.at(x, inner)], inner, weights, **attributes)
        return replace(x, name=name, inner=inner, integer=False)

    def name_constant(self, array: Array, name: str) -> None:
        """Weights keep their names."""
        self.names[id(array)] = name
        self._alive.append(array)

    def keep_name(self, array: Array, weight: Array) -> Array:
        """``array``, which is ``weight`` in another order, with its name."""
        if id(weight) in self.names:
            self.name_constant(array, self.names[id(weight)])
        return array

    def _tensor(self, array: Array, fallback: str) -> str:
        if not isinstance(array, np.ndarray):
            raise ValueError("a weight is computed from the input")
        name = self.names.get(id(array), fallback)
        if self._owner.setdefault(name, id(array)) != id(array):  # the same weight in another order
            name = fallback
        if name not in self.tensors:
            self._alive.append(array)
            self.tensors[name] = np.ascontiguousarray(array, np.float32).copy()
        return name

    def at(self, value: Value | Array, inner: Shape) -> str:
        """The name of a value as an array of shape ``inner``."""
        if not isinstance(value, Value):
            key = np.broadcast_to(value.reshape(()), inner) if value.size == 1 else value.reshape(inner)
            return self.emit("constant", [], inner, {"value": key.astype(np.float32)})
        name = value.name
        if value.integer:
            name = self._once((f"{name} as float", value.inner), "cast", name, value.inner)
        if value.inner == inner:
            return name
        if len(inner) > MOST_AXES:
            raise ValueError(f"a value of {len(inner)} axes")
        return self._once((name, inner), "reshape", name, inner, shape=list(inner))

    def _once(self, key: tuple[str, Shape], op: str, name: str, inner: Shape, **attributes: Any) -> str:
        if key not in self._forms:
            output, count = self._output, self._count
            self.begin(f"{name}.{op}.{'x'.join(map(str, inner))}")
            result = self.emit(op, [name], inner, **attributes)
            self.begin(output)
            self._count = count
            self._forms[key] = result
        return self._forms[key]


def check_axes(x: Value, axes: Container[int]) -> None:
    """Raises ValueError for an operation over the batch."""
    if x.batch is not None and x.batch in axes:
        raise ValueError("an operation over the batch")


def common_batch(values: Sequence[Value], shape: Shape) -> int | None:
    """The axis of the batch of what is computed from ``values``, which are broadcast to ``shape``."""
    places = {one.batch + len(shape) - len(one.shape) for one in values if one.batch is not None}
    if any(one.batch is not None and one.shape[one.batch] != shape[one.batch - len(one.shape)] for one in values):
        raise ValueError("a value that is different for each sample of the batch")
    if len(places) > 1:
        raise ValueError("batches on different axes")
    return places.pop() if places else None
