"""PyTorch models that mix the samples of a batch are named, with the operator that does. See ``runtime.probes``."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves

from ticketsmith.runtime import probes
from ticketsmith.runtime.builder.core import UnsupportedError
from ticketsmith.runtime.probes import Array
from ticketsmith.runtime.torch.trace import Operation, trace

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
        whole = every or tensor.is_floating_point()
        batch = probes.random_batch(array, seed) if whole else probes.repeat_first(array)
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


def _called(
    module: nn.Module, inputs: Sequence[Tensor], names: Sequence[str], visit: Callable[[Operation], None]
) -> list[Array]:
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
            raise _FailureError(f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}") from error
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
