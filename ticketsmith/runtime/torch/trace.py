"""A PyTorch model traced at work: each operator, its operands and its results, and what these follow from; and with it,
whether a model mixes the samples of a batch (see ``runtime.probes``), and by which operator.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from ticketsmith.errors import in_a_line
from ticketsmith.runtime import probes
from ticketsmith.runtime.builder.core import UnsupportedError
from ticketsmith.runtime.probes import Array

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


def trace(model: nn.Module, call: Callable[[], Any], inputs: Iterable[Tensor], visit: Callable[[Operation], None]
          ) -> Any:  # fmt: skip
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
    def __init__(self, model: nn.Module, inputs: Iterable[Tensor], visit: Callable[[Operation], None],
                 places: list[str]) -> None:  # fmt: skip
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


DENSE = "Serve this model with a dense runtime, such as `torch`."
_WAY_OUT = f"The sparse runtime computes each sample of a batch by itself. {DENSE}"


def check_samples(module: nn.Module, examples: Sequence[Tensor], names: Sequence[str]) -> None:
    """Raises UnsupportedError, with the operator's name, where ``module`` in evaluation mode does not compute each sample of
    a batch alike and apart.

    ``examples`` [batch, ...] are inputs; ``names`` those of all of them, or empty where they are given by position. The module
    stays as it is.
    """
    try:
        _compare(module, _batch(examples, every=True), names)
    except _FailureError:  # what was drawn may be no token of this model
        try:
            _compare(module, _batch(examples, every=False), names)
        except _FailureError as failure:
            reason = f"the model takes one sample, and no batch of several ({failure})"
            raise UnsupportedError(f"{reason}. {_WAY_OUT}") from failure


class _FailureError(Exception):
    """A model does not take a batch."""


def _batch(examples: Sequence[Tensor], every: bool) -> list[Tensor]:
    tensors = []
    for seed, tensor in enumerate(examples):
        array = tensor.detach().cpu().numpy()
        repeated = not every and not tensor.is_floating_point()
        batch = np.repeat(array[:1], probes.LARGE, axis=0) if repeated else probes.random_batch(array, seed)
        tensors.append(torch.from_numpy(batch).to(tensor.device))
    return tensors


@dataclass(frozen=True)
class _Record:
    """An operation on the small batch."""

    name: str
    scalars: tuple[Any, ...]
    values: tuple[Array | None, ...]


def _compare(module: nn.Module, batch: Sequence[Tensor], names: Sequence[str]) -> None:
    few = [probes.small(tensor).clone() for tensor in batch]
    room = probes.MOST_BYTES
    records: list[_Record] = []

    def note(operation: Operation) -> None:
        nonlocal room
        values: list[Array | None] = []
        for place, tensor in enumerate(operation.results):
            room -= 4 * tensor.numel()
            values.append(_array(tensor).copy() if room > 0 and _compared(operation, tensor, place) else None)
        records.append(_Record(str(operation), operation.scalars, tuple(values)))

    expected = _called(module, few, names, note)
    outputs = _follow(module, batch, names, records, _check)
    bytes_of_one = max(1, (probes.MOST_BYTES - room) // probes.SMALL)
    count = min(probes.MOST, max(probes.MANY, probes.MOST_BYTES // (4 * bytes_of_one)))
    crowd = [tensor[torch.arange(count) % len(tensor)] for tensor in batch]
    for place, (some, many) in enumerate(zip(outputs, _follow(module, crowd, names, records), strict=True)):
        if some.shape[1:] != many.shape[1:] or not probes.same(some, many[: len(some)]):
            raise UnsupportedError(
                f"the model's output {place} is not of each sample alone: it is another one in a batch of {count}. {_WAY_OUT}"
            )
    alone = _called(module, [tensor[:1] for tensor in few], names, lambda operation: None)
    for place, (single, pair, many) in enumerate(zip(alone, expected, outputs, strict=True)):
        reason = probes.fault(pair, many)
        if reason is None and (single.shape[1:] != pair.shape[1:] or not probes.same(single, pair[:1])):
            reason = "a sample alone gives something else than in a batch"
        if reason is not None:
            raise UnsupportedError(f"the model's output {place} is not of each sample alone: {reason}. {_WAY_OUT}")


def _check(operation: Operation, record: _Record) -> None:
    """Raises UnsupportedError where an operation on the large batch is not that on the small one."""
    if record.scalars != operation.scalars:
        raise UnsupportedError(
            f"the operator {operation} computes with a number that is {record.scalars} for {probes.SMALL} samples and "
            f"{operation.scalars} for {probes.LARGE}. {_WAY_OUT}"
        )
    pairs = [(one, two) for one, two in zip(record.values, operation.results, strict=False) if one is not None]
    scale = probes.largest([_array(one) for one in operation.tensors if _is_plain(one)]) if pairs else 0.0
    for before, tensor in pairs:
        reason = probes.fault(before, _array(tensor), scale)
        if reason is not None:
            raise UnsupportedError(f"the operator {operation} mixes the samples of a batch: {reason}. {_WAY_OUT}")


def _follow(
    module: nn.Module, batch: Sequence[Tensor], names: Sequence[str], records: Sequence[_Record],
    check: Callable[[Operation, _Record], None] | None = None,
) -> list[Array]:  # fmt: skip
    """The outputs for ``batch``, which takes the same way as the few of ``records``; without ``check``, with the same numbers."""
    rest = iter(records)

    def fail(operator: str) -> None:
        raise UnsupportedError(f"the operator {operator} depends on the number of samples in a batch. {_WAY_OUT}")

    def visit(operation: Operation) -> None:
        record = next(rest, None)
        if record is None or record.name != str(operation) or (not check and record.scalars != operation.scalars):
            fail(str(operation))
        elif check:
            check(operation, record)

    outputs = _called(module, batch, names, visit)
    for left in rest:
        fail(left.name)
    return outputs


def _called(module: nn.Module, inputs: Sequence[Tensor], names: Sequence[str], visit: Callable[[Operation], None]
            ) -> list[Array]:  # fmt: skip
    """The outputs; ``visit`` is called with each operation that makes values from the inputs (what is made of sizes alone may
    differ until it meets them). What the model remembers is written into copies."""

    def see(operation: Operation) -> None:
        if any(operation.origin(tensor).inputs for tensor in operation.results):
            visit(operation)

    copies = [tensor.clone() for tensor in inputs]
    state = {name: buffer.clone() for name, buffer in module.named_buffers()}
    args, kwargs = ((), dict(zip(names, copies, strict=True))) if names else (tuple(copies), {})
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            outputs = trace(module, lambda: functional_call(module, state, args, kwargs), copies, see)
        except UnsupportedError:
            raise
        except Exception as error:  # a user's model may fail in any way
            raise _FailureError(in_a_line(error)) from error
        return [_array(leaf).copy() for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]


def _compared(operation: Operation, tensor: Tensor, place: int) -> bool:
    """Whole numbers beside a result are a kernel's own notes of places; memory that is being written is seen when it is read."""
    origin = operation.origin(tensor)
    return _is_plain(tensor) and origin.inputs and not origin.unset and (place == 0 or tensor.is_floating_point())


def _is_plain(tensor: Tensor) -> bool:
    """Numbers to compare; bytes are a kernel's own notes."""
    return tensor.layout == torch.strided and not tensor.is_complex() and tensor.dtype != torch.uint8


def _array(tensor: Tensor) -> Array:
    plain = tensor.detach().cpu()
    array: Array = (plain.float() if plain.is_floating_point() else plain).numpy()
    return array
