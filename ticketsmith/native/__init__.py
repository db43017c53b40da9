"""The kernel library: finding it, and saying clearly when it is not there.

Kernels are C++ without dependencies (``src/``), one shared library with a C interface. Everything that crosses it is declared
once, in :mod:`ticketsmith.native.abi`.
"""

from __future__ import annotations

import ctypes
import importlib
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from ticketsmith.errors import TicketSmithError
from ticketsmith.native.abi import FINGERPRINT
from ticketsmith.native.abi import Isa as Isa


class NotBuiltError(TicketSmithError):
    """The kernel library is missing, or does not fit this package."""


@cache
def library() -> ctypes.CDLL:
    """The kernel library, loaded once. Raises NotBuiltError with what to do about it."""
    files = sorted(Path(__file__).parent.glob("_library*"))
    if not files:
        raise NotBuiltError(
            "the sparse runtime is not available: this package has no kernels for this machine. With a C++17 compiler (such as "
            "g++ or clang), build them: pip install --force-reinstall --no-deps --no-cache-dir "
            "--no-binary ticketsmith-runtime ticketsmith-runtime (in a checkout: pip install -e .)."
        )
    try:
        kernels = ctypes.CDLL(str(files[0]))
        version = int(kernels.ts_abi())
    except (OSError, AttributeError) as error:
        raise NotBuiltError(f"the sparse runtime is not available: its kernels cannot be loaded ({error}).") from error
    if version != FINGERPRINT:
        raise NotBuiltError(
            f"the sparse runtime is not available: its kernels were built for another version of TicketSmith (ABI "
            f"{version}, not {FINGERPRINT}). Install TicketSmith again."
        )
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    kernels.ts_create.restype = pointer
    kernels.ts_create.argtypes = [pointer, number, ctypes.c_int, number, number, number, number, number]
    kernels.ts_set_shape.argtypes = [pointer, pointer, number]
    kernels.ts_destroy.argtypes = [pointer]
    kernels.ts_run.argtypes = [pointer, pointer, pointer, number, ctypes.c_int]
    kernels.ts_set_more.argtypes = [pointer, pointer, number, pointer, number]
    kernels.ts_call.argtypes = [pointer, pointer, pointer, number, pointer, number, ctypes.c_int]
    kernels.ts_kernel.argtypes = [pointer, ctypes.c_int, pointer, number, number, ctypes.c_int, ctypes.c_int]
    kernels.ts_train.argtypes = [pointer, number, ctypes.c_int, pointer, ctypes.c_int]
    return kernels


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
