"""The kernel library: finding it, and saying clearly when it is not there.

Kernels are C++ without dependencies (``src/``), one shared library with a C ABI. Everything that crosses it is declared
in :mod:`ticketsmith.native.abi`. Only NumPy is needed.
"""

from __future__ import annotations

import ctypes
import importlib
import os
from collections.abc import Callable
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import Any

from ticketsmith.errors import TicketSmithError

ABI = 8
"""What this package expects of the library; raised whenever ``src/api.h`` changes."""


class NotBuiltError(TicketSmithError):
    """The kernel library is missing, or does not fit this package."""


class Isa(IntEnum):
    """Instruction sets, in the order of preference, least first."""

    PORTABLE = 0
    NEON = 1
    AVX2 = 2
    AVX512 = 3


@cache
def library() -> ctypes.CDLL:
    """The kernel library, loaded once. Raises NotBuiltError with what to do about it."""
    found = sorted(Path(__file__).parent.glob("_library*"))
    if not found:
        raise NotBuiltError(
            "the sparse runtime is not available: its kernels were not built. Install a C++17 compiler (such as g++ or "
            "clang), then install TicketSmith again: pip install --force-reinstall --no-deps ticketsmith "
            "(in a checkout: pip install -e .)."
        )
    try:
        loaded = ctypes.CDLL(str(found[0]))
        version = int(loaded.ts_abi())
    except (OSError, AttributeError) as error:
        raise NotBuiltError(f"the sparse runtime is not available: its kernels cannot be loaded ({error}).") from error
    if version != ABI:
        raise NotBuiltError(
            f"the sparse runtime is not available: its kernels were built for another version of TicketSmith (ABI "
            f"{version}, not {ABI}). Install TicketSmith again."
        )
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    loaded.ts_create.restype = pointer
    loaded.ts_create.argtypes = [pointer, number, ctypes.c_int, number, number, number, number, number]
    loaded.ts_set_shape.argtypes = [pointer, pointer, number]
    loaded.ts_destroy.argtypes = [pointer]
    loaded.ts_run.argtypes = [pointer, pointer, pointer, number, ctypes.c_int]
    loaded.ts_set_more.argtypes = [pointer, pointer, number, pointer, number]
    loaded.ts_call.argtypes = [pointer, pointer, pointer, number, pointer, number, ctypes.c_int]
    return loaded


@cache
def fast_run() -> Callable[[int, Any, Any, int], int] | None:
    """``run(program, input, output, threads)`` without the cost of ctypes; None when the library was built without it."""
    library()
    try:
        door = importlib.import_module("ticketsmith.native._library")
    except ImportError:
        return None
    run: Callable[[int, Any, Any, int], int] = door.run
    return run


def best_isa() -> Isa:
    """The best instruction set that this build and this machine both have; TICKETSMITH_ISA names another one.

    Raises NotBuiltError when that one is not there.
    """
    wanted = os.environ.get("TICKETSMITH_ISA")
    if not wanted:
        return Isa(library().ts_best_isa())
    names = [isa.name.lower() for isa in Isa if has_isa(isa)]
    if wanted.lower() not in names:
        raise NotBuiltError(f"TICKETSMITH_ISA is {wanted!r}; this machine and build have {', '.join(names)}.")
    return Isa[wanted.upper()]


def has_isa(isa: Isa) -> bool:
    """Whether both this build and this machine have ``isa``."""
    return bool(library().ts_has_isa(int(isa)))


def available() -> bool:
    """Whether the kernel library can be used."""
    try:
        library()
    except NotBuiltError:
        return False
    return True
