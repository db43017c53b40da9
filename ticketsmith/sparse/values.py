"""Weights in the memory and in the types in which kernels read them."""

from __future__ import annotations

import contextlib
import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
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


def padded(values: Floats | None, size: int) -> Floats:
    """A vector as aligned floats, with zeros up to ``size``."""
    out: Floats = aligned(size, np.float32)
    if values is not None:
        out[: len(values)] = values
    return out


def int8_scales(weight: Floats) -> Floats:
    """What a step of each row's 8-bit weights is worth; 1 for rows of zeros."""
    largest = np.abs(weight).reshape(len(weight), -1).max(axis=1)
    scales: Floats = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    return scales


def to_bfloat16(values: Floats) -> NDArray[np.uint16]:
    """The upper halves of float32, rounded to nearest, ties to even."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded: NDArray[np.uint16] = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return rounded


def quantized(weight: Floats, dtype: str, rows: int) -> tuple[NDArray[Any], Floats | None]:
    """``weight`` [outputs, inputs] as float32, bfloat16, or int8; of int8 what a step of each row is worth, too, with zeros up to
    ``rows``."""
    if dtype == "int8":
        scales = int8_scales(weight)
        return np.rint(weight / scales[:, None]).astype(np.int8), padded(scales, rows)
    return to_bfloat16(weight) if dtype == "bfloat16" else weight, None
