"""What front ends build graphs with: operations on values as PyTorch and ONNX see them, whose first axis is the batch.

A model is read with a batch of one, so that shapes are numbers. Constants are NumPy arrays. What the runtime cannot compute
raises ValueError; the front end names the operator and its place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ticketsmith.errors import TicketSmithError
from ticketsmith.runtime.graph import ELEMENTWISE, MOST_AXES, MOST_PORTS, Graph, Node, Port, Shape

Array = NDArray[Any]

HIDDEN = -1e30
"""Stands for minus infinity: scores of what attention must not see."""

_MOST_PLACES = 4096
_MOST_ENTRIES = 2**14
"""Of a table that is read at computed places, by a product with all of it."""


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
        self._kept: list[Array] = []  # so that no id is used twice
        self._known: dict[tuple[str, Shape], str] = {}
        self._output = ""
        self._count = 0

    def graph(self, outputs: Sequence[Any]) -> Graph:
        """The graph whose outputs are these values."""
        if not outputs or len(outputs) > MOST_PORTS:
            raise UnsupportedError(
                f"the model has {len(outputs)} outputs; the sparse runtime serves 1 to {MOST_PORTS}."
            )
        names = []
        for index, value in enumerate(outputs):
            if not isinstance(value, Value):
                raise UnsupportedError(
                    f"the model's output {index} is not computed from its inputs by known operators."
                )
            if not value.shape or value.shape[0] != 1 or value.batch not in (0, None):
                raise UnsupportedError(f"the model's output {index} has no batch as its first axis.")
            self.begin(f"output_{index}")
            inner = value.shape[1:] or (1,)
            name = self.at(value, inner)
            if any(name == port.name for port in self.ports):
                if value.integer:
                    raise UnsupportedError(f"the model's output {index} is its input.")
                name = self.emit("reshape", [name], inner, shape=list(inner))
            names.append(name)
        first = self.ports[0]
        return Graph(
            first.name, first.shape, first.dtype, tuple(self.nodes), names[0], self.tensors, tuple(self.ports[1:]),
            tuple(names[1:]), scalars=tuple(place for place, one in enumerate(outputs) if one.shape == (1,)),
        )  # fmt: skip

    # ---- nodes

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
        kept = {key: self._tensor(one, f"{name}.{key}") for key, one in (weights or {}).items() if one is not None}
        self.nodes.append(Node(op, tuple(inputs), name, kept, attributes))
        self._known[name, inner] = name
        return name

    def name_constant(self, array: Array, name: str) -> None:
        """Weights keep their names."""
        self.names[id(array)] = name
        self._kept.append(array)

    def _tensor(self, array: Array, fallback: str) -> str:
        if not isinstance(array, np.ndarray):
            raise ValueError("a weight is computed from the input")
        name = self.names.get(id(array), fallback)
        if self._owner.setdefault(name, id(array)) != id(array):  # the same weight in another order
            name = fallback
        if name not in self.tensors:
            self._kept.append(array)
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
        if key not in self._known:
            output, count = self._output, self._count
            self.begin(f"{name}.{op}.{'x'.join(map(str, inner))}")
            made = self.emit(op, [name], inner, **attributes)
            self.begin(output)
            self._count = count
            self._known[key] = made
        return self._known[key]

    # ---- shapes alone

    def reshape(self, x: Value, shape: Sequence[int]) -> Value:
        """The same elements in the same order. No node is made before it is needed."""
        sizes = [int(n) for n in shape]
        if sizes.count(-1) == 1:
            sizes[sizes.index(-1)] = math.prod(x.shape) // -math.prod(sizes)
        if math.prod(sizes) != math.prod(x.shape) or min(sizes, default=1) < 1:
            raise ValueError(f"{x.shape} as {tuple(shape)}")
        outermost = x.batch is not None and math.prod(x.shape[: x.batch]) == 1
        return replace(x, shape=tuple(sizes), batch=0 if outermost and sizes else None)

    def unsqueeze(self, x: Value, axes: Sequence[int]) -> Value:
        """New axes of size 1, at these places of the result."""
        rank = len(x.shape) + len(axes)
        new = {axis % rank for axis in axes}
        old = iter(enumerate(x.shape))
        sizes, batch = [], None
        for place in range(rank):
            if place in new:
                sizes.append(1)
                continue
            index, size = next(old)
            batch = place if index == x.batch else batch
            sizes.append(size)
        return replace(x, shape=tuple(sizes), batch=batch)

    def squeeze(self, x: Value, axes: Sequence[int]) -> Value:
        """Without these axes, where they are of size 1."""
        gone = {axis % len(x.shape) for axis in axes if x.shape[axis] == 1}
        self._not_batch(x, gone)
        kept = [axis for axis in range(len(x.shape)) if axis not in gone]
        batch = kept.index(x.batch) if x.batch in kept else None
        return replace(x, shape=tuple(x.shape[axis] for axis in kept), batch=batch)

    def permute(self, x: Value, axes: Sequence[int]) -> Value:
        """Axes in another order."""
        order = tuple(axis % len(x.shape) for axis in axes)
        shape = tuple(x.shape[axis] for axis in order)
        batch = order.index(x.batch) if x.batch is not None else None
        moved = [axis for axis in order if x.shape[axis] > 1]
        if moved == sorted(moved):
            return replace(x, shape=shape, batch=batch)
        here = self.at(x, tuple(n for n in x.shape if n > 1))
        big = sorted(moved)
        inner = tuple(x.shape[axis] for axis in moved)
        return Value(self.emit("permute", [here], inner, axes=[big.index(axis) for axis in moved]), shape, inner, batch)

    def _not_batch(self, x: Value, axes: Any) -> None:
        if x.batch is not None and x.batch in axes:
            raise ValueError("an operation over the batch")

    # ---- elementwise

    def elementwise(self, op: str, *given: Value | Array) -> Value:
        """``op`` is one of ``ops.ELEMENTWISE``."""
        values = [one for one in given if isinstance(one, Value)]
        full = np.broadcast_shapes(*(one.shape for one in given))
        batch = self._common_batch(values, full)
        if op in ELEMENTWISE and len(values) == 1:
            found = self._with_constant(op, given[0], given[1], full, batch)
            if found is not None:
                return found
        inner = strip(full)

        def inside(one: Value | Array) -> Shape:
            padded = (1,) * (len(full) - len(one.shape)) + one.shape
            return padded[1:] if len(inner) < len(full) else padded or (1,)

        names = [self.at(one, inside(one)) for one in given]
        return Value(self.emit(op, names, inner), full, inner, batch)

    def _common_batch(self, values: Sequence[Value], full: Shape) -> int | None:
        places = {one.batch + len(full) - len(one.shape) for one in values if one.batch is not None}
        if any(one.batch is not None and one.shape[one.batch] != full[one.batch - len(one.shape)] for one in values):
            raise ValueError("a value that is different for each sample of the batch")
        if len(places) > 1:
            raise ValueError("batches on different axes")
        return places.pop() if places else None

    def _with_constant(self, op: str, left: Any, right: Any, full: Shape, batch: int | None) -> Value | None:
        """A value with a constant that is the same everywhere, or for each feature: an affine map."""
        first = isinstance(left, Value)
        value, constant = (left, right) if first else (right, left)
        if value.shape != full or op not in ("add", "sub", "mul", "div") or (op == "div" and not first):
            return None
        inner = strip(full)
        if len(inner) > 3:
            if constant.size != 1:
                return None
            inner = (math.prod(inner[:-1]), inner[-1]) if inner[-1] > 1 else (math.prod(inner),)
        constant = constant.astype(np.float32)
        features, axis = (inner[0], 0) if len(inner) == 3 else (inner[-1], len(inner) - 1)
        wide = (
            constant.reshape((1,) * (len(full) - constant.ndim) + constant.shape)
            if constant.ndim < len(full)
            else constant
        )
        wide = wide.reshape(wide.shape[len(full) - len(inner) :]) if constant.size > 1 else wide
        by_feature = constant.size == 1 or (wide.size == wide.shape[axis] == features)
        if by_feature:
            flat = np.broadcast_to(constant.ravel(), (features,)).astype(np.float32)
            one, zero = np.ones(features, np.float32), np.zeros(features, np.float32)
            maps: dict[str, tuple[Array, Array]] = {
                "add": (one, flat),
                "sub": (one, -flat) if first else (-one, flat),
                "mul": (flat, zero),
                "div": (1 / np.where(flat == 0, np.nan, flat), zero),
            }
            scale, shift = maps[op]
            if not (np.isfinite(scale).all() and np.isfinite(shift).all()):
                return None
            name = self.emit("affine", [self.at(value, inner)], inner, {"scale": scale, "shift": shift})
            return Value(name, full, inner, batch)
        if op in ("add", "sub") and first and wide.shape == inner:
            shift = constant.reshape(inner) if op == "add" else -constant.reshape(inner)
            shift = constant if op == "add" and constant.shape == inner else shift
            return Value(
                self.emit("add_constant", [self.at(value, inner)], inner, {"value": shift}), full, inner, batch
            )
        return None

    def unary(self, kind: str, x: Value) -> Value:
        """``kind`` is one of graph.ACTIVATIONS."""
        inner = strip(x.shape) if len(x.shape) <= MOST_AXES else x.inner
        name = self.emit("activation", [self.at(x, inner)], inner, activation=kind)
        return replace(x, name=name, inner=inner, integer=False)

    def scalar(self, op: str, x: Value, number: float) -> Value:
        """``x op number``."""
        return self.elementwise(op, x, np.array(number, np.float32))

    def reversed(self, op: str, number: float, x: Value) -> Value:
        """``number op x``."""
        return self.elementwise(op, np.array(number, np.float32), x)

    def power(self, x: Value, exponent: float) -> Value:
        """``x`` to a constant."""
        if exponent == 1:
            return x
        if exponent in (2, 3):
            square = self.elementwise("mul", x, x)
            return square if exponent == 2 else self.elementwise("mul", square, x)
        if exponent in (0.5, -0.5):
            root = self.unary("sqrt", x)
            return root if exponent > 0 else self.reversed("div", 1.0, root)
        if exponent == -1:
            return self.reversed("div", 1.0, x)
        return self.scalar("power", x, exponent)

    def opposite(self, x: Value) -> Value:
        """``not x``, of zeros and ones."""
        return self.reversed("sub", 1.0, x)

    def where(self, condition: Value | Array, left: Value | Array, right: Value | Array) -> Value:
        """``left`` where the condition is not zero, else ``right``. Infinite constants become very large numbers."""
        branches = (
            np.clip(one, HIDDEN, -HIDDEN) if isinstance(one, np.ndarray) and one.dtype.kind == "f" else one
            for one in (left, right)
        )
        return self.elementwise("where", condition, *branches)

    def clip(self, x: Value, low: float | None, high: float | None) -> Value:
        """Not below ``low``, not above ``high``."""
        if low == 0 and high in (None, 6):
            return self.unary("relu" if high is None else "relu6", x)
        if low is not None and low > -3e38:
            x = self.scalar("maximum", x, low)
        return x if high is None or high > 3e38 else self.scalar("minimum", x, high)

    def leaky(self, x: Value, slope: Array) -> Value:
        """``x`` where it is above zero, and elsewhere ``slope * x``."""
        below = self.elementwise("mul", self.scalar("minimum", x, 0.0), slope)
        return self.elementwise("add", self.unary("relu", x), below)

    def elu(self, x: Value, alpha: float = 1.0, scale: float = 1.0, inner: float = 1.0) -> Value:
        """Clevert et al. 2016; ``scale`` times it, and with ``inner`` times ``x`` in the exponent (Barron 2017, CELU)."""
        low = self.scalar("minimum", x, 0.0)
        low = low if inner == 1 else self.scalar("mul", low, inner)
        below = self.scalar("sub", self.unary("exp", low), 1.0)
        whole = self.elementwise("add", self.unary("relu", x), self.scalar("mul", below, alpha))
        return whole if scale == 1 else self.scalar("mul", whole, scale)

    def mish(self, x: Value) -> Value:
        """Misra 2019."""
        return self.elementwise("mul", x, self.unary("tanh", self.softplus(x)))

    def softplus(self, x: Value) -> Value:
        """``log(1 + exp(x))``, from parts that do not overflow."""
        small = self.unary("exp", self.scalar("mul", self.unary("abs", x), -1.0))
        return self.elementwise("add", self.unary("relu", x), self.unary("log", self.scalar("add", small, 1.0)))

    # ---- products

    def linear(self, x: Value, weight: Array, bias: Array | None = None) -> Value:
        """``weight`` [outputs, inputs] on the last axis."""
        self._not_batch(x, {len(x.shape) - 1})
        rows = math.prod(x.shape[:-1])
        outputs, inputs = weight.shape
        if inputs != x.shape[-1]:
            raise ValueError(f"weights {weight.shape} on {x.shape}")
        before: Shape = (rows,) if rows > 1 else ()
        inner = (*before, outputs)
        if bias is not None and bias.ndim != 1:
            bias = bias.reshape(-1)
        name = self.emit("linear", [self.at(x, (*before, inputs))], inner, {"weight": weight, "bias": bias})
        return replace(x, name=name, shape=(*x.shape[:-1], outputs), inner=inner, integer=False)

    def matmul(self, left: Value | Array, right: Value | Array) -> Value:
        """Of matrices, of batches of them, and of a matrix and a vector."""
        if len(right.shape) == 1 and len(left.shape) > 1:
            column = self.unsqueeze(right, (1,)) if isinstance(right, Value) else right[:, None]
            product = self.matmul(left, column)
            return self.squeeze(product, (len(product.shape) - 1,))
        if isinstance(left, Value) and not isinstance(right, Value) and right.ndim == 2:
            turned = np.ascontiguousarray(right.T)
            if id(right) in self.names:
                self.name_constant(turned, self.names[id(right)])
            return self.linear(left, turned)
        if len(left.shape) < 2 or len(right.shape) < 2:
            raise ValueError("a product with a vector")
        for one, summed in ((left, -1), (right, -2)):
            if isinstance(one, Value):
                self._not_batch(one, {len(one.shape) + summed})
        batch = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
        full = (*batch, left.shape[-2], right.shape[-1])
        where = self._common_batch([one for one in (left, right) if isinstance(one, Value)], full)

        def lead(one: Value | Array) -> Shape:
            sizes = one.shape
            while len(sizes) > 2 and sizes[0] == 1:
                sizes = sizes[1:]
            return sizes

        a, b = lead(left), lead(right)
        inner = (*np.broadcast_shapes(a[:-2], b[:-2]), *full[-2:])
        return Value(self.emit("matmul", [self.at(left, a), self.at(right, b)], inner), full, inner, where)

    def along(self, x: Value, axis: int, matrix: Array) -> Value:
        """``matrix`` [outputs, inputs] times every vector that lies along an axis."""
        rank = len(x.shape)
        axis %= rank
        wide = (1,) * (rank - 2)
        if axis == rank - 1:
            return self.matmul(x, np.ascontiguousarray(matrix.T).reshape(*wide, *matrix.T.shape))
        if axis == rank - 2:
            return self.matmul(np.ascontiguousarray(matrix).reshape(*wide, *matrix.shape), x)
        order = [*(a for a in range(rank) if a != axis), axis]
        made = self.along(self.permute(x, order), rank - 1, matrix)
        return self.permute(made, [order.index(a) for a in range(rank)])

    def conv(self, x: Value, weight: Array, bias: Array | None, stride: Sequence[int], begin: Sequence[int],
             end: Sequence[int], dilation: Sequence[int], groups: int) -> Value:  # fmt: skip
        """A convolution over one or two axes; ``begin`` and ``end`` are the padding of each."""
        spatial = weight.ndim - 2
        if spatial not in (1, 2) or len(x.shape) != spatial + 2 or x.shape[0] != 1:
            raise ValueError(f"a convolution of {x.shape} with weights {weight.shape}")
        if spatial == 1:
            name = self.names.get(id(weight))
            weight = weight[:, :, None]
            if name is not None:
                self.name_constant(weight, name)
        extra = 2 - spatial
        stride, dilation = [*[1] * extra, *stride], [*[1] * extra, *dilation]
        begin, end = [*[0] * extra, *begin], [*[0] * extra, *end]
        here: Shape = (x.shape[1], *[1] * extra, *x.shape[2:])
        name = self.at(x, here)
        if begin != end:
            name, here = self._padded(name, here, [0, *begin], [0, *end], [0, 0, 0])
            begin = end = [0, 0]
        sizes = [
            (n + a + b - d * (k - 1) - 1) // s + 1
            for n, a, b, d, k, s in zip(here[1:], begin, end, dilation, weight.shape[2:], stride, strict=True)
        ]
        if min(sizes) < 1:
            raise ValueError("a window larger than its input")
        inner = (len(weight), *sizes)
        made = self.emit("conv2d", [name], inner, {"weight": weight, "bias": bias}, stride=[int(n) for n in stride],
                         padding=[int(n) for n in begin], dilation=[int(n) for n in dilation], groups=int(groups))  # fmt: skip
        return Value(made, (1, inner[0], *inner[1 + extra :]), inner, 0)

    def conv_transpose(self, x: Value, weight: Array, bias: Array | None, stride: Sequence[int], begin: Sequence[int],
                       end: Sequence[int], dilation: Sequence[int], groups: int) -> Value:  # fmt: skip
        """A convolution of the input with zeros between its elements; ``weight`` is [inputs, outputs / groups, ...]."""
        spatial = weight.ndim - 2
        if spatial not in (1, 2) or len(x.shape) != spatial + 2:
            raise ValueError(f"a transposed convolution of {x.shape}")
        inputs, outputs = weight.shape[:2]
        flipped = np.flip(weight, axis=tuple(range(2, weight.ndim)))
        turned = flipped.reshape(groups, inputs // groups, outputs, *weight.shape[2:]).swapaxes(1, 2)
        turned = np.ascontiguousarray(turned.reshape(groups * outputs, inputs // groups, *weight.shape[2:]))
        if id(weight) in self.names:
            self.name_constant(turned, self.names[id(weight)])
        spans = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        before = [span - pad for span, pad in zip(spans, begin, strict=True)]
        behind = [span - pad for span, pad in zip(spans, end, strict=True)]
        if min(before) < 0 or min(behind) < 0:
            raise ValueError("more padding than the window is wide")
        here = x.shape[1:]
        name, inner = self._padded(self.at(x, here), here, [0, *before], [0, *behind], [0, *(s - 1 for s in stride)])
        wide = Value(name, (1, *inner), inner, 0)
        none = [0] * spatial
        return self.conv(wide, turned, bias, [1] * spatial, none, none, dilation, groups)

    def _padded(self, name: str, inner: Shape, before: Sequence[int], behind: Sequence[int], between: Sequence[int],
                value: float = 0.0) -> tuple[str, Shape]:  # fmt: skip
        shape = tuple(b + n + (n - 1) * i + a for n, b, a, i in zip(inner, before, behind, between, strict=True))
        made = self.emit("pad", [name], shape, before=[int(n) for n in before], behind=[int(n) for n in behind],
                         between=[int(n) for n in between], value=float(value))  # fmt: skip
        return made, shape

    def pad(self, x: Value, before: Sequence[int], behind: Sequence[int], value: float = 0.0) -> Value:
        """Of each axis, with the batch; negative padding cuts."""
        for axis, (low, high) in enumerate(zip(before, behind, strict=True)):
            if low < 0 or high < 0:
                x = self.slice(x, axis, max(0, -low), x.shape[axis] - max(0, -high))
        before, behind = [max(0, n) for n in before], [max(0, n) for n in behind]
        if not any(before) and not any(behind):
            return x
        self._not_batch(x, {axis for axis, (a, b) in enumerate(zip(before, behind, strict=True)) if a or b})
        inner = strip(x.shape)
        skip = len(x.shape) - len(inner)
        name, shape = self._padded(self.at(x, inner), inner, before[skip:], behind[skip:], [0] * len(inner), value)
        return Value(name, (*x.shape[:skip], *shape), shape, x.batch)

    # ---- pools, norms, reductions

    def pool(self, kind: str, x: Value, kernel: Sequence[int], stride: Sequence[int], begin: Sequence[int],
             end: Sequence[int], count_padding: bool = True, ceil: bool = False) -> Value:  # fmt: skip
        """``kind`` is max_pool over one or two axes, or avg_pool over one to three."""
        if kind == "avg_pool" and (ceil or (list(begin) != list(end) and not count_padding) or len(kernel) == 3):
            return self._mean_within(x, kernel, stride, begin, end, count_padding, ceil)
        extra = 2 - len(kernel)
        if extra not in (0, 1) or len(x.shape) != len(kernel) + 2 or x.shape[0] != 1:
            raise ValueError(f"pooling of {x.shape} by {list(kernel)}")
        kernel, stride = [*[1] * extra, *kernel], [*[1] * extra, *stride]
        begin, end = [*[0] * extra, *begin], [*[0] * extra, *end]
        here: Shape = (x.shape[1], *[1] * extra, *x.shape[2:])
        if ceil:
            end = self._ceiled(here[1:], kernel, stride, begin, end)
        name = self.at(x, here)
        if begin != end:
            low = 0.0 if kind == "avg_pool" else -3e38
            name, here = self._padded(name, here, [0, *begin], [0, *end], [0, 0, 0], low)
            begin = end = [0, 0]
        sizes = [(n + 2 * p - k) // s + 1 for n, p, k, s in zip(here[1:], begin, kernel, stride, strict=True)]
        if min(sizes) < 1:
            raise ValueError("a window larger than its input")
        inner = (here[0], *sizes)
        made = self.emit(kind, [name], inner, kernel=[int(n) for n in kernel], stride=[int(n) for n in stride],
                         padding=[int(n) for n in begin], count_padding=bool(count_padding))  # fmt: skip
        return Value(made, (1, inner[0], *inner[1 + extra :]), inner, 0)

    def _mean_within(
        self, x: Value, kernel: Any, stride: Any, begin: Any, end: Any, padding: bool, ceil: bool
    ) -> Value:
        """Means over windows that reach beyond what counts, which is the input, with its padding or without."""
        ends = self._ceiled(x.shape[2:], kernel, stride, begin, end) if ceil else end
        matrices = []
        for n, k, s, a, b, whole in zip(x.shape[2:], kernel, stride, begin, end, ends, strict=True):
            low, high = (0, a + n + b) if padding else (a, a + n)
            rows = [np.zeros(a + n + whole, np.float32) for _ in range(0, a + n + whole - k + 1, s)]
            for index, row in enumerate(rows):
                first, last = max(index * s, low), min(index * s + k, high)
                row[first:last] = 1 / max(1, last - first)
            if not rows:
                raise ValueError("a window larger than its input")
            matrices.append(np.array(rows)[:, a : a + n])
        return self.resized(x, matrices)

    def _ceiled(self, size: Shape, kernel: Any, stride: Any, begin: Any, end: Any) -> list[int]:
        """The padding behind with which the last window is whole."""
        out = []
        for n, k, s, a, b in zip(size, kernel, stride, begin, end, strict=True):
            count = -(-(n + a + b - k) // s) + 1
            if (count - 1) * s >= n + a:  # a window that would begin in the padding behind is left out
                count -= 1
            out.append(max(b, (count - 1) * s + k - n - a))
        return out

    def adaptive_pool(self, kind: str, x: Value, sizes: Sequence[int | None]) -> Value:
        """Pools to a given size; maxima to one that divides the input's."""
        spatial = x.shape[2:]
        targets = [n if s is None else int(s) for s, n in zip(sizes, spatial, strict=True)]
        if any(n % s for n, s in zip(spatial, targets, strict=True)):
            if kind == "avg_pool":
                return self.resized(x, [_windows(n, s) for n, s in zip(spatial, targets, strict=True)])
            raise ValueError(f"windows of different sizes, from {spatial} to {tuple(targets)}")
        kernel = [n // s for n, s in zip(spatial, targets, strict=True)]
        none = [0] * len(kernel)
        return self.pool(kind, x, kernel, kernel, none, none)

    def batch_norm(self, x: Value, scale: Array, shift: Array) -> Value:
        """A scale and a shift for each channel (axis 1)."""
        rest = x.shape[2:]
        if x.shape[0] != 1 or len(rest) > 2:
            raise ValueError(f"batch norm of {x.shape}")
        inner = (x.shape[1], *[1] * (2 - len(rest)), *rest) if rest else (x.shape[1],)
        name = self.emit("affine", [self.at(x, inner)], inner, {"scale": scale, "shift": shift})
        return replace(x, name=name, inner=inner, integer=False)

    def norm(self, op: str, x: Value, axes: int, scale: Array | None, shift: Array | None, epsilon: float) -> Value:
        """layer_norm or rms_norm over the last ``axes`` axes."""
        self._not_batch(x, range(len(x.shape) - axes, len(x.shape)))
        size = math.prod(x.shape[len(x.shape) - axes :])
        rows = math.prod(x.shape) // size
        inner = (rows, size) if rows > 1 else (size,)
        weights = {"scale": np.ones(size, np.float32) if scale is None else scale.reshape(-1)}
        if op == "layer_norm":
            weights["shift"] = np.zeros(size, np.float32) if shift is None else shift.reshape(-1)
        elif shift is not None:
            raise ValueError("a shift")
        name = self.emit(op, [self.at(x, inner)], inner, weights, epsilon=float(epsilon))
        return replace(x, name=name, inner=inner, integer=False)

    def group_norm(self, x: Value, groups: int, scale: Array | None, shift: Array | None, epsilon: float) -> Value:
        """Over groups of channels (axis 1)."""
        inner = x.shape[1:]
        if x.shape[0] != 1 or not inner:
            raise ValueError(f"group norm of {x.shape}")
        channels = inner[0]
        weights = {
            "scale": np.ones(channels, np.float32) if scale is None else scale,
            "shift": np.zeros(channels, np.float32) if shift is None else shift,
        }
        name = self.emit("group_norm", [self.at(x, inner)], inner, weights, groups=int(groups), epsilon=float(epsilon))
        return replace(x, name=name, inner=inner, integer=False)

    def softmax(self, x: Value, axis: int) -> Value:
        """Along one axis."""
        axis %= len(x.shape)
        self._not_batch(x, {axis})
        inner = strip(x.shape)
        place = axis - (len(x.shape) - len(inner))
        name = self.emit("softmax", [self.at(x, inner)], inner, axis=place)
        return replace(x, name=name, inner=inner, integer=False)

    def log_softmax(self, x: Value, axis: int) -> Value:
        """Along one axis."""
        low = self.elementwise("sub", x, self.reduce("max", x, [axis], True))
        return self.elementwise("sub", low, self.unary("log", self.reduce("sum", self.unary("exp", low), [axis], True)))

    def logsumexp(self, x: Value, axes: Sequence[int], keep: bool) -> Value:
        """``log(sum(exp(x)))``, from parts that do not overflow."""
        largest = self.reduce("max", x, axes, True)
        total = self.reduce("sum", self.unary("exp", self.elementwise("sub", x, largest)), axes, True)
        found = self.elementwise("add", self.unary("log", total), largest)
        return found if keep else self.squeeze(found, axes)

    def norm_of(self, x: Value, order: float, axes: Sequence[int], keep: bool) -> Value:
        """The length of the vectors that lie along ``axes``: of order 1, 2 or infinity."""
        if order == 2:
            return self.unary("sqrt", self.reduce("sum", self.elementwise("mul", x, x), axes, keep))
        if order not in (1, math.inf):
            raise ValueError(f"a norm of order {order}")
        return self.reduce("sum" if order == 1 else "max", self.unary("abs", x), axes, keep)

    def variance(self, x: Value, axes: Sequence[int], correction: float, keep: bool) -> Value:
        """The mean square of what is left without the mean; ``correction`` is what is taken off the count."""
        count = math.prod(x.shape[axis] for axis in axes)
        centred = self.elementwise("sub", x, self.reduce("mean", x, axes, True))
        total = self.reduce("sum", self.elementwise("mul", centred, centred), axes, keep)
        return self.scalar("div", total, count - correction)

    def reduce(self, function: str, x: Value, axes: Sequence[int], keep: bool) -> Value:
        """``function`` is sum, mean, max or min."""
        if function == "min":
            return self.scalar("mul", self.reduce("max", self.scalar("mul", x, -1.0), axes, keep), -1.0)
        over = sorted({axis % len(x.shape) for axis in axes})
        self._not_batch(x, over)
        if function == "mean" and len(x.shape) == 4 and over == [2, 3] and x.shape[0] == 1:
            pooled = self.adaptive_pool("avg_pool", x, (1, 1))
            return pooled if keep else self.squeeze(pooled, (2, 3))
        inner = strip(x.shape)
        skip = len(x.shape) - len(inner)
        if skip and 0 in over:
            over.remove(0)
        kept = tuple(1 if axis in over else n for axis, n in enumerate(x.shape))
        result = tuple(kept[skip:])
        if over:
            name = self.emit("reduce", [self.at(x, inner)], result, axes=[a - skip for a in over], function=function)
            x = Value(name, kept, result, x.batch)
        return x if keep else self.squeeze(x, over)

    # ---- parts

    def slice(self, x: Value, axis: int, begin: int, end: int, step: int = 1) -> Value:
        """From ``begin`` to before ``end``; negative ones count from the end."""
        axis %= len(x.shape)
        size = x.shape[axis]
        begin, end, step = slice(begin, end, step).indices(size)
        if step < 1:
            raise ValueError("backward steps")
        if (begin, end, step) == (0, size, 1):
            return x
        self._not_batch(x, {axis})
        if end <= begin:
            raise ValueError("an empty slice")
        inner = strip(x.shape)
        skip = len(x.shape) - len(inner)
        out = -(-(end - begin) // step)
        shape = tuple(out if index == axis else n for index, n in enumerate(x.shape))
        result = shape[skip:]
        name = self.emit("slice", [self.at(x, inner)], result, axis=axis - skip, begin=begin, end=end, step=step)
        return Value(name, shape, result, x.batch)

    def select(self, x: Value, axis: int, index: int) -> Value:
        """One place of an axis, which goes."""
        axis %= len(x.shape)
        index %= x.shape[axis]
        return self.squeeze(self.slice(x, axis, index, index + 1), (axis,))

    def split(self, x: Value, sizes: Sequence[int], axis: int) -> list[Value]:
        """Parts of these sizes."""
        parts, begin = [], 0
        for size in sizes:
            parts.append(self.slice(x, axis, begin, begin + size))
            begin += size
        return parts

    def take(self, x: Value, axis: int, places: Array) -> Value:
        """These places of an axis, in this order."""
        size = x.shape[axis]
        listed = [int(n) % size for n in places]
        if not listed:
            raise ValueError("no places")
        if listed == list(range(size)):
            return x
        parts: list[tuple[int, int]] = []  # neighbours together
        for place in listed:
            if parts and parts[-1][1] == place:
                parts[-1] = parts[-1][0], place + 1
            else:
                parts.append((place, place + 1))
        if len(parts) > _MOST_PLACES:
            raise ValueError("too many places")
        return self.concat([self.slice(x, axis, begin, end) for begin, end in parts], axis)

    def padded(self, x: Value, before: Sequence[int], behind: Sequence[int], mode: str) -> Value:
        """Each axis continued by its own elements: ``mode`` is that of ``np.pad`` (reflect, edge, wrap)."""
        for axis, (low, high) in enumerate(zip(before, behind, strict=True)):
            if low or high:
                x = self.take(x, axis, np.pad(np.arange(x.shape[axis]), (low, high), mode))  # type: ignore[call-overload]
        return x

    def depth_to_space(self, x: Value, factor: int, depth_first: bool = False) -> Value:
        """Channels become rows and columns; ``depth_first``: which channel it is varies slowest."""
        _, channels, rows, cols = x.shape
        inner = channels // factor**2
        shape, axes = (1, inner, factor, factor, rows, cols), (0, 1, 4, 2, 5, 3)
        if depth_first:
            shape, axes = (1, factor, factor, inner, rows, cols), (0, 3, 4, 1, 5, 2)
        return self.reshape(self.permute(self.reshape(x, shape), axes), (1, inner, rows * factor, cols * factor))

    def concat(self, given: Sequence[Value | Array], axis: int) -> Value:
        """One behind the other."""
        given = [one for one in given if math.prod(one.shape)]
        if len(given) == 1 and isinstance(given[0], Value):
            return given[0]
        rank = len(given[0].shape)
        axis %= rank
        values = [one for one in given if isinstance(one, Value)]
        for one in values:
            self._not_batch(one, {axis})
        full = tuple(sum(g.shape[axis] for g in given) if a == axis else n for a, n in enumerate(given[0].shape))
        batch = self._common_batch(values, full)
        skip = rank - len(strip(full))
        names = [self.at(one, tuple(one.shape[skip:])) for one in given]
        inner = full[skip:]
        return Value(self.emit("concat", names, inner, axis=axis - skip), full, inner, batch)

    def expand(self, x: Value, shape: Sequence[int]) -> Value:
        """As if axes of size 1 were repeated; -1 keeps a size."""
        rank = len(shape)
        padded = (1,) * (rank - len(x.shape)) + x.shape
        full = tuple(a if b == -1 else int(b) for a, b in zip(padded, shape, strict=True))
        batch = None if x.batch is None else x.batch + rank - len(x.shape)
        if full == padded:
            return replace(x, shape=full, batch=batch)
        if batch is not None and full[batch] != 1:
            raise ValueError("a batch that is repeated")
        inner = strip(full)
        skip = len(full) - len(inner)
        name = self.emit("expand", [self.at(x, padded[skip:])], inner, shape=list(inner))
        return Value(name, full, inner, batch)

    def upsample(self, x: Value, factors: Sequence[int]) -> Value:
        """Each element repeated, over one or two axes."""
        extra = 2 - len(factors)
        if extra not in (0, 1) or len(x.shape) != len(factors) + 2 or x.shape[0] != 1:
            raise ValueError(f"upsampling of {x.shape}")
        here = (x.shape[1], *[1] * extra, *x.shape[2:])
        high, wide = [*[1] * extra, *(int(f) for f in factors)]
        inner = (here[0], here[1] * high, here[2] * wide)
        name = self.emit("upsample", [self.at(x, here)], inner, factors=[high, wide])
        return Value(name, (1, inner[0], *inner[1 + extra :]), inner, 0)

    def resized(self, x: Value, matrices: Sequence[Array]) -> Value:
        """The last axes, each one multiplied by its matrix [outputs, inputs]: any interpolation that is separable."""
        for axis, matrix in enumerate(matrices, len(x.shape) - len(matrices)):
            if matrix.shape[0] != matrix.shape[1] or (matrix != np.eye(len(matrix))).any():
                x = self.along(x, axis, matrix)
        return x

    def nearest(self, x: Value, places: Sequence[Array]) -> Value:
        """Of each of the last axes the elements at these places, which is cheap where each is only repeated."""
        first = len(x.shape) - len(places)
        factors = [len(one) // n for one, n in zip(places, x.shape[first:], strict=True)]
        if all(np.array_equal(one, np.arange(len(one)) // max(1, f)) for one, f in zip(places, factors, strict=True)):
            return self.upsample(x, factors)
        for axis, one in enumerate(places, first):
            x = self.take(x, axis, one)
        return x

    # ---- sequences

    def embedding(self, table: Array, tokens: Value) -> Value:
        """Rows of ``table`` [entries, features]."""
        if not isinstance(table, np.ndarray) or table.ndim != 2:
            raise ValueError("a table that is computed")
        if not tokens.integer or len(tokens.inner) != 1:
            return self._looked_up(table, tokens)
        inner = (tokens.inner[0], table.shape[1])
        name = self.emit("embedding", [tokens.name], inner, {"table": table})
        return Value(name, (*tokens.shape, table.shape[1]), inner, tokens.batch)

    def one_hot(self, places: Value, count: int) -> Value:
        """Of each place, zeros and a one, ``[..., count]``."""
        return self.elementwise("equal", self.unsqueeze(places, (-1,)), np.arange(count, dtype=np.float32))

    def _looked_up(self, table: Array, places: Value) -> Value:
        """At places that are computed, or that are a part of an input. Not a number where there is no such row."""
        if len(table) > _MOST_ENTRIES:
            raise ValueError(
                f"a table of {len(table):,} rows is read at places that are computed, or a part of an input; more than "
                f"{_MOST_ENTRIES:,} need an input of their own"
            )
        hot = self.one_hot(places, len(table))
        found = self.linear(hot, np.ascontiguousarray(table.T))
        return self.elementwise("div", found, self.reduce("sum", hot, [len(hot.shape) - 1], True))

    def attention(self, query: Value, key: Value | Array, value: Value | Array, mask: Value | Array | None, causal: bool,
                  scale: float) -> Value:  # fmt: skip
        """Of [batch, heads, tokens, width]; ``mask`` is added to the scores and has up to four axes."""
        if any(len(one.shape) != 4 or one.shape[0] != 1 for one in (query, key, value)):
            return self._attention_by_products(query, key, value, mask, causal, scale)
        names = []
        for one in (query, key, value):
            _, heads, tokens, width = one.shape
            turned = self.permute(one, (0, 2, 1, 3)) if isinstance(one, Value) else one.transpose(0, 2, 1, 3)
            names.append(self.at(turned, (tokens, heads * width)))
        if mask is not None:
            full = (1,) * (4 - len(mask.shape)) + mask.shape
            if full[0] != 1:
                raise ValueError("a mask for another batch")
            names.append(self.at(mask, full[1:]))
        heads, tokens, width = query.shape[1], query.shape[2], value.shape[3]
        inner = (tokens, heads * width)
        attributes: dict[str, Any] = {"heads": heads, "causal": bool(causal), "scale": float(scale)}
        if key.shape[1] != heads:
            attributes["shared_heads"] = key.shape[1]
        made = Value(self.emit("attention", names, inner, **attributes), (1, tokens, heads, width), inner, 0)
        return self.permute(made, (0, 2, 1, 3))

    def _attention_by_products(
        self, query: Value, key: Any, value: Any, mask: Any, causal: bool, scale: float
    ) -> Value:
        """For any axes before tokens and width."""
        if not isinstance(key, Value) or not isinstance(value, Value):
            raise ValueError("keys or values that are constants")
        axes = [*range(len(key.shape) - 2), len(key.shape) - 1, len(key.shape) - 2]
        scores = self.scalar("mul", self.matmul(query, self.permute(key, axes)), scale)
        if causal:
            mask = np.where(np.tri(query.shape[-2], key.shape[-2], dtype=bool), 0, HIDDEN).astype(np.float32)
        if mask is not None:
            scores = self.elementwise("add", scores, mask)
        return self.matmul(self.softmax(scores, -1), value)


def _windows(size: int, count: int) -> Array:
    """Means over ``count`` windows that cover ``size``, as PyTorch's adaptive pools divide it: [count, size]."""
    rows = np.zeros((count, size), np.float32)
    for index, row in enumerate(rows):
        begin, end = index * size // count, -(-(index + 1) * size // count)
        row[begin:end] = 1 / (end - begin)
    return rows
