"""How much memory a model asks for, before it has it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ticketsmith import memory
from ticketsmith.errors import TaskError
from ticketsmith.uncompiled import untraced


class Bounded(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within it, a tensor is made on the CPU only where it fits into memory; ``what`` asks for it, ``mend`` is a sentence.

    What runs within is computed as ever: each operator is asked for the shape that it is about to make, where that follows
    from shapes alone. ``largest``: the bytes of the largest so far. Raises TaskError.
    """

    def __init__(
        self,
        what: str = "task.model: a tensor",
        mend: str = "Make the model smaller: its widths, or the inputs that they follow from.",
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.what, self.mend, self.largest = what, mend, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        try:
            shape = _shape(func, args, kwargs)
        except Exception:  # what does not fit together is said by the operator itself
            shape = None
        if shape is not None:
            size = math.prod(shape) * _itemsize(func, args, kwargs)
            self.largest = max(self.largest, size)
            memory.require(size, f"{self.what} of shape {shape}", self.mend, TaskError)
        return func(*args, **kwargs)


untraced(Bounded, "__torch_dispatch__")


def bounded_by(*inputs: Tensor, mend: str) -> Bounded:
    """Within it, a value that ``inputs`` lead to is computed only where it fits; ``mend`` says what to make smaller."""
    shapes = " and ".join(str(tuple(tensor.shape)) for tensor in inputs)
    return Bounded(f"an input of shape {shapes} leads to a value that is too large: one", mend)


_PRODUCTS = {"mm", "addmm", "bmm", "baddbmm"}
_ALIKE = {"clone", "_to_copy", "_softmax", "_log_softmax"}
_TRUTHS = {
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "isnan",
    "isinf",
    "logical_and",
    "logical_or",
    "logical_xor",
    "logical_not",
}
"""Operators whose results are true or false, one byte each."""


def _shape(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[int, ...] | None:
    """What an operator makes on the CPU, where it makes something that can be larger than what it has; else None."""
    schema = func._schema
    name = schema.name.removeprefix("aten::")
    tensors = _tensors(args)
    if schema.is_mutable or any(one.device.type != "cpu" or one.layout != torch.strided for one in tensors):
        return None
    if torch.device(kwargs.get("device") or "cpu").type != "cpu":
        return None
    if schema.arguments and schema.arguments[0].name == "size":
        return tuple(int(size) for size in args[0])
    if name.startswith("new_") and len(args) > 1:
        return tuple(int(size) for size in args[1])
    if not tensors:
        return None
    x = tuple(tensors[0].shape)
    if name in _PRODUCTS:
        return (*tensors[-2].shape[:-1], tensors[-1].shape[-1])
    if torch.Tag.pointwise in func.tags or name in _ALIKE:
        return np.broadcast_shapes(*(tuple(one.shape) for one in tensors))
    if name == "embedding":
        return (*tensors[1].shape, x[-1])
    if name == "repeat":
        return tuple(n * times for n, times in zip((1,) * (len(args[1]) - len(x)) + x, args[1], strict=True))
    if name == "cat":
        return (sum(one.numel() for one in tensors),)
    if name == "constant_pad_nd":
        pads = [0] * (2 * len(x) - len(args[1])) + [n for pair in _pairs(args[1])[::-1] for n in pair]
        return tuple(n + sum(pair) for n, pair in zip(x, _pairs(pads), strict=True))
    if name.startswith("upsample_") and isinstance(args[1], list | tuple):
        return (*x[:2], *args[1])
    if name == "convolution":
        return _convolved(x, tuple(tensors[1].shape), *args[3:9])
    return None


def _convolved(
    x: tuple[int, ...],
    weight: tuple[int, ...],
    stride: Any,
    pad: Any,
    dilation: Any,
    turned: bool,
    more: Any,
    groups: int,
) -> tuple[int, ...]:
    axes = range(len(x) - 2)
    stride, pad, dilation, more = (
        list(one) * (len(axes) if len(one) == 1 else 1) for one in (stride, pad, dilation, more)
    )
    reach = [dilation[n] * (weight[n + 2] - 1) + 1 for n in axes]
    if turned:
        sizes = [(x[n + 2] - 1) * stride[n] - 2 * pad[n] + reach[n] + more[n] for n in axes]
        return (x[0], weight[1] * groups, *sizes)
    return (x[0], weight[0], *((x[n + 2] + 2 * pad[n] - reach[n]) // stride[n] + 1 for n in axes))


def _itemsize(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> int:
    if func._schema.name.removeprefix("aten::") in _TRUTHS:
        return 1
    kinds = [one.dtype for one in _tensors(args)]
    kinds = [kwargs["dtype"]] if kwargs.get("dtype") else [kind for kind in kinds if kind.is_floating_point] or kinds
    return max((kind.itemsize for kind in kinds), default=torch.get_default_dtype().itemsize)


def _tensors(values: Sequence[Any]) -> list[Tensor]:
    listed = [one for value in values for one in (value if isinstance(value, list | tuple) else (value,))]
    return [one for one in listed if isinstance(one, Tensor)]


def _pairs(values: Sequence[int]) -> list[tuple[int, int]]:
    return list(zip(values[::2], values[1::2], strict=True))
