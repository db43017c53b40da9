"""Networks as a small graph: what is computed, and nothing about how.

Shapes are those of one sample, such as ``(features,)``, ``(tokens, features)`` or ``(channels, rows, columns)``; every
operation treats the samples of a batch alike and apart. Values are arrays in row-major order, whatever lies in memory. A
product may carry what follows it: a residual as its second input, and an activation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ticketsmith.errors import TicketSmithError

Shape = tuple[int, ...]

ACTIVATIONS = (
    "linear", "relu", "gelu", "gelu_tanh", "silu", "sigmoid", "tanh", "relu6", "hard_swish", "hard_sigmoid", "exp", "log",
    "sqrt", "erf", "sin", "cos", "abs",
)  # fmt: skip
BINARY = ("add", "sub", "mul")
ELEMENTWISE = (*BINARY, "div", "maximum", "minimum", "power", "equal", "less", "less_equal")
"""Of two values, which are broadcast as in NumPy."""

MOST_AXES = 6
MOST_PORTS = 8
"""Inputs, and outputs, of a graph."""

MOST_ELEMENTS = 2**27
"""Of one value: half a GiB. No network that is meant to be served comes near; a malicious file may."""


_LARGEST = float(np.finfo(np.float32).max)


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
        """The attribute ``name`` as a number that float32 can hold."""
        value = self.attributes.get(name)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not abs(value) <= _LARGEST:
            raise GraphError(f"{self}: {name} is {value!r}, not a number of float32.")
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


DTYPES = ("float32", "int64")


@dataclass(frozen=True)
class Port:
    """An input: the shape of one sample (``()`` for a number), and float32, or int64 for tokens and masks."""

    name: str
    shape: Shape
    dtype: str = "float32"


@dataclass(frozen=True)
class Step:
    """What makes a graph the step of a session: ``tokens`` new ones of each of ``batch`` sequences, and room for
    ``capacity`` in all. The columns of a sequence of values are then ``batch * tokens``."""

    batch: int
    tokens: int
    capacity: int


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
        known = self.shapes()
        return tuple(() if place in self.scalars else known[name] for place, name in enumerate(self.outputs))

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

    @cached_property
    def users(self) -> Mapping[str, tuple[Node, ...]]:
        """The nodes that read each value, in their order; a value that nobody reads is not in it."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                found.setdefault(name, []).append(node)
        return {name: tuple(nodes) for name, nodes in found.items()}

    def shapes(self) -> dict[str, Shape]:
        """The shape of every value, a dict of the caller's own. Raises GraphError for anything that cannot be computed as it
        is written."""
        return dict(self._shapes)

    @cached_property
    def _shapes(self) -> dict[str, Shape]:
        known: dict[str, Shape] = {}
        if len(self.inputs) > MOST_PORTS or len(self.outputs) > MOST_PORTS:
            raise GraphError(f"more than {MOST_PORTS} inputs or outputs.")
        for port in self.inputs:
            if port.dtype not in DTYPES:
                raise GraphError(f"inputs of dtype {port.dtype!r} are not known.")
            if port.name in known:
                raise GraphError(f"there are two inputs {port.name!r}.")
            known[port.name] = _checked(port.shape or (1,), f"input {port.name!r}")
        tokens = {port.name for port in self.inputs if port.dtype == "int64"}
        for node in self.nodes:
            for name in node.inputs:
                if name not in known:
                    raise GraphError(f"{node}: its input {name!r} is not computed before it.")
                if (name in tokens) != (node.op in ("embedding", "cast")):
                    raise GraphError(
                        f"{node}: an input of {'int64' if name in tokens else 'float32'} does not suit it."
                    )
            if node.output in known:
                raise GraphError(f"{node}: {node.output!r} is computed twice.")
            for key in node.weights.values():
                if key not in self.tensors:
                    raise GraphError(f"{node}: there is no tensor {key!r}.")
            rule = _RULES.get(node.op) or (_STEP_RULES.get(node.op) if self.step else None)
            if rule is None:
                raise GraphError(f"{node}: the operator {node.op!r} is not known.")
            known[node.output] = _checked(rule(self, node, [known[name] for name in node.inputs]), str(node))
        made = {node.output for node in self.nodes}
        for name in self.outputs:
            if name not in made:
                raise GraphError(f"the output {name!r} is not computed.")
        for place in self.scalars:
            if not 0 <= place < len(self.outputs) or math.prod(known[self.outputs[place]]) != 1:
                raise GraphError(f"the output {place} is said to be a number and is none.")
        return known


def _checked(shape: Shape, what: str) -> Shape:
    if not 1 <= len(shape) <= MOST_AXES or any(type(size) is not int or size < 1 for size in shape):
        raise GraphError(f"{what}: shape {shape} has not 1 to {MOST_AXES} sizes of 1 or more.")
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
    _need(node, len(shape) <= 3, "it takes up to three axes")
    features = shape[0] if len(shape) == 3 else shape[-1]
    graph.parameter(node, "scale"), graph.parameter(node, "shift")
    _vector(graph, node, "scale", features)
    _vector(graph, node, "shift", features)
    return shape


def _axis(node: Node, rank: int) -> int:
    """The axis of a node, the last where it names none."""
    axis = node.number("axis") if "axis" in node.attributes else rank - 1
    _need(node, axis < rank, f"it has no axis {axis}")
    return axis


def _layer_norm(graph: Graph, node: Node, inputs: list[Shape]) -> Shape:
    shape = _same(graph, node, inputs)
    for name in ("scale", "shift"):
        graph.parameter(node, name)
        _vector(graph, node, name, shape[-1])
    _need(node, node.real("epsilon") > 0, "epsilon must be above 0")
    return shape


def _rms_norm(graph: Graph, node: Node, inputs: list[Shape]) -> Shape:
    shape = _same(graph, node, inputs)
    graph.parameter(node, "scale")
    _vector(graph, node, "scale", shape[-1])
    _need(node, node.real("epsilon") >= 0, "epsilon must not be below 0")
    return shape


def _group_norm(graph: Graph, node: Node, inputs: list[Shape]) -> Shape:
    shape = _same(graph, node, inputs)
    groups = node.number("groups", 1)
    _need(node, shape[0] % groups == 0, f"{groups} groups of {shape[0]} channels")
    for name in ("scale", "shift"):
        graph.parameter(node, name)
        _vector(graph, node, name, shape[0])
    _need(node, node.real("epsilon") > 0, "epsilon must be above 0")
    return shape


def _softmax(graph: Graph, node: Node, inputs: list[Shape]) -> Shape:
    shape = _same(graph, node, inputs)
    _axis(node, len(shape))
    return shape


def _elementwise(graph: Graph, node: Node, inputs: list[Shape]) -> Shape:
    _need(node, len(inputs) == (3 if node.op == "where" else 2), "it has too few or too many inputs")
    _need(node, node.activation in ACTIVATIONS, "unknown activation")
    try:
        return np.broadcast_shapes(*inputs)
    except ValueError:
        raise GraphError(f"{node}: shapes {inputs} cannot be broadcast.") from None


def _add_constant(graph: Graph, node: Node, inputs: list[Shape]) -> Shape:
    shape = _same(graph, node, inputs)
    _need(node, len(shape) <= 3, "it takes up to three axes")
    _need(node, graph.parameter(node, "value").shape == shape, f"its constant has not the shape {shape}")
    return shape


def _flatten(graph: Graph, node: Node, inputs: list[Shape]) -> Shape:
    return (math.prod(_same(graph, node, inputs)),)


def _slice(graph: Graph, node: Node, inputs: list[Shape]) -> Shape:
    """Of one axis (the last), from ``begin`` to before ``end``, every ``step``-th (1)."""
    shape = _same(graph, node, inputs)
    axis, begin, end = _axis(node, len(shape)), node.number("begin"), node.number("end", 1)
    step = node.number("step", 1) if "step" in node.attributes else 1
    _need(node, begin < end <= shape[axis], f"{begin} to {end} of axis {axis} of {shape}")
    return (*shape[:axis], -(-(end - begin) // step), *shape[axis + 1 :])


def _constant(graph: Graph, node: Node, inputs: list[Shape]) -> Shape:
    _need(node, not inputs, "a constant has no inputs")
    return graph.parameter(node, "value").shape


def _sizes(node: Node, name: str, low: int = 1) -> Shape:
    value = node.attributes.get(name)
    _need(node, isinstance(value, (list, tuple)) and 1 <= len(value) <= MOST_AXES, f"{name} is {value!r}")
    return node.numbers(name, len(value), low)  # type: ignore[arg-type]


def _reshape(graph: Graph, node: Node, inputs: list[Shape]) -> Shape:
    shape, target = _same(graph, node, inputs), _sizes(node, "shape")
    _need(node, math.prod(shape) == math.prod(target), f"{shape} as {target}")
    return target


def _permute(graph: Graph, node: Node, inputs: list[Shape]) -> Shape:
    shape, axes = _same(graph, node, inputs), _sizes(node, "axes", 0)
    _need(node, sorted(axes) == list(range(len(shape))), f"axes {axes} of {shape}")
    return tuple(shape[axis] for axis in axes)


def _concat(graph: Graph, node: Node, inputs: list[Shape]) -> Shape:
    _need(node, bool(inputs), "it needs inputs")
    axis = _axis(node, len(inputs[0]))
    around = {(*shape[:axis], *shape[axis + 1 :]) for shape in inputs if len(shape) == len(inputs[0])}
    _need(node, len(around) == 1 and len({len(shape) for shape in inputs}) == 1, f"shapes {inputs} along axis {axis}")
    return (*inputs[0][:axis], sum(shape[axis] for shape in inputs), *inputs[0][axis + 1 :])


def _expand(graph: Graph, node: Node, inputs: list[Shape]) -> Shape:
    shape, target = _same(graph, node, inputs), _sizes(node, "shape")
    fits = len(shape) <= len(target) and all(a in (1, b) for a, b in zip(shape[::-1], target[::-1], strict=False))
    _need(node, fits, f"{shape} cannot be expanded to {target}")
    return target


def _upsample(graph: Graph, node: Node, inputs: list[Shape]) -> Shape:
    shape, (high, wide) = _same(graph, node, inputs), node.numbers("factors", 2, 1)
    _need(node, len(shape) == 3, "upsampling takes channels, rows, columns")
    return (shape[0], shape[1] * high, shape[2] * wide)


def _pad(graph: Graph, node: Node, inputs: list[Shape]) -> Shape:
    """Zeros (or ``value``) before, behind and between the elements of each axis."""
    shape = _same(graph, node, inputs)
    before, behind, between = (node.numbers(name, len(shape)) for name in ("before", "behind", "between"))
    node.real("value")
    return tuple(b + n + (n - 1) * i + a for n, b, a, i in zip(shape, before, behind, between, strict=True))


def _reduce(graph: Graph, node: Node, inputs: list[Shape]) -> Shape:
    shape, axes = _same(graph, node, inputs), _sizes(node, "axes", 0)
    _need(node, len(set(axes)) == len(axes) and max(axes) < len(shape), f"axes {axes} of {shape}")
    _need(node, node.attributes.get("function") in ("sum", "mean", "max"), "function is not sum, mean or max")
    return tuple(1 if axis in axes else size for axis, size in enumerate(shape))


def _matmul(graph: Graph, node: Node, inputs: list[Shape]) -> Shape:
    _need(node, len(inputs) == 2 and min(map(len, inputs)) >= 2, "a product takes two matrices")
    left, right = inputs
    _need(node, left[-1] == right[-2], f"shapes {left} and {right}")
    try:
        batch = np.broadcast_shapes(left[:-2], right[:-2])
    except ValueError:
        raise GraphError(f"{node}: shapes {left} and {right} cannot be broadcast.") from None
    _need(node, len(batch) <= 3, "more than three axes of batches")
    return (*batch, left[-2], right[-1])


def _rotary(graph: Graph, node: Node, inputs: list[Shape]) -> Shape:
    """``x * cos + swapped(x) * sin`` for each head; tables are [tokens, width of a head]."""
    shape, heads = _same(graph, node, inputs), node.number("heads", 1)
    _need(node, len(shape) == 2 and shape[1] % heads == 0 and shape[1] // heads % 2 == 0, f"{heads} heads of {shape}")
    tokens = shape[0] if graph.step is None else graph.step.capacity
    for name in ("cos", "sin"):
        table = graph.parameter(node, name)
        fits = table.ndim == 2 and table.shape[1] == shape[1] // heads and len(table) >= tokens
        _need(node, fits and (graph.step is not None or len(table) == tokens), f"{name} has shape {table.shape}")
    return shape


def _embedding(graph: Graph, node: Node, inputs: list[Shape]) -> Shape:
    table = graph.parameter(node, "table")
    _need(node, len(inputs) == 1 and len(inputs[0]) == 1, "an embedding takes the tokens of an input")
    _need(node, table.ndim == 2 and min(table.shape) >= 1, f"its table has shape {table.shape}")
    return (inputs[0][0], table.shape[1])


def attention_heads(node: Node) -> tuple[int, int]:
    """Heads of queries, and of keys and values."""
    heads = node.number("heads", 1)
    return heads, node.number("shared_heads", 1) if "shared_heads" in node.attributes else heads


def _attention(graph: Graph, node: Node, inputs: list[Shape]) -> Shape:
    """Queries [tokens, heads * width], keys and values [tokens, shared_heads * width], and a mask to add to scores."""
    heads, shared = attention_heads(node)
    _need(node, 3 <= len(inputs) <= 4 and all(len(shape) == 2 for shape in inputs[:3]), f"{heads} heads on {inputs}")
    query, key, value = inputs[:3]
    fits = query[1] % heads == 0 and heads % shared == 0 and key[1] * heads == query[1] * shared
    _need(node, fits and key[0] == value[0] and value[1] % shared == 0, f"{heads} heads ({shared} shared) on {inputs}")
    _need(node, type(node.attributes.get("causal")) is bool, "causal must be true or false")
    _need(node, not node.attributes["causal"] or query[0] == key[0], "causal attention is that of a sequence to itself")
    node.real("scale")
    if len(inputs) == 4:
        full = (heads, query[0], key[0])
        fits = len(inputs[3]) == 3 and all(a in (1, b) for a, b in zip(inputs[3], full, strict=True))
        _need(node, fits, f"a mask {inputs[3]} for scores {full}")
    _need(node, heads * query[0] * (key[0] + 15) <= MOST_ELEMENTS, "too many tokens")
    return (query[0], heads * (value[1] // shared))


def _rows(graph: Graph, node: Node, inputs: list[Shape]) -> Shape:
    """The rows of a table that belong to the tokens of a step."""
    step, table = graph.step, graph.parameter(node, "value")
    _need(node, step is not None and not inputs and table.ndim == 2 and len(table) >= step.capacity, "table too short")
    return (step.batch * step.tokens, table.shape[1])  # type: ignore[union-attr]


_RULES = {
    "linear": _linear,
    "conv2d": _conv2d,
    "max_pool": _pool,
    "avg_pool": _pool,
    "affine": _affine,
    "activation": _same,
    **dict.fromkeys((*ELEMENTWISE, "where"), _elementwise),
    "add_constant": _add_constant,
    "constant": _constant,
    "cast": _same,
    "reshape": _reshape,
    "permute": _permute,
    "concat": _concat,
    "expand": _expand,
    "upsample": _upsample,
    "pad": _pad,
    "reduce": _reduce,
    "matmul": _matmul,
    "rotary": _rotary,
    "flatten": _flatten,
    "slice": _slice,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
    "softmax": _softmax,
    "embedding": _embedding,
    "attention": _attention,
}

_STEP_RULES = {"rows": _rows}
