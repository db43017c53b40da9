"""A PyTorch model traced at work: each operator, its operands and its results, and what these follow from."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

_UNSET = {"empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided"}
_NO_VALUES = {
    *_UNSET, "zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full", "rand_like", "randn_like",
}  # fmt: skip
"""What looks at a tensor's shape and not at its values."""


@dataclass(frozen=True)
class Origin:
    """What a tensor was computed from: the model's inputs, and which of its weights (by ``id``). ``unset``: it lies in memory
    that was taken without a value, and may not be written yet."""

    inputs: bool = False
    weights: frozenset[int] = frozenset()
    unset: bool = False

    def __or__(self, other: Origin) -> Origin:
        return Origin(self.inputs or other.inputs, self.weights | other.weights, self.unset or other.unset)


NOTHING = Origin()


@dataclass(frozen=True, eq=False)
class Operation:
    """One call of an operator. ``name`` is without its overload, ``place`` the module that called it (empty: the model).

    ``tensors`` are its operands, ``results`` what it gave, ``scalars`` the numbers that it computed with; ``origin``
    tells what one of these tensors follows from.
    """

    name: str
    place: str
    arguments: Sequence[Any]
    tensors: Sequence[Tensor]
    results: Sequence[Tensor]
    scalars: tuple[Any, ...]
    origin: Callable[[Tensor], Origin]

    def __str__(self) -> str:
        return f"{self.name!r}" + (f" (in {self.place})" if self.place else "")


def trace(
    model: nn.Module, call: Callable[[], Any], inputs: Iterable[Tensor], visit: Callable[[Operation], None]
) -> Any:
    """What ``call()`` gives; ``visit`` is told of each operator, in order. ``inputs`` are tensors that the call is given.

    Attention is computed by its parts, not by one operator that hides them.
    """
    places: list[str] = []
    handles = []

    def enter(name: str, *_: Any) -> None:
        places.append(name)

    def leave(*_: Any) -> None:
        places.pop()

    for name, module in model.named_modules():
        if not isinstance(module, torch.jit.ScriptModule):
            handles.append(module.register_forward_pre_hook(partial(enter, name)))
            handles.append(module.register_forward_hook(leave, always_call=True))
    try:
        with without_fast_path(), _Watch(model, inputs, visit, places):
            return call()
    finally:
        for handle in handles:
            handle.remove()


_CARRIERS = {
    "view", "_unsafe_view", "reshape", "unsqueeze", "squeeze", "expand", "permute", "transpose", "t", "slice", "select",
    "split", "split_with_sizes", "unbind", "clone", "contiguous", "detach", "alias", "_to_copy", "to", "flatten",
}  # fmt: skip
"""Operators whose outputs are elements of their first input."""

_PLACES = {"embedding": 1, "index_select": 2, "gather": 2, "index": 1, "embedding_bag": 1, "_embedding_bag": 1}
"""Operators that read a table, their first argument, and which of their arguments holds the places."""


def table_size(model: nn.Module, tokens: Tensor) -> int | None:
    """How many rows the smallest table has that ``tokens`` ``[batch, ...]`` are places of; None for a model without one."""
    carried: Any = WeakTensorKeyDictionary()
    operands = tokens.clone()
    carried[operands] = True
    sizes: list[int] = []

    def note(operation: Operation) -> None:
        name, arguments = operation.name, operation.arguments
        if name in _CARRIERS and isinstance(arguments[0], Tensor) and arguments[0] in carried:
            for tensor in operation.results:
                carried[tensor] = True
        place = _PLACES.get(name)
        if place is not None:
            places = arguments[place] if isinstance(arguments[place], (list, tuple)) else [arguments[place]]
            if any(isinstance(one, Tensor) and one in carried for one in places):
                axis = arguments[1] if name in ("index_select", "gather") else 0
                sizes.append(arguments[0].shape[axis])

    with torch.no_grad():
        trace(model, lambda: model(operands), [operands], note)
    return min(sizes, default=None)


@contextlib.contextmanager
def without_fast_path() -> Iterator[None]:
    """Attention by its parts: PyTorch's fast path would hide the layers in one operator."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


class _Watch(TorchDispatchMode):
    def __init__(
        self, model: nn.Module, inputs: Iterable[Tensor], visit: Callable[[Operation], None], places: list[str]
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.visit, self.places = visit, places
        self.origins: Any = WeakTensorKeyDictionary()
        self.memories: dict[int, Origin] = {}
        self.alive: list[Tensor] = []  # so that no memory of ``memories`` is used again
        for tensor in (*model.parameters(), *model.buffers()):
            self._remember(tensor, Origin(weights=frozenset({id(tensor)})))
        for tensor in inputs:
            self._remember(tensor, Origin(inputs=True))

    def _remember(self, tensor: Tensor, origin: Origin) -> None:
        place = _memory(tensor)
        if place:
            self.memories[place] = self.memories.get(place, NOTHING) | origin
            self.alive.append(tensor)

    def origin(self, tensor: Tensor) -> Origin:
        own: Origin = self.origins.get(tensor, NOTHING)
        return own | self.memories.get(_memory(tensor), NOTHING)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.partition("::")[2]
        operands = list(_tensors([*args, *kwargs.values()]))
        origin = NOTHING
        if name not in _NO_VALUES:
            for tensor in operands:
                origin |= replace(self.origin(tensor), unset=False)
        before = {id(tensor): self.origin(tensor) for tensor in operands}  # what is written in place had one before
        result = func(*args, **kwargs)
        results = list(_tensors([result]))
        if name in _UNSET:
            for tensor in results:
                self._remember(tensor, Origin(unset=True))
        if origin != NOTHING:
            for tensor in results:
                self.origins[tensor] = origin
            if func._schema.is_mutable:
                for tensor in results:
                    self._remember(tensor, origin)
        pairs = zip(args, func._schema.arguments, strict=False)
        scalars = tuple(one for one, kind in pairs if type(one) in (int, float) and "int" not in str(kind.real_type))
        place = self.places[-1] if self.places else ""

        def origin_of(tensor: Tensor) -> Origin:
            return before.get(id(tensor)) or self.origin(tensor)

        self.visit(Operation(name, place, args, operands, results, scalars, origin_of))
        return result


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


def _memory(tensor: Tensor) -> int:
    """The address of a tensor's memory; 0 for those that have none of one kind, such as sparse ones."""
    try:
        return tensor.untyped_storage().data_ptr()
    except (NotImplementedError, RuntimeError):
        return 0
