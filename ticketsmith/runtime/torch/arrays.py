"""Operators of PyTorch that reduce arrays, or give their elements in another shape or order."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from ticketsmith.runtime.builder import arrays, pointwise, products, reductions
from ticketsmith.runtime.builder.core import Builder, Value


def _listed(value: Any) -> list[int]:
    return [value] if isinstance(value, int) else list(value)


def _axes(x: Value, dims: Any) -> list[int]:
    return list(range(len(x.shape))) if dims is None or dims == [] else _listed(dims)


def _reduce(function: str, b: Builder, x: Value, dims: Any = None, keepdim: bool = False, dtype: Any = None) -> Value:
    return reductions.reduce(b, function, _of_floats(x, dtype), _axes(x, dims), keepdim)


def _extreme(function: str, b: Builder, x: Any, other: Any = None, keepdim: bool = False) -> Any:
    """``torch.max`` and ``torch.min``: of two values, over everything, or over an axis and then with places."""
    if isinstance(other, int):
        return [reductions.reduce(b, function, x, [other], keepdim), None]  # where it lies is not known
    if other is None:
        return reductions.reduce(b, function, x, _axes(x, None), False)
    return pointwise.apply(b, f"{function}imum", x, other)


def _of_floats(x: Value, dtype: Any) -> Value:
    """``x``, which an operator takes as ``dtype`` first."""
    if dtype is not None and not dtype.is_floating_point and not (x.integer or x.boolean):
        raise ValueError(f"rounding to {dtype}")
    return x


def _vector_norm(b: Builder, x: Value, order: float = 2, dims: Any = None, keepdim: bool = False, dtype: Any = None
                 ) -> Value:  # fmt: skip
    return reductions.vector_norm(b, _of_floats(x, dtype), order, _axes(x, dims), keepdim)


def _variance(b: Builder, x: Value, dims: Any = None, correction: float | None = 1, keepdim: bool = False) -> Value:
    return reductions.variance(b, x, _axes(x, dims), 1 if correction is None else correction, keepdim)


def _variance_and_mean(b: Builder, x: Value, dims: Any = None, **named: Any) -> list[Value]:
    mean = reductions.reduce(b, "mean", x, _axes(x, dims), named.get("keepdim", False))
    return [_variance(b, x, dims, **named), mean]


def _flatten(b: Builder, x: Value, start: int = 0, end: int = -1) -> Value:
    rank = len(x.shape)
    start, end = start % rank, end % rank
    return arrays.reshape(x, (*x.shape[:start], math.prod(x.shape[start : end + 1]), *x.shape[end + 1 :]))


def _transpose(b: Builder, x: Value, first: int, second: int) -> Value:
    axes = list(range(len(x.shape)))
    axes[first], axes[second] = axes[second], axes[first]
    return arrays.permute(b, x, axes)


def _squeeze(b: Builder, x: Value, dims: Any = None) -> Value:
    if dims is None:
        raise ValueError("without axes, the batch may go too")
    return arrays.squeeze(x, _listed(dims))


def _unflatten(b: Builder, x: Value, dim: int, sizes: Any) -> Value:
    return arrays.reshape(x, (*x.shape[:dim], *sizes, *x.shape[dim:][1:]))


def _repeat_interleave(b: Builder, x: Value, count: Any, dim: int | None = None, **_: Any) -> Value:
    if not isinstance(count, int) or dim is None:
        raise ValueError("different counts")
    dim %= len(x.shape)
    wide = arrays.expand(b, arrays.unsqueeze(x, (dim + 1,)), (*x.shape[: dim + 1], count, *x.shape[dim + 1 :]))
    return arrays.reshape(wide, (*x.shape[:dim], count * x.shape[dim], *x.shape[dim + 1 :]))


def _slice(b: Builder, x: Value, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Value:
    size = x.shape[dim]
    return arrays.part(b, x, dim, 0 if start is None else start, size if end is None else min(end, size), step)


def _stack(b: Builder, parts: list[Any], dim: int = 0) -> Value:
    return arrays.concat(b, [_with_axis(one, dim) for one in parts], dim)


def _with_axis(x: Any, dim: int) -> Any:
    return arrays.unsqueeze(x, (dim,)) if isinstance(x, Value) else np.expand_dims(x, dim)


def _index(b: Builder, x: Value, indices: list[Any]) -> Value:
    used = [axis for axis, one in enumerate(indices) if one is not None]
    places = [indices[axis] for axis in used]
    if not all(isinstance(one, np.ndarray) for one in places):
        raise ValueError("places that are computed")
    if used == list(range(len(x.shape))) and all(one.dtype != np.bool_ for one in places):
        return _repeated(b, x, places)
    # of several axes: rows [r, 1] and columns [1, c] are each picked alone
    rank = max(one.ndim for one in places)
    apart = all(one.size == one.shape[place - rank] for place, one in enumerate(places) if one.ndim == rank)
    apart = apart and all(one.ndim >= rank - n for n, one in enumerate(places))
    if not apart or used != list(range(used[0], used[0] + rank)):
        raise ValueError("places of several axes")
    for axis, one in zip(used, places, strict=True):
        x = arrays.take(b, x, axis, one.reshape(-1))
    return x


def _repeated(b: Builder, x: Value, indices: list[Any]) -> Value:
    """``x[i, j, ...]`` that gives all of ``x``, once or several times."""
    places = np.ravel_multi_index(np.broadcast_arrays(*indices), x.shape, mode="wrap")
    size = math.prod(x.shape)
    shape, rank = places.shape, places.ndim
    while rank and math.prod(shape[rank:]) < size:
        rank -= 1
    if math.prod(shape[rank:]) != size or (places.reshape(-1, size) != np.arange(size)).any():
        raise ValueError("places of several axes")
    return arrays.expand(b, arrays.reshape(x, (1,) * rank + shape[rank:]), shape)


def _flip(b: Builder, x: Value, dims: Any) -> Value:
    for dim in dims:
        x = arrays.take(b, x, dim, np.arange(x.shape[dim])[::-1])
    return x


def _unfold(b: Builder, x: Value, dim: int, size: int, step: int) -> Value:
    dim %= len(x.shape)
    starts = np.arange(0, x.shape[dim] - size + 1, step)
    pieces = arrays.take(b, x, dim, (starts[:, None] + np.arange(size)).reshape(-1))
    apart = arrays.reshape(pieces, (*x.shape[:dim], len(starts), size, *x.shape[dim + 1 :]))
    rest = [axis for axis in range(len(apart.shape)) if axis != dim + 1]
    return arrays.permute(b, apart, [*rest, dim + 1])


def _copy(b: Builder, x: Value, source: Any) -> Any:
    if isinstance(source, Value):
        return arrays.expand(b, source, x.shape)
    return torch.from_numpy(np.broadcast_to(source, x.shape).copy())


def _slice_scatter(b: Builder, x: Value, part: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
                   ) -> Value:  # fmt: skip
    begin, stop, step = slice(start, end, step).indices(x.shape[dim])
    if step != 1:
        raise ValueError("a part with gaps is written")
    pieces = [part]
    if begin:
        pieces.insert(0, arrays.part(b, x, dim, 0, begin))
    if stop < x.shape[dim]:
        pieces.append(arrays.part(b, x, dim, stop, x.shape[dim]))
    return arrays.concat(b, pieces, dim) if len(pieces) > 1 else part


def _select_scatter(b: Builder, x: Value, part: Any, dim: int, index: int) -> Value:
    index %= x.shape[dim]
    return _slice_scatter(b, x, _with_axis(part, dim), dim, index, index + 1)


def _roll(b: Builder, x: Value, shifts: Any, dims: Any) -> Value:
    for shift, dim in zip(_listed(shifts), _listed(dims), strict=True):
        size = x.shape[dim]
        if cut := shift % size:
            x = arrays.concat(b, [arrays.part(b, x, dim, size - cut, size), arrays.part(b, x, dim, 0, size - cut)], dim)
    return x


def _pad(b: Builder, x: Value, pads: list[int], mode: Any = "constant", value: Any = 0.0) -> Value:
    if not isinstance(mode, str):  # constant_pad_nd has no mode
        mode, value = "constant", mode
    rank = len(x.shape)
    before, behind = [0] * rank, [0] * rank
    for index in range(len(pads) // 2):
        before[rank - 1 - index], behind[rank - 1 - index] = pads[2 * index], pads[2 * index + 1]
    mode = {"replicate": "edge", "circular": "wrap"}.get(mode, mode)  # PyTorch's names, and NumPy's
    return arrays.pad_by(b, x, before, behind, mode, 0.0 if value is None else float(value))


ARRAYS: dict[str, Callable[..., Any]] = {
    "mean": partial(_reduce, "mean"),
    "sum": partial(_reduce, "sum"),
    "amax": partial(_reduce, "max"),
    "amin": partial(_reduce, "min"),
    "max": partial(_extreme, "max"),
    "min": partial(_extreme, "min"),
    "var": _variance,
    "var_mean": _variance_and_mean,
    "linalg_vector_norm": _vector_norm,
    "cumsum": lambda b, x, dim, dtype=None: products.along(
        b, _of_floats(x, dtype), dim, np.tri(x.shape[dim], dtype=np.float32)
    ),
    **dict.fromkeys(("softmax", "_softmax", "_safe_softmax"), lambda b, x, dim, *_: reductions.softmax(b, x, dim)),
    **dict.fromkeys(("log_softmax", "_log_softmax"), lambda b, x, dim, *_: reductions.log_softmax(b, x, dim)),
    "logsumexp": lambda b, x, dims, keepdim=False: reductions.logsumexp(b, x, _axes(x, dims), keepdim),
    **dict.fromkeys(("view", "reshape", "_unsafe_view"), lambda b, x, sizes: arrays.reshape(x, sizes)),
    "flatten": _flatten,
    "unflatten": _unflatten,
    "permute": arrays.permute,
    "transpose": _transpose,
    "t": lambda b, x: _transpose(b, x, 0, 1),
    "squeeze": _squeeze,
    "unsqueeze": lambda b, x, dim: arrays.unsqueeze(x, (dim,)),
    "expand": lambda b, x, sizes, **_: arrays.expand(b, x, sizes),
    "expand_as": lambda b, x, other: arrays.expand(b, x, other.shape),
    "repeat": arrays.tile,
    "repeat_interleave": _repeat_interleave,
    **dict.fromkeys(("cat", "concat", "concatenate"), lambda b, parts, dim=0: arrays.concat(b, parts, dim)),
    "stack": _stack,
    "slice": _slice,
    "narrow": lambda b, x, dim, start, length: arrays.part(b, x, dim, start, start + length),
    "select": arrays.select,
    **dict.fromkeys(("split", "split_with_sizes"), arrays.split),
    "chunk": lambda b, x, count, dim=0: arrays.split(b, x, -(-x.shape[dim] // count), dim),
    "unbind": lambda b, x, dim=0: [arrays.select(b, x, dim, index) for index in range(x.shape[dim])],
    "index": _index,
    "index_select": arrays.take,
    "flip": _flip,
    "unfold": _unfold,
    "copy": _copy,
    "slice_scatter": _slice_scatter,
    "select_scatter": _select_scatter,
    "roll": _roll,
    **dict.fromkeys(("pad", "constant_pad_nd"), _pad),
    **{
        f"{kind}_pad{axes}d": lambda b, x, pads, mode=mode: _pad(b, x, pads, mode)
        for kind, mode in (("reflection", "reflect"), ("replication", "replicate"))
        for axes in (1, 2)
    },
    "pixel_shuffle": arrays.depth_to_space,
    **dict.fromkeys(
        ("contiguous", "detach", "alias", "clone", "identity", "lift_fresh_copy"), lambda b, x, *_, **__: x
    ),
    "_assert_tensor_metadata": lambda *_, **__: None,
}
