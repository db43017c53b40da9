"""Products with weights, and of two values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ticketsmith.runtime.builder import arrays
from ticketsmith.runtime.builder.core import Array, Builder, Value, check_axes, common_batch
from ticketsmith.runtime.graph import Shape


def linear(b: Builder, x: Value, weight: Array, bias: Array | None = None) -> Value:
    """``weight`` [outputs, inputs] on the last axis."""
    check_axes(x, {len(x.shape) - 1})
    rows = math.prod(x.shape[:-1])
    outputs, inputs = weight.shape
    if inputs != x.shape[-1]:
        raise ValueError(f"weights {weight.shape} on {x.shape}")
    before: Shape = (rows,) if rows > 1 else ()
    inner = (*before, outputs)
    if bias is not None and bias.ndim != 1:
        bias = bias.reshape(-1)
    name = b.emit("linear", [b.at(x, (*before, inputs))], inner, {"weight": weight, "bias": bias})
    return replace(x, name=name, shape=(*x.shape[:-1], outputs), inner=inner, integer=False)


def transpose(b: Builder, weight: Array) -> Array:
    """``weight`` [inputs, outputs] as [outputs, inputs]."""
    return b.keep_name(np.ascontiguousarray(weight.T), weight)


def matmul(b: Builder, left: Value | Array, right: Value | Array) -> Value:
    """Of matrices, of batches of them, and of a matrix and a vector."""
    if len(right.shape) == 1 and len(left.shape) > 1:
        column = arrays.unsqueeze(right, (1,)) if isinstance(right, Value) else right[:, None]
        product = matmul(b, left, column)
        return arrays.squeeze(product, (len(product.shape) - 1,))
    if isinstance(left, Value) and not isinstance(right, Value) and right.ndim == 2:
        return linear(b, left, transpose(b, right))
    if len(left.shape) < 2 or len(right.shape) < 2:
        raise ValueError("a product with a vector")
    for one, summed in ((left, -1), (right, -2)):
        if isinstance(one, Value):
            check_axes(one, {len(one.shape) + summed})
    batch = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    full = (*batch, left.shape[-2], right.shape[-1])
    where = common_batch([one for one in (left, right) if isinstance(one, Value)], full)

    def lead(one: Value | Array) -> Shape:
        sizes = one.shape
        while len(sizes) > 2 and sizes[0] == 1:
            sizes = sizes[1:]
        return sizes

    sizes = lead(left), lead(right)
    inner = (*np.broadcast_shapes(*(size[:-2] for size in sizes)), *full[-2:])
    names = [b.at(one, size) for one, size in zip((left, right), sizes, strict=True)]
    return Value(b.emit("matmul", names, inner), full, inner, where)


def along(b: Builder, x: Value, axis: int, matrix: Array) -> Value:
    """``matrix`` [outputs, inputs] times every vector that lies along an axis."""
    rank = len(x.shape)
    axis %= rank
    wide = (1,) * (rank - 2)
    if axis == rank - 1:
        return matmul(b, x, np.ascontiguousarray(matrix.T).reshape(*wide, *matrix.T.shape))
    if axis == rank - 2:
        return matmul(b, np.ascontiguousarray(matrix).reshape(*wide, *matrix.shape), x)
    order = [*(a for a in range(rank) if a != axis), axis]
    output = along(b, arrays.permute(b, x, order), rank - 1, matrix)
    return arrays.permute(b, output, [order.index(a) for a in range(rank)])


def conv(b: Builder, x: Value, weight: Array, bias: Array | None, stride: Sequence[int], begin: Sequence[int],
         end: Sequence[int], dilation: Sequence[int], groups: int) -> Value:  # fmt: skip
    """A convolution over one or two axes; ``begin`` and ``end`` are the padding of each."""
    spatial = weight.ndim - 2
    if spatial not in (1, 2) or len(x.shape) != spatial + 2 or x.shape[0] != 1:
        raise ValueError(f"a convolution of {x.shape} with weights {weight.shape}")
    if spatial == 1:
        weight = b.keep_name(weight[:, :, None], weight)
    extra = 2 - spatial
    stride, dilation = [*[1] * extra, *stride], [*[1] * extra, *dilation]
    begin, end = [*[0] * extra, *begin], [*[0] * extra, *end]
    here: Shape = (x.shape[1], *[1] * extra, *x.shape[2:])
    name = b.at(x, here)
    if begin != end:
        name, here = arrays.surround(b, name, here, [0, *begin], [0, *end], [0, 0, 0])
        begin = end = [0, 0]
    sizes = [
        (n + before + behind - d * (k - 1) - 1) // s + 1
        for n, before, behind, d, k, s in zip(here[1:], begin, end, dilation, weight.shape[2:], stride, strict=True)
    ]
    if min(sizes) < 1:
        raise ValueError("a window larger than its input")
    inner = (len(weight), *sizes)
    output = b.emit("conv2d", [name], inner, {"weight": weight, "bias": bias}, stride=[int(n) for n in stride],
                     padding=[int(n) for n in begin], dilation=[int(n) for n in dilation], groups=int(groups))  # fmt: skip
    return Value(output, (1, inner[0], *inner[1 + extra :]), inner, 0)


def conv_transpose(b: Builder, x: Value, weight: Array, bias: Array | None, stride: Sequence[int], begin: Sequence[int],
                   end: Sequence[int], dilation: Sequence[int], groups: int) -> Value:  # fmt: skip
    """A convolution of the input with zeros between its elements; ``weight`` is [inputs, outputs / groups, ...]."""
    spatial = weight.ndim - 2
    if spatial not in (1, 2) or len(x.shape) != spatial + 2:
        raise ValueError(f"a transposed convolution of {x.shape}")
    inputs, outputs = weight.shape[:2]
    flipped = np.flip(weight, axis=tuple(range(2, weight.ndim)))
    turned = flipped.reshape(groups, inputs // groups, outputs, *weight.shape[2:]).swapaxes(1, 2)
    turned = turned.reshape(groups * outputs, inputs // groups, *weight.shape[2:])
    turned = b.keep_name(np.ascontiguousarray(turned), weight)
    spans = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
    before = [span - pad for span, pad in zip(spans, begin, strict=True)]
    behind = [span - pad for span, pad in zip(spans, end, strict=True)]
    if min(before) < 0 or min(behind) < 0:
        raise ValueError("more padding than the window is wide")
    here = x.shape[1:]
    name, inner = arrays.surround(b, b.at(x, here), here, [0, *before], [0, *behind], [0, *(s - 1 for s in stride)])
    wide = Value(name, (1, *inner), inner, 0)
    none = [0] * spatial
    return conv(b, wide, turned, bias, [1] * spatial, none, none, dilation, groups)
