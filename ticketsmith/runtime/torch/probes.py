"""PyTorch models that mix the samples of a batch are named, with the operator that does. See ``runtime.probes``."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves

from ticketsmith.runtime import probes
from ticketsmith.runtime.builder.core import UnsupportedError
from ticketsmith.runtime.probes import Array
from ticketsmith.runtime.torch.watch import Operation, watched

_WAY_OUT = "The sparse runtime computes each sample of a batch by itself. Serve this model with a dense runtime, such as `torch`."


def check_samples(module: nn.Module, examples: Sequence[Tensor], names: Sequence[str]) -> None:
    """Raises UnsupportedError, with the operator's name, where ``module`` in evaluation mode does not compute each sample of
    a batch alike and apart.

    ``examples`` [batch, ...] are inputs; ``names`` those of all of them, or empty where they are given by position. The module
    stays as it is.
    """
    try:
        _compare(module, _drawn(examples, every=True), names)
    except _FailureError:  # what was drawn may be no token of this model
        try:
            _compare(module, _drawn(examples, every=False), names)
        except _FailureError as failure:
            raise UnsupportedError(
                f"the model takes one sample, and no batch of several ({failure}). {_WAY_OUT}"
            ) from failure


class _FailureError(Exception):
    """A model does not take a batch."""


def _drawn(examples: Sequence[Tensor], every: bool) -> list[Tensor]:
    found = []
    for seed, tensor in enumerate(examples):
        array = tensor.detach().cpu().numpy()
        whole = every or tensor.is_floating_point()
        made = probes.drawn(array, seed) if whole else probes.repeated(array)
        found.append(torch.from_numpy(made).to(tensor.device))
    return found


@dataclass(frozen=True)
class _Record:
    """An operation on the small batch."""

    told: str
    scalars: tuple[Any, ...]
    values: tuple[Array | None, ...]


def _compare(module: nn.Module, batch: Sequence[Tensor], names: Sequence[str]) -> None:
    few = [tensor[probes.FIRST : probes.FIRST + probes.SMALL].clone() for tensor in batch]
    one = [tensor[probes.FIRST : probes.FIRST + 1].clone() for tensor in batch]
    room = probes.MOST_BYTES
    records: list[_Record] = []

    def note(operation: Operation) -> None:
        nonlocal room
        if not _matters(operation):
            return
        values: list[Array | None] = []
        for place, tensor in enumerate(operation.made):
            room -= 4 * tensor.numel()
            values.append(_array(tensor).copy() if room > 0 and _compared(operation, tensor, place) else None)
        records.append(_Record(str(operation), operation.scalars, tuple(values)))

    expected = _called(module, few, names, note)
    rest: Iterator[_Record] = iter(records)

    def compare(operation: Operation) -> None:
        if not _matters(operation):
            return
        record = next(rest, None)
        if record is None or record.told != str(operation):
            raise UnsupportedError(f"the operator {operation} depends on the number of samples in a batch. {_WAY_OUT}")
        if record.scalars != operation.scalars:
            raise UnsupportedError(
                f"the operator {operation} computes with a number that is {record.scalars} for {probes.SMALL} samples and "
                f"{operation.scalars} for {probes.LARGE}. {_WAY_OUT}"
            )
        scale = None
        for before, tensor in zip(record.values, operation.made, strict=False):
            if before is None:
                continue
            if scale is None:
                scale = probes.largest([_array(one) for one in operation.tensors if _is_plain(one)])
            told = probes.fault(before, _array(tensor), scale)
            if told is not None:
                raise UnsupportedError(f"the operator {operation} mixes the samples of a batch: {told}. {_WAY_OUT}")

    outputs = _called(module, batch, names, compare)
    left = next(rest, None)
    if left is not None:
        raise UnsupportedError(f"the operator {left.told} depends on the number of samples in a batch. {_WAY_OUT}")
    bytes_of_one = max(1, (probes.MOST_BYTES - room) // probes.SMALL)
    count = min(probes.MOST, max(probes.MANY, probes.MOST_BYTES // (4 * bytes_of_one)))
    crowd = _crowded(module, batch, names, records, count)
    for place, (some, many) in enumerate(zip(outputs, crowd, strict=True)):
        if some.shape[1:] != many.shape[1:] or not probes.same(some, many[: len(some)]):
            raise UnsupportedError(
                f"the model's output {place} is not of each sample alone: it is another one in a batch of {count}. {_WAY_OUT}"
            )
    alone = _called(module, one, names, lambda operation: None)
    for place, (single, pair, many) in enumerate(zip(alone, expected, outputs, strict=True)):
        told = probes.fault(pair, many)
        if told is None and (single.shape[1:] != pair.shape[1:] or not probes.same(single, pair[:1])):
            told = "a sample alone gives something else than in a batch"
        if told is not None:
            raise UnsupportedError(f"the model's output {place} is not of each sample alone: {told}. {_WAY_OUT}")


def _crowded(
    module: nn.Module, batch: Sequence[Tensor], names: Sequence[str], records: Sequence[_Record], count: int
) -> list[Array]:
    """The outputs for ``count`` samples, those of ``batch`` in turn, which take the same way as the few of ``records``."""
    rest = iter(records)

    def compare(operation: Operation) -> None:
        if not _matters(operation):
            return
        record = next(rest, None)
        if record is None or (record.told, record.scalars) != (str(operation), operation.scalars):
            raise UnsupportedError(f"the operator {operation} depends on the number of samples in a batch. {_WAY_OUT}")

    outputs = _called(module, [tensor[torch.arange(count) % len(tensor)] for tensor in batch], names, compare)
    left = next(rest, None)
    if left is not None:
        raise UnsupportedError(f"the operator {left.told} depends on the number of samples in a batch. {_WAY_OUT}")
    return outputs


def _called(
    module: nn.Module, inputs: Sequence[Tensor], names: Sequence[str], visit: Callable[[Operation], None]
) -> list[Array]:
    """The outputs; what the model remembers is written into copies."""
    given = [tensor.clone() for tensor in inputs]
    state = {name: buffer.clone() for name, buffer in module.named_buffers()}
    args, kwargs = ((), dict(zip(names, given, strict=True))) if names else (tuple(given), {})
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            outputs = watched(module, lambda: functional_call(module, state, args, kwargs), given, visit)
        except UnsupportedError:
            raise
        except Exception as error:  # a user's model may fail in any way
            raise _FailureError(f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}") from error
        return [_array(leaf).copy() for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]


def _matters(operation: Operation) -> bool:
    """Whether it makes values from the model's inputs; what is made of sizes alone may differ until it meets them."""
    return any(operation.origin(tensor).inputs for tensor in operation.made)


def _compared(operation: Operation, tensor: Tensor, place: int) -> bool:
    """Whole numbers beside a result are a kernel's own notes of places; memory that is being written is seen when it is read."""
    origin = operation.origin(tensor)
    return _is_plain(tensor) and origin.inputs and not origin.unset and (place == 0 or tensor.is_floating_point())


def _is_plain(tensor: Tensor) -> bool:
    """Numbers to compare; bytes are a kernel's own notes."""
    return tensor.layout == torch.strided and not tensor.is_complex() and tensor.dtype != torch.uint8


def _array(tensor: Tensor) -> Array:
    plain = tensor.detach().cpu()
    found: Array = (plain.float() if plain.is_floating_point() else plain).numpy()
    return found
