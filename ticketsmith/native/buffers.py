"""Memory as kernels like it."""

from __future__ import annotations

import contextlib
import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

_HUGE_PAGE = 2**21


def aligned(shape: int | tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Zeros that begin on a cache line; large ones on a large page, so that fewer addresses are looked up."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if size >= _HUGE_PAGE and hasattr(mmap, "MADV_HUGEPAGE"):
        pages = mmap.mmap(-1, size + _HUGE_PAGE)
        with contextlib.suppress(OSError):  # a kernel without them
            pages.madvise(mmap.MADV_HUGEPAGE)
        memory, alignment = np.frombuffer(pages, np.uint8), _HUGE_PAGE
    else:
        memory, alignment = np.zeros(size + 64, np.uint8), 64
    start = -memory.ctypes.data % alignment
    out: NDArray[Any] = memory[start : start + size].view(dtype).reshape(shape)
    return out


def padded(values: NDArray[np.float32] | None, size: int) -> NDArray[np.float32]:
    """A vector as aligned floats, with zeros up to ``size``."""
    out: NDArray[np.float32] = aligned(size, np.float32)
    if values is not None:
        out[: len(values)] = values
    return out
