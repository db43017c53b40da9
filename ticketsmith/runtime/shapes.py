"""Shape rules: the shape of what an operator computes from the shapes of its inputs and of its parameters.

A rule raises GraphError for a node that cannot be computed as it is written. Shapes are those of one sample.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ticketsmith.runtime.node import ACTIVATIONS, MOST_AXES, MOST_ELEMENTS, GraphError, Node, Shape, Step


class Operands(NamedTuple):
    """What a rule looks at: a node, the shapes of its inputs, its parameters by name (those that it needs are there), and
    the step of the session that it is part of."""

    node: Node
    inputs: list[Shape]
    weights: Mapping[str, NDArray[Any]]
    step: Step | None = None

    def need(self, condition: bool, what: str) -> None:
        """Raises GraphError with ``what`` where the condition does not hold."""
        if not condition:
            raise GraphError(f"{self.node}: {what}.")

    def vectors(self, size: int, *names: str) -> None:
        """The parameters of these names, where there are any, have the shape ``(size,)``."""
        for name in (name for name in names if name in self.weights):
            shape = self.weights[name].shape
            self.need(shape == (size,), f"{name} has shape {shape}, not ({size},)")

    def axis(self, rank: int) -> int:
        """The axis of the node, the last where it names none."""
        axis = self.node.number("axis") if "axis" in self.node.attributes else rank - 1
        self.need(axis < rank, f"it has no axis {axis}")
        return axis

    def sizes(self, name: str, low: int = 1) -> Shape:
        """The attribute ``name``, which is a number for each axis."""
        value = self.node.attributes.get(name)
        self.need(isinstance(value, (list, tuple)) and 1 <= len(value) <= MOST_AXES, f"{name} is {value!r}")
        return self.node.numbers(name, len(value), low)  # type: ignore[arg-type]

    def broadcast(self, *shapes: Shape, what: object) -> Shape:
        """The shape that all of ``shapes`` are broadcast to, as in NumPy."""
        if shapes.count(shapes[0]) == len(shapes):
            return shapes[0]
        try:
            return np.broadcast_shapes(*shapes)
        except ValueError:
            raise GraphError(f"{self.node}: shapes {what} cannot be broadcast.") from None

    def window(self, size: Shape, kernel: Shape, step: Shape, pad: Shape, dilation: Shape = (1, 1)) -> Shape:
        """Rows and columns that are left when a window goes over ``size``."""
        spans = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
        out = [(n + 2 * p - k) // s + 1 for n, k, s, p in zip(size, spans, step, pad, strict=True)]
        self.need(min(out) >= 1, f"its window does not fit in {size}")
        return tuple(out)


def conv_geometry(node: Node) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int], int]:
    """Stride, padding, dilation (rows, columns each) and groups."""
    stride, padding, dilation = node.numbers("stride", 2, 1), node.numbers("padding", 2), node.numbers("dilation", 2, 1)
    return (stride[0], stride[1]), (padding[0], padding[1]), (dilation[0], dilation[1]), node.number("groups", 1)


def pool_geometry(node: Node) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Window, step and padding (rows, columns each)."""
    kernel, stride, padding = node.numbers("kernel", 2, 1), node.numbers("stride", 2, 1), node.numbers("padding", 2)
    return (kernel[0], kernel[1]), (stride[0], stride[1]), (padding[0], padding[1])


def attention_heads(node: Node) -> tuple[int, int]:
    """Heads of queries, and of keys and values."""
    heads = node.number("heads", 1)
    return heads, node.number("shared_heads", 1) if "shared_heads" in node.attributes else heads


def attention_sequences(node: Node) -> int:
    """How many sequences lie one behind the other, each of which attends to itself."""
    return node.number("sequences", 1) if "sequences" in node.attributes else 1


def same(on: Operands) -> Shape:
    """The shape of the one input."""
    on.need(len(on.inputs) == 1, "it takes one input")
    on.need(on.node.activation in ACTIVATIONS, "unknown activation")
    return on.inputs[0]


def _product(on: Operands, out: Shape, features: int) -> Shape:
    on.need(1 <= len(on.inputs) <= 2, "a product has one input, and a residual at most")
    on.need(len(on.inputs) == 1 or on.inputs[1] == out, f"the residual does not have the output's shape {out}")
    on.vectors(features, "bias")
    on.need(on.node.activation in ACTIVATIONS, "unknown activation")
    return out


def linear(on: Operands) -> Shape:
    """``[..., inputs]`` to ``[..., outputs]`` by weights ``[outputs, inputs]``."""
    weight = on.weights["weight"]
    on.need(bool(on.inputs) and len(on.inputs[0]) <= 2, "a linear layer takes features, or tokens of features")
    on.need(weight.ndim == 2 and weight.shape[1] == on.inputs[0][-1], f"weights {weight.shape} on {on.inputs[0]}")
    return _product(on, (*on.inputs[0][:-1], weight.shape[0]), weight.shape[0])


def conv2d(on: Operands) -> Shape:
    """``[channels, rows, columns]`` by weights ``[outputs, channels / groups, high, wide]``."""
    weight = on.weights["weight"]
    stride, padding, dilation, groups = conv_geometry(on.node)
    image = bool(on.inputs) and len(on.inputs[0]) == 3 and weight.ndim == 4
    on.need(image, "a convolution takes channels, rows, columns")
    channels, *size = on.inputs[0]
    outputs, inner, *kernel = weight.shape
    fits = min(weight.shape) >= 1 and inner * groups == channels and outputs % groups == 0
    on.need(fits, f"weights {weight.shape} in {groups} groups on {on.inputs[0]}")
    out = on.window(tuple(size), tuple(kernel), stride, padding, dilation)
    return _product(on, (outputs, *out), outputs)


def matmul(on: Operands) -> Shape:
    """``[..., n, k]`` and ``[..., k, m]``, of which the outer axes are broadcast, to ``[..., n, m]``."""
    on.need(len(on.inputs) == 2 and min(map(len, on.inputs)) >= 2, "a product takes two matrices")
    left, right = on.inputs
    on.need(left[-1] == right[-2], f"shapes {left} and {right}")
    batch = on.broadcast(left[:-2], right[:-2], what=f"{left} and {right}")
    on.need(len(batch) <= 3, "more than three axes of batches")
    return (*batch, left[-2], right[-1])


def affine(on: Operands) -> Shape:
    """A factor and a summand for each channel of an image, or for each feature."""
    shape = same(on)
    on.need(len(shape) <= 3, "it takes up to three axes")
    features = shape[0] if len(shape) == 3 else shape[-1]
    on.vectors(features, "scale", "shift")
    return shape


def elementwise(on: Operands) -> Shape:
    """Of two values (``where``: three), which are broadcast as in NumPy."""
    on.need(len(on.inputs) == (3 if on.node.op == "where" else 2), "it has too few or too many inputs")
    on.need(on.node.activation in ACTIVATIONS, "unknown activation")
    return on.broadcast(*on.inputs, what=on.inputs)


def add_constant(on: Operands) -> Shape:
    """A value and a constant of its shape."""
    shape = same(on)
    on.need(len(shape) <= 3, "it takes up to three axes")
    on.need(on.weights["value"].shape == shape, f"its constant has not the shape {shape}")
    return shape


def pool(on: Operands) -> Shape:
    """A window of rows and columns over ``[channels, rows, columns]``."""
    kernel, stride, padding = pool_geometry(on.node)
    on.need(len(on.inputs) == 1 and len(on.inputs[0]) == 3, "pooling takes channels, rows, columns")
    inside = all(2 * p <= k for p, k in zip(padding, kernel, strict=True))
    on.need(inside, "padding is more than half of the window")
    return (on.inputs[0][0], *on.window(on.inputs[0][1:], kernel, stride, padding))


def upsample(on: Operands) -> Shape:
    """Each row and column so many times."""
    shape, (high, wide) = same(on), on.node.numbers("factors", 2, 1)
    on.need(len(shape) == 3, "upsampling takes channels, rows, columns")
    return (shape[0], shape[1] * high, shape[2] * wide)


def layer_norm(on: Operands) -> Shape:
    """Over the last axis, with a scale and a shift for each feature."""
    shape = same(on)
    on.vectors(shape[-1], "scale", "shift")
    on.need(on.node.real("epsilon") > 0, "epsilon must be above 0")
    return shape


def rms_norm(on: Operands) -> Shape:
    """Over the last axis, with a scale for each feature."""
    shape = same(on)
    on.vectors(shape[-1], "scale")
    on.need(on.node.real("epsilon") >= 0, "epsilon must not be below 0")
    return shape


def group_norm(on: Operands) -> Shape:
    """Over groups of the first axis and all of the others, with a scale and a shift for each channel."""
    shape, groups = same(on), on.node.number("groups", 1)
    on.need(shape[0] % groups == 0, f"{groups} groups of {shape[0]} channels")
    on.vectors(shape[0], "scale", "shift")
    on.need(on.node.real("epsilon") > 0, "epsilon must be above 0")
    return shape


def softmax(on: Operands) -> Shape:
    """Over one axis, the last where none is named."""
    shape = same(on)
    on.axis(len(shape))
    return shape


def reduce(on: Operands) -> Shape:
    """The axes that are reduced become of size 1."""
    shape, axes = same(on), on.sizes("axes", 0)
    on.need(len(set(axes)) == len(axes) and max(axes) < len(shape), f"axes {axes} of {shape}")
    on.need(on.node.attributes.get("function") in ("sum", "mean", "max"), "function is not sum, mean or max")
    return tuple(1 if axis in axes else size for axis, size in enumerate(shape))


def constant(on: Operands) -> Shape:
    """The shape of the parameter."""
    on.need(not on.inputs, "a constant has no inputs")
    return on.weights["value"].shape


def flatten(on: Operands) -> Shape:
    """All elements along one axis."""
    return (math.prod(same(on)),)


def reshape(on: Operands) -> Shape:
    """The same elements in the same order."""
    shape, target = same(on), on.sizes("shape")
    on.need(math.prod(shape) == math.prod(target), f"{shape} as {target}")
    return target


def permute(on: Operands) -> Shape:
    """Axis i of the output is axis ``axes[i]`` of the input."""
    shape, axes = same(on), on.sizes("axes", 0)
    on.need(sorted(axes) == list(range(len(shape))), f"axes {axes} of {shape}")
    return tuple(shape[axis] for axis in axes)


def concat(on: Operands) -> Shape:
    """Inputs one behind the other along an axis, the last where none is named."""
    on.need(bool(on.inputs), "it needs inputs")
    first = on.inputs[0]
    axis = on.axis(len(first))
    around = {(*shape[:axis], *shape[axis + 1 :]) for shape in on.inputs if len(shape) == len(first)}
    fits = len(around) == 1 and len({len(shape) for shape in on.inputs}) == 1
    on.need(fits, f"shapes {on.inputs} along axis {axis}")
    return (*first[:axis], sum(shape[axis] for shape in on.inputs), *first[axis + 1 :])


def slice(on: Operands) -> Shape:
    """Of one axis (the last), from ``begin`` to before ``end``, every ``step``-th (1)."""
    shape = same(on)
    axis, begin, end = on.axis(len(shape)), on.node.number("begin"), on.node.number("end", 1)
    step = on.node.number("step", 1) if "step" in on.node.attributes else 1
    on.need(begin < end <= shape[axis], f"{begin} to {end} of axis {axis} of {shape}")
    return (*shape[:axis], -(-(end - begin) // step), *shape[axis + 1 :])


def expand(on: Operands) -> Shape:
    """Repeated along the axes that are of size 1, or missing."""
    shape, target = same(on), on.sizes("shape")
    fits = len(shape) <= len(target) and all(a in (1, b) for a, b in zip(shape[::-1], target[::-1], strict=False))
    on.need(fits, f"{shape} cannot be expanded to {target}")
    return target


def pad(on: Operands) -> Shape:
    """Zeros (or ``value``) before, behind and between the elements of each axis."""
    shape = same(on)
    before, behind, between = (on.node.numbers(name, len(shape)) for name in ("before", "behind", "between"))
    on.node.real("value")
    return tuple(b + n + (n - 1) * i + a for n, b, a, i in zip(shape, before, behind, between, strict=True))


def embedding(on: Operands) -> Shape:
    """``[tokens]`` to ``[tokens, features]`` by a table ``[entries, features]``."""
    table = on.weights["table"]
    on.need(len(on.inputs) == 1 and len(on.inputs[0]) == 1, "an embedding takes the tokens of an input")
    on.need(table.ndim == 2 and min(table.shape) >= 1, f"its table has shape {table.shape}")
    return (on.inputs[0][0], table.shape[1])


def rotary(on: Operands) -> Shape:
    """``x * cos + swapped(x) * sin`` for each head; tables are [tokens, width of a head]."""
    shape, heads = same(on), on.node.number("heads", 1)
    on.need(len(shape) == 2 and shape[1] % heads == 0 and shape[1] // heads % 2 == 0, f"{heads} heads of {shape}")
    tokens = shape[0] if on.step is None else on.step.capacity
    for name in ("cos", "sin"):
        table = on.weights[name]
        fits = table.ndim == 2 and table.shape[1] == shape[1] // heads and len(table) >= tokens
        on.need(fits and (on.step is not None or len(table) == tokens), f"{name} has shape {table.shape}")
    return shape


def attention(on: Operands) -> Shape:
    """Queries [tokens, heads * width], keys and values [tokens, shared_heads * width], and a mask to add to scores."""
    heads, shared = attention_heads(on.node)
    inputs = on.inputs
    on.need(3 <= len(inputs) <= 4 and all(len(shape) == 2 for shape in inputs[:3]), f"{heads} heads on {inputs}")
    query, key, value = inputs[:3]
    fits = query[1] % heads == 0 and heads % shared == 0 and key[1] * heads == query[1] * shared
    on.need(fits and key[0] == value[0] and value[1] % shared == 0, f"{heads} heads ({shared} shared) on {inputs}")
    causal = on.node.attributes.get("causal")
    on.need(type(causal) is bool, "causal must be true or false")
    on.need(not causal or query[0] == key[0], "causal attention is that of a sequence to itself")
    on.node.real("scale")
    sequences = attention_sequences(on.node)
    alike = len(inputs) == 3 and len(set(inputs)) == 1 and heads == shared
    on.need(sequences == 1 or (alike and query[0] % sequences == 0), f"{sequences} sequences in {inputs}")
    if len(inputs) == 4:
        full = (heads, query[0], key[0])
        fits = len(inputs[3]) == 3 and all(a in (1, b) for a, b in zip(inputs[3], full, strict=True))
        on.need(fits, f"a mask {inputs[3]} for scores {full}")
    on.need(heads * query[0] * (key[0] + 15) <= MOST_ELEMENTS, "too many tokens")
    return (query[0], heads * (value[1] // shared))


def rows(on: Operands) -> Shape:
    """The rows of a table that belong to the tokens of a step."""
    step, table = on.step, on.weights["value"]
    on.need(step is not None and not on.inputs and table.ndim == 2 and len(table) >= step.capacity, "table too short")
    return (step.batch * step.tokens, table.shape[1])  # type: ignore[union-attr]
