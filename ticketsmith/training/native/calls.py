"""Single kernels of training, called between operations of PyTorch."""

from __future__ import annotations

import ctypes
import threading
from typing import Any

import numpy as np
from torch import Tensor

from ticketsmith.native import abi, best_isa, library
from ticketsmith.training.native import packing

_ONE = abi.Job(steps=1)


_lock = threading.Lock()
_room, _place = packing.zeros(0), 0


class Call:
    """One operation, made once; each call says where its numbers lie this time, and how many floats of ``scratch`` it needs."""

    def __init__(self, kind: type[abi.Operation], **fields: Any) -> None:
        self._arrays = [value for value in fields.values() if isinstance(value, np.ndarray)]
        addresses = {
            name: value.ctypes.data if isinstance(value, np.ndarray) else value for name, value in fields.items()
        }
        self._operation = kind(op=abi.Op(abi.STEPS.index(kind), 0, 0), **addresses)
        self._address = (ctypes.c_void_p * 1)(ctypes.addressof(self._operation))
        self._isa = int(best_isa())
        self._run = library().ts_train

    def __call__(self, scratch: int = 0, **fields: Any) -> None:
        operation = self._operation
        with _lock:  # for a model that several threads call
            if scratch:
                operation.scratch = _scratch(scratch)
            for name, value in fields.items():
                setattr(operation, name, value)
            self._run(self._address, 1, self._isa, ctypes.byref(_ONE), 1)


def _scratch(count: int) -> int:
    """Where so many floats are free while a kernel runs."""
    global _room, _place
    if _room.size < count:
        _room = packing.zeros(count)
        _place = int(_room.ctypes.data)
    return _place


def address(tensor: Tensor | None) -> int | None:
    """Of the first number."""
    return None if tensor is None else tensor.data_ptr()
