"""Operators of ONNX that reduce arrays, or give their elements in another shape or order."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ticketsmith.runtime.builder import arrays, pointwise, products, reductions
from ticketsmith.runtime.builder.core import Builder, Value
from ticketsmith.runtime.graph import MOST_ELEMENTS
from ticketsmith.runtime.onnx.call import Call


def _reshape(call: Call) -> Value:
    sizes = call.numbers(1, "shape") or []
    if not call.get("allowzero", 0):
        sizes = [call.x.shape[axis] if n == 0 else n for axis, n in enumerate(sizes)]
    return arrays.reshape(call.b, call.x, sizes)


def _flatten(call: Call) -> Value:
    axis = call.get("axis", 1)
    axis = axis + len(call.x.shape) if axis < 0 else axis
    return arrays.reshape(call.b, call.x, (math.prod(call.x.shape[:axis]), math.prod(call.x.shape[axis:])))


def _squeeze(call: Call) -> Value:
    axes = call.numbers(1, "axes")
    if axes is None:
        raise ValueError("without axes, the batch may go too")
    return arrays.squeeze(call.b, call.x, axes)


def _split(call: Call) -> list[Value]:
    axis, sizes = call.get("axis", 0), call.numbers(1, "split")
    whole = call.x.shape[axis]
    if sizes is None:
        part = -(-whole // (call.get("num_outputs") or call.outputs))
        sizes = [min(part, whole - begin) for begin in range(0, whole, part)]
    return arrays.split(call.b, call.x, sizes, axis)


def _slice(call: Call) -> Value:
    x = call.x
    starts, ends = call.numbers(1, "starts") or [], call.numbers(2, "ends") or []
    axes = call.numbers(3, "axes") or list(range(len(starts)))
    steps = call.numbers(4, "steps") or [1] * len(starts)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if step < 0:
            x = arrays.take(call.b, x, axis, np.arange(x.shape[axis])[start:end:step])
        else:
            x = arrays.part(call.b, x, axis, start, end, step)
    return x


def _pad(call: Call) -> Value:
    rank, pads, filler = len(call.x.shape), call.numbers(1, "pads") or [], call.constant(2)
    mode = call.get("mode", "constant")
    value = call.get("value", 0.0) if filler is None or not filler.size else float(filler.reshape(-1)[0])
    axes = call.numbers(3, "axes")
    before, behind = [0] * rank, [0] * rank
    listed = list(range(rank)) if axes is None else [axis % rank for axis in axes]
    for place, axis in enumerate(listed):
        before[axis], behind[axis] = pads[place], pads[place + len(listed)]
    if mode in ("reflect", "edge", "wrap"):
        return arrays.extend(call.b, call.x, before, behind, mode)
    if mode != "constant":
        raise ValueError(f"padding by {mode}")
    return arrays.pad(call.b, call.x, before, behind, value)


def _tile(call: Call) -> Value:
    x, repeats = call.x, call.numbers(1, "repeats") or []
    if math.prod((*x.shape, *repeats)) > MOST_ELEMENTS or max(repeats, default=1) > MOST_ELEMENTS:
        raise ValueError("its result is too large")
    return arrays.tile(call.b, x, repeats)


def _reduce(function: str) -> Callable[[Call], Value]:
    def translate(call: Call) -> Value:
        axes = call.numbers(1, "axes")
        if not axes:
            if call.get("noop_with_empty_axes", 0):
                return call.x
            axes = list(range(len(call.x.shape)))
        return reductions.reduce(call.b, function, call.x, axes, bool(call.get("keepdims", 1)))

    return translate


def _space_to_depth(call: Call) -> Value:
    b, size = call.b, call.get("blocksize")
    _, channels, rows, cols = call.x.shape
    parts = arrays.reshape(b, call.x, (1, channels, rows // size, size, cols // size, size))
    return arrays.reshape(
        b, arrays.permute(b, parts, (0, 3, 5, 1, 2, 4)), (1, channels * size**2, rows // size, cols // size)
    )


def _cumulative(call: Call) -> Value:
    axis = int(np.asarray(call.constant(1)).reshape(-1)[0])
    size = call.x.shape[axis]
    matrix = np.tri(size, k=-1 if call.get("exclusive", 0) else 0, dtype=np.float32)
    return products.along(call.b, call.x, axis, matrix.T if call.get("reverse", 0) else matrix)


def _over(function: Callable[[Builder, Value, list[int], bool], Value]) -> Callable[[Call], Value]:
    """A reduction that is made of others."""

    def translate(call: Call) -> Value:
        axes = call.numbers(1, "axes")
        if not axes and call.get("noop_with_empty_axes", 0):
            raise ValueError("no axes")
        axes = axes or list(range(len(call.x.shape)))
        return function(call.b, call.x, axes, bool(call.get("keepdims", 1)))

    return translate


ARRAYS: dict[str, Callable[[Call], Any]] = {
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Transpose": lambda call: arrays.permute(call.b, call.x, call.get("perm") or range(len(call.x.shape))[::-1]),
    "Squeeze": _squeeze,
    "Unsqueeze": lambda call: arrays.unsqueeze(call.b, call.x, call.numbers(1, "axes") or []),
    "Concat": lambda call: arrays.concat(call.b, call.inputs, call.get("axis", 0)),
    "Split": _split,
    "Slice": _slice,
    "Pad": _pad,
    "Expand": lambda call: arrays.expand(
        call.b, call.x, np.broadcast_shapes(call.x.shape, tuple(call.numbers(1, "shape") or []))
    ),
    "Tile": _tile,
    **{f"Reduce{name.capitalize()}": _reduce(name) for name in ("mean", "sum", "max", "min")},
    "ReduceL1": _over(lambda b, x, axes, keep: reductions.vector_norm(b, x, 1, axes, keep)),
    "ReduceL2": _over(lambda b, x, axes, keep: reductions.vector_norm(b, x, 2, axes, keep)),
    "ReduceSumSquare": _over(
        lambda b, x, axes, keep: reductions.reduce(b, "sum", pointwise.apply(b, "mul", x, x), axes, keep)
    ),
    "ReduceLogSumExp": _over(reductions.logsumexp),
    "CumSum": _cumulative,
    "DepthToSpace": lambda call: arrays.depth_to_space(
        call.b, call.x, call.get("blocksize"), call.get("mode", "DCR") == "DCR"
    ),
    "SpaceToDepth": _space_to_depth,
    "Shape": lambda call: np.array(call.x.shape[call.get("start", 0) : call.get("end")], np.int64),
    "Size": lambda call: np.array(math.prod(call.x.shape), np.int64),
    "Identity": lambda call: call.input(0),
}
