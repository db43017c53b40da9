"""How much memory a model asks for, before it has it."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ticketsmith import memory
from ticketsmith.errors import TaskError


class Bounded(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within it, a tensor is made on the CPU only where it fits into memory: a layer of absurd size is refused by name.

    Raises TaskError.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        names = func._schema.arguments
        if names and names[0].name == "size" and torch.device(kwargs.get("device") or "cpu").type == "cpu":
            dtype = kwargs.get("dtype") or torch.get_default_dtype()
            shape = tuple(int(size) for size in args[0])
            memory.require(
                math.prod(shape) * dtype.itemsize,
                f"task.model: a tensor of shape {shape}",
                "Make the model smaller: its widths, or the inputs that they follow from.",
                TaskError,
            )
        return func(*args, **kwargs)


class _Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for value in made if isinstance(made, tuple | list) else (made,):
            if isinstance(value, Tensor):
                self.bytes = max(self.bytes, value.numel() * value.element_size())
        return made


def largest_value(model: nn.Module, *inputs: Tensor) -> int:
    """Bytes of the largest value that ``inputs`` lead to, their own included; nothing of them is allocated.

    Where the model cannot be followed without computing it is what can be said of the inputs alone.
    """
    # Not at the top: what it brings takes a second, and small inputs never need it.
    from torch._subclasses.fake_tensor import FakeTensorMode

    own = max(tensor.numel() * tensor.element_size() for tensor in inputs)
    training = model.training
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), _Largest() as seen, torch.no_grad():
            model.eval()(*(torch.empty(tensor.shape, dtype=tensor.dtype) for tensor in inputs))
    except Exception:  # a model that looks at its values, or what its author wrote in any way
        return own
    finally:
        model.train(training)
    largest: int = max(own, seen.bytes)
    return largest


def check_one(model: nn.Module, *inputs: Tensor, mend: str) -> None:
    """Raises TaskError when a value that ``inputs`` lead to does not fit; ``mend`` says what to make smaller.

    What grows with the square of an input, as attention does, fits for small ones, of which nothing is asked.
    """
    free = memory.available()
    if free is None or 4 * max(tensor.numel() for tensor in inputs) ** 2 <= free:
        return
    shapes = " and ".join(str(tuple(tensor.shape)) for tensor in inputs)
    what = f"an input of shape {shapes} leads to a value that"
    memory.require(largest_value(model, *inputs), what, mend, TaskError)
