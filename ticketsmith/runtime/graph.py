"""Networks as a small graph: what is computed, and nothing about how.

Shapes are those of one sample: ``(features,)``, ``(tokens, features)`` or ``(channels, rows, columns)``; every operation
treats the samples of a batch alike and apart. A product may carry what follows it: a residual as its second input, and an
activation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ticketsmith.errors import TicketSmithError

Shape = tuple[int, ...]

ACTIVATIONS = ("linear", "relu", "gelu", "gelu_tanh", "silu", "sigmoid", "tanh", "relu6")
BINARY = ("add", "sub", "mul")

MOST_ELEMENTS = 2**27
"""Of one value: half a GiB. No network that is meant to be served comes near; a malicious file may."""


class GraphError(TicketSmithError):
    """A graph makes no sense: a shape, an attribute or a name is wrong; the message says where."""


@dataclass(frozen=True)
class Node:
    """One operation. ``weights`` maps its parameters to names of tensors; ``inputs`` and ``output`` name values."""

    op: str
    inputs: tuple[str, ...]
    output: str
    weights: Mapping[str, str] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def numbers(self, name: str, count: int, low: int = 0) -> tuple[int, ...]:
        """The attribute ``name`` as ``count`` whole numbers of at least ``low``."""
        value = self.attributes.get(name)
        listed = [value] * count if type(value) is int else value
        if not isinstance(listed, (list, tuple)) or len(listed) != count:
            raise GraphError(f"{self}: {name} needs {count} whole numbers, not {value!r}.")
        for number in listed:
            if type(number) is not int or not low <= number <= 2**20:
                raise GraphError(f"{self}: {name} has {number!r}: not a whole number between {low} and {2**20}.")
        return tuple(listed)

    def number(self, name: str, low: int = 0) -> int:
        """The attribute ``name`` as a whole number of at least ``low``."""
        return self.numbers(name, 1, low)[0]

    def real(self, name: str) -> float:
        """The attribute ``name`` as a finite number."""
        value = self.attributes.get(name)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
            raise GraphError(f"{self}: {name} is {value!r}, not a finite number.")
        return float(value)

    @property
    def activation(self) -> str:
        """One of ``ACTIVATIONS``."""
        value = self.attributes.get("activation", "linear")
        if value not in ACTIVATIONS:
            raise GraphError(f"{self}: unknown activation {value!r}.")
        return str(value)

    @property
    def residual(self) -> str | None:
        """The value that a product adds before its activation."""
        return self.inputs[1] if self.op in PRODUCTS and len(self.inputs) > 1 else None

    def __str__(self) -> str:
        return f"{self.op} {self.output!r}"


PRODUCTS = ("linear", "conv2d")


@dataclass(frozen=True, eq=False)
class Graph:
    """Nodes in an order in which they can be computed. ``shape`` is that of one input sample.

    ``dtype`` is float32, or int64 for tokens. Tensors are float32; those of low precision hold rounded values.
    """

    input: str
    shape: Shape
    dtype: str
    nodes: tuple[Node, ...]
    output: str
    tensors: Mapping[str, NDArray[np.float32]]

    def tensor(self, node: Node, name: str) -> NDArray[np.float32] | None:
        """A parameter of ``node``; None when it has none of that name."""
        key = node.weights.get(name)
        return None if key is None else self.tensors[key]

    def parameter(self, node: Node, name: str) -> NDArray[np.float32]:
        """A parameter that ``node`` must have. Raises GraphError."""
        found = self.tensor(node, name)
        if found is None:
            raise GraphError(f"{node}: it needs the parameter {name!r}.")
        return found

    def shapes(self) -> dict[str, Shape]:
        """The shape of every value. Raises GraphError for anything that cannot be computed as it is written."""
        if self.dtype not in ("float32", "int64"):
            raise GraphError(f"inputs of dtype {self.dtype!r} are not known.")
        known = {self.input: _checked(self.shape, f"input {self.input!r}")}
        for node in self.nodes:
            for name in node.inputs:
                if name not in known:
                    raise GraphError(f"{node}: its input {name!r} is not computed before it.")
            if node.output in known:
                raise GraphError(f"{node}: {node.output!r} is computed twice.")
            if (self.dtype == "int64") != (node.op == "embedding") and self.input in node.inputs:
                raise GraphError(f"{node}: inputs of dtype {self.dtype} do not suit it.")
            for key in node.weights.values():
                if key not in self.tensors:
                    raise GraphError(f"{node}: there is no tensor {key!r}.")
            rule = _RULES.get(node.op)
            if rule is None:
                raise GraphError(f"{node}: the operator {node.op!r} is not known.")
            known[node.output] = _checked(rule(self, node, [known[name] for name in node.inputs]), str(node))
        if self.output not in known or self.output == self.input:
            raise GraphError(f"the output {self.output!r} is not computed.")
        return known


def _checked(shape: Shape, what: str) -> Shape:
    if not 1 <= len(shape) <= 3 or any(type(size) is not int or size < 1 for size in shape):
        raise GraphError(f"{what}: shape {shape} has not 1 to 3 sizes of 1 or more.")
    if math.prod(shape) > MOST_ELEMENTS:
        raise GraphError(f"{what}: shape {shape} is too large.")
    return shape


def _need(node: Node, condition: bool, what: str) -> None:
    if not condition:
        raise GraphError(f"{node}: {what}.")


def _vector(graph: Graph, node: Node, name: str, size: int) -> None:
    found = graph.tensor(node, name)
    if found is not None:
        _need(node, found.shape == (size,), f"{name} has shape {found.shape}, not ({size},)")


def _product(graph: Graph, node: Node, inputs: list[Shape], out: Shape, features: int) -> Shape:
    _need(node, 1 <= len(inputs) <= 2, "a product has one input, and a residual at most")
    _need(node, len(inputs) == 1 or inputs[1] == out, f"the residual does not have the output's shape {out}")
    _vector(graph, node, "bias", features)
    _need(node, node.activation in ACTIVATIONS, "unknown activation")
    return out


def _linear(graph: Graph, node: Node, inputs: list[Shape]) -> Shape:
    weight = graph.parameter(node, "weight")
    _need(node, bool(inputs) and len(inputs[0]) <= 2, "a linear layer takes features, or tokens of features")
    _need(node, weight.ndim == 2 and weight.shape[1] == inputs[0][-1], f"weights {weight.shape} on {inputs[0]}")
    return _product(graph, node, inputs, (*inputs[0][:-1], weight.shape[0]), weight.shape[0])


def window(node: Node, size: tuple[int, int], kernel: tuple[int, int], step: tuple[int, int], pad: tuple[int, int],
           dilation: tuple[int, int] = (1, 1)) -> tuple[int, int]:  # fmt: skip
    """Rows and columns that are left when a window goes over ``size``."""
    spans = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    out = [(n + 2 * p - k) // s + 1 for n, k, s, p in zip(size, spans, step, pad, strict=True)]
    _need(node, min(out) >= 1, f"its window does not fit in {size}")
    return out[0], out[1]


def conv_geometry(node: Node) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int], int]:
    """Stride, padding, dilation (rows, columns each) and groups."""
    stride, padding, dilation = node.numbers("stride", 2, 1), node.numbers("padding", 2), node.numbers("dilation", 2, 1)
    return (stride[0], stride[1]), (padding[0], padding[1]), (dilation[0], dilation[1]), node.number("groups", 1)


def pool_geometry(node: Node) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Window, step and padding (rows, columns each)."""
    kernel, stride, padding = node.numbers("kernel", 2, 1), node.numbers("stride", 2, 1), node.numbers("padding", 2)
    return (kernel[0], kernel[1]), (stride[0], stride[1]), (padding[0], padding[1])


def _conv2d(graph: Graph, node: Node, inputs: list[Shape]) -> Shape:
    weight = graph.parameter(node, "weight")
    stride, padding, dilation, groups = conv_geometry(node)
    _need(
        node, bool(inputs) and len(inputs[0]) == 3 and weight.ndim == 4, "a convolution takes channels, rows, columns"
    )
    channels, rows, columns = inputs[0]
    outputs, inner, high, wide = weight.shape
    fits = min(weight.shape) >= 1 and inner * groups == channels and outputs % groups == 0
    _need(node, fits, f"weights {weight.shape} in {groups} groups on {inputs[0]}")
    out = window(node, (rows, columns), (high, wide), stride, padding, dilation)
    return _product(graph, node, inputs, (outputs, *out), outputs)


def _pool(graph: Graph, node: Node, inputs: list[Shape]) -> Shape:
    kernel, stride, padding = pool_geometry(node)
    _need(node, len(inputs) == 1 and len(inputs[0]) == 3, "pooling takes channels, rows, columns")
    _need(
        node, all(2 * p <= k for p, k in zip(padding, kernel, strict=True)), "padding is more than half of the window"
    )
    return (inputs[0][0], *window(node, inputs[0][1:], kernel, stride, padding))  # type: ignore[arg-type]


def _same(graph: Graph, node: Node, inputs: list[Shape]) -> Shape:
    _need(node, len(inputs) == 1, "it takes one input")
    _need(node, node.activation in ACTIVATIONS, "unknown activation")
    return inputs[0]


def _affine(graph: Graph, node: Node, inputs: list[Shape]) -> Shape:
    shape = _same(graph, node, inputs)
    features = shape[0] if len(shape) == 3 else shape[-1]
    graph.parameter(node, "scale"), graph.parameter(node, "shift")
    _vector(graph, node, "scale", features)
    _vector(graph, node, "shift", features)
    return shape


def _layer_norm(graph: Graph, node: Node, inputs: list[Shape]) -> Shape:
    shape = _affine(graph, node, inputs)
    _need(node, len(shape) <= 2, "layer norm takes features, or tokens of features")
    _need(node, node.real("epsilon") > 0, "epsilon must be above 0")
    return shape


def _softmax(graph: Graph, node: Node, inputs: list[Shape]) -> Shape:
    shape = _same(graph, node, inputs)
    _need(node, len(shape) <= 2, "softmax takes features, or tokens of features")
    return shape


def _binary(graph: Graph, node: Node, inputs: list[Shape]) -> Shape:
    _need(node, len(inputs) == 2 and inputs[0] == inputs[1], f"shapes {inputs} are not two of the same")
    _need(node, node.activation in ACTIVATIONS, "unknown activation")
    return inputs[0]


def _constant(graph: Graph, node: Node, inputs: list[Shape]) -> Shape:
    shape = _same(graph, node, inputs)
    _need(node, graph.parameter(node, "value").shape == shape, f"its constant has not the shape {shape}")
    return shape


def _flatten(graph: Graph, node: Node, inputs: list[Shape]) -> Shape:
    return (math.prod(_same(graph, node, inputs)),)


def _slice(graph: Graph, node: Node, inputs: list[Shape]) -> Shape:
    shape = _same(graph, node, inputs)
    begin, end = node.number("begin"), node.number("end", 1)
    _need(node, len(shape) <= 2 and begin < end <= shape[-1], f"features {begin} to {end} of {shape}")
    return (*shape[:-1], end - begin)


def _embedding(graph: Graph, node: Node, inputs: list[Shape]) -> Shape:
    table = graph.parameter(node, "table")
    _need(node, node.inputs == (graph.input,) and len(inputs[0]) == 1, "an embedding takes the tokens of the input")
    _need(node, table.ndim == 2 and min(table.shape) >= 1, f"its table has shape {table.shape}")
    return (inputs[0][0], table.shape[1])


def _attention(graph: Graph, node: Node, inputs: list[Shape]) -> Shape:
    heads = node.number("heads", 1)
    alike = len(inputs) == 3 and inputs[0] == inputs[1] == inputs[2] and len(inputs[0]) == 2
    _need(node, alike and inputs[0][1] % heads == 0, f"{heads} heads on {inputs}")
    _need(node, type(node.attributes.get("causal")) is bool, "causal must be true or false")
    node.real("scale")
    _need(node, heads * inputs[0][0] * (inputs[0][0] + 15) <= MOST_ELEMENTS, "too many tokens")
    return inputs[0]


_RULES = {
    "linear": _linear,
    "conv2d": _conv2d,
    "max_pool": _pool,
    "avg_pool": _pool,
    "affine": _affine,
    "activation": _same,
    "add": _binary,
    "sub": _binary,
    "mul": _binary,
    "add_constant": _constant,
    "flatten": _flatten,
    "slice": _slice,
    "layer_norm": _layer_norm,
    "softmax": _softmax,
    "embedding": _embedding,
    "attention": _attention,
}
