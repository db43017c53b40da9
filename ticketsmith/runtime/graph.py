"""Networks as a small graph: what is computed, and nothing about how.

Shapes are those of one sample, such as ``(features,)``, ``(tokens, features)`` or ``(channels, rows, columns)``; every
operation treats the samples of a batch alike and apart. Values are arrays in row-major order, whatever lies in memory. A
product may carry what follows it: a residual as its second input, and an activation. The operators stand in ``ops``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ticketsmith.runtime.node import ACTIVATIONS, MOST_AXES, MOST_ELEMENTS, GraphError, Node, Shape, Step
from ticketsmith.runtime.ops import BINARY, ELEMENTWISE, OPERATORS, PRODUCTS
from ticketsmith.runtime.shapes import Operands, attention_heads, attention_sequences, conv_geometry, pool_geometry

__all__ = [
    "ACTIVATIONS", "BINARY", "DTYPES", "ELEMENTWISE", "MOST_AXES", "MOST_ELEMENTS", "MOST_PORTS", "PRODUCTS", "Graph",
    "GraphError", "Node", "Port", "Shape", "Step", "attention_heads", "attention_sequences", "conv_geometry", "pool_geometry",
]  # fmt: skip

DTYPES = ("float32", "int64")

MOST_PORTS = 8
"""Inputs, and outputs, of a graph."""


@dataclass(frozen=True)
class Port:
    """An input: the shape of one sample (``()`` for a number), and float32, or int64 for tokens and masks."""

    name: str
    shape: Shape
    dtype: str = "float32"


@dataclass(frozen=True, eq=False)
class Graph:
    """Nodes in an order in which they can be computed. ``shape`` is that of one sample of the first input.

    ``dtype`` is float32, or int64 for tokens. Tensors are float32; those of low precision hold rounded values.
    """

    input: str
    shape: Shape
    dtype: str
    nodes: tuple[Node, ...]
    output: str
    tensors: Mapping[str, NDArray[np.float32]]
    more_inputs: tuple[Port, ...] = ()
    more_outputs: tuple[str, ...] = ()
    step: Step | None = None
    scalars: tuple[int, ...] = ()
    """Which outputs are one number a sample, with no axis of their own."""
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Between what values lie, by their names, where it is known: products in whole numbers then need not look."""

    @property
    def inputs(self) -> tuple[Port, ...]:
        """All inputs, in the order in which a model takes them."""
        return (Port(self.input, self.shape, self.dtype), *self.more_inputs)

    @property
    def outputs(self) -> tuple[str, ...]:
        """All outputs, in the order in which a model gives them."""
        return (self.output, *self.more_outputs)

    def output_shapes(self) -> tuple[Shape, ...]:
        """The shape of one sample of each output, ``()`` for a number. Raises GraphError as ``shapes`` does."""
        shapes = self.shapes()
        return tuple(() if place in self.scalars else shapes[name] for place, name in enumerate(self.outputs))

    def tensor(self, node: Node, name: str) -> NDArray[np.float32] | None:
        """A parameter of ``node``; None when it has none of that name."""
        key = node.weights.get(name)
        return None if key is None else self.tensors[key]

    def parameter(self, node: Node, name: str) -> NDArray[np.float32]:
        """A parameter that ``node`` must have. Raises GraphError."""
        tensor = self.tensor(node, name)
        if tensor is None:
            raise GraphError(f"{node}: it needs the parameter {name!r}.")
        return tensor

    @cached_property
    def users(self) -> Mapping[str, tuple[Node, ...]]:
        """The nodes that read each value, in their order; a value that nobody reads is not in it."""
        users: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                users.setdefault(name, []).append(node)
        return {name: tuple(nodes) for name, nodes in users.items()}

    def shapes(self) -> dict[str, Shape]:
        """The shape of every value, a dict of the caller's own. Raises GraphError for anything that cannot be computed as it
        is written."""
        return dict(self._shapes)

    @cached_property
    def _shapes(self) -> dict[str, Shape]:
        shapes: dict[str, Shape] = {}
        if len(self.inputs) > MOST_PORTS or len(self.outputs) > MOST_PORTS:
            raise GraphError(f"more than {MOST_PORTS} inputs or outputs.")
        for port in self.inputs:
            if port.dtype not in DTYPES:
                raise GraphError(f"inputs of dtype {port.dtype!r} are not known.")
            if port.name in shapes:
                raise GraphError(f"there are two inputs {port.name!r}.")
            shapes[port.name] = _check(port.shape or (1,), f"input {port.name!r}")
        tokens = {port.name for port in self.inputs if port.dtype == "int64"}
        for node in self.nodes:
            for name in node.inputs:
                if name not in shapes:
                    raise GraphError(f"{node}: its input {name!r} is not computed before it.")
                if (name in tokens) != (node.op in ("embedding", "cast")):
                    dtype = "int64" if name in tokens else "float32"
                    raise GraphError(f"{node}: an input of {dtype} does not suit it.")
            if node.output in shapes:
                raise GraphError(f"{node}: {node.output!r} is computed twice.")
            for key in node.weights.values():
                if key not in self.tensors:
                    raise GraphError(f"{node}: there is no tensor {key!r}.")
            shapes[node.output] = _check(self._infer(node, [shapes[name] for name in node.inputs]), node)
        computed = {node.output for node in self.nodes}
        for name in self.outputs:
            if name not in computed:
                raise GraphError(f"the output {name!r} is not computed.")
        for place in self.scalars:
            if not 0 <= place < len(self.outputs) or math.prod(shapes[self.outputs[place]]) != 1:
                raise GraphError(f"the output {place} is said to be a number and is none.")
        return shapes

    def _infer(self, node: Node, inputs: list[Shape]) -> Shape:
        operator = OPERATORS.get(node.op)
        if operator is None or (operator.step_only and self.step is None):
            raise GraphError(f"{node}: the operator {node.op!r} is not known.")
        for name in operator.parameters:
            self.parameter(node, name)
        weights = {name: self.tensors[key] for name, key in node.weights.items()}
        return operator.shape(Operands(node, inputs, weights, self.step))


def _check(shape: Shape, what: object) -> Shape:
    if not 1 <= len(shape) <= MOST_AXES or {type(size) for size in shape} != {int} or min(shape) < 1:
        raise GraphError(f"{what}: shape {shape} has not 1 to {MOST_AXES} sizes of 1 or more.")
    if math.prod(shape) > MOST_ELEMENTS:
        raise GraphError(f"{what}: shape {shape} is too large.")
    return shape
