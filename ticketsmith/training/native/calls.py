"""Single kernels of training, called between operations of PyTorch."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ticketsmith.native import abi, best_isa, library
from ticketsmith.training.native import packing

_ONE = abi.Job(steps=1)
_WORTH = 1_000_000
"""Multiply-adds from which other cores are woken for a call."""

_room, _place = packing.zeros(0), 0
_threads = 1


def set_threads(count: int) -> None:
    """On how many threads calls of this process compute; their bytes do not depend on it."""
    global _threads
    _threads = count


def threads(work: int) -> int:
    """On how many a call of so many multiply-adds computes."""
    return _threads if work >= _WORTH else 1


lock = threading.Lock()
"""Held by whoever changes operations and runs them: several threads may call a model."""


def room(floats: int) -> int:
    """Where so many floats are free while the lock is held."""
    global _room, _place
    if _room.size < floats:
        _room = packing.zeros(floats)
        _place = int(_room.ctypes.data)
    return _place


class Calls:
    """Operations, one after the other. With each call they are told where its numbers lie."""

    def __init__(self, operations: Sequence[abi.Operation]) -> None:
        self.operations = operations
        self._addresses = (ctypes.c_void_p * len(operations))(*map(ctypes.addressof, operations))
        self._isa = int(best_isa())
        self._run = library().ts_train

    def __call__(self, job: abi.Job = _ONE, threads: int = 1) -> None:
        self._run(self._addresses, len(self._addresses), self._isa, ctypes.byref(job), threads)


class Call:
    """One operation, made once; each call says where its numbers lie, how many multiply-adds it is, and how many floats of
    ``scratch`` it needs for each thread."""

    def __init__(self, kind: type[abi.Operation]) -> None:
        self._operation = kind(op=abi.Op(abi.STEPS.index(kind), 0, 0))
        self._calls = Calls([self._operation])

    def __call__(self, work: int, scratch: int = 0, **fields: Any) -> None:
        operation, count = self._operation, threads(work)
        with lock:
            operation.op.work = work
            if scratch:
                operation.scratch = room(scratch * count)
            for name, value in fields.items():
                setattr(operation, name, value)
            self._calls(threads=count)


def address(tensor: Tensor | None) -> int | None:
    """Of the first number."""
    return None if tensor is None else tensor.data_ptr()
