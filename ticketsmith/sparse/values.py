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


LEVELS = {"int8": 127, "int4": 7}
"""The largest whole number of a weight."""

_NARROWER = np.linspace(0.95, 0.5, 10)
"""Parts of a row's largest weight that may be the largest number of 4 bits."""


def steps(weight: Floats, dtype: str) -> Floats:
    """[rows]: what a step of each row's weights of 8 or 4 bits is worth; 1 for rows of zeros.

    By the largest of the row; of 4 bits, by the part of it with the smallest squared error, since the largest are few.
    """
    flat, most = weight.reshape(len(weight), -1), LEVELS[dtype]
    largest = np.abs(flat).max(axis=1)
    scales: Floats = np.where(largest > 0, largest / most, 1).astype(np.float32)
    if dtype == "int8":
        return scales
    rows, columns = np.nonzero(flat)
    values = flat[rows, columns]

    def errors(scale: Floats) -> NDArray[Any]:
        each = scale[rows]
        with np.errstate(all="ignore"):
            return np.bincount(rows, (whole(values, each, most) * each - values) ** 2, len(flat))

    best, chosen = errors(scales), scales.copy()
    with np.errstate(all="ignore"):
        if not (best > 1e-10 * np.bincount(rows, values**2, len(flat))).any():  # they were rounded before
            return scales
    for part in _NARROWER:
        other = (scales * np.float32(part)).astype(np.float32)
        error = errors(other)
        better = error < best
        best[better], chosen[better] = error[better], other[better]
    return chosen


def whole(values: Floats, scale: Floats, most: int) -> Floats:
    """``values`` in steps of ``scale``, rounded, ``most`` at most."""
    with np.errstate(all="ignore"):  # a stranger's scales may be anything
        numbers: Floats = np.clip(np.rint(values / scale), -most, most)
    return numbers


def pairs(values: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Whole numbers of 4 bits, two a byte, the first in the lower half; an even number of them."""
    bits = values.view(np.uint8)
    packed: NDArray[np.uint8] = ((bits[::2] & 15) | (bits[1::2] << 4)).astype(np.uint8)
    return packed


def from_pairs(packed: NDArray[np.uint8]) -> NDArray[np.int8]:
    """The inverse of ``pairs``."""
    upper: NDArray[np.uint8] = np.empty(2 * len(packed), np.uint8)
    upper[::2], upper[1::2] = packed << 4, packed & 0xF0
    return np.right_shift(upper.view(np.int8), 4, dtype=np.int8)


def to_bfloat16(values: Floats) -> NDArray[np.uint16]:
    """The upper halves of float32, rounded to nearest, ties to even."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded: NDArray[np.uint16] = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return rounded


def quantized(weight: Floats, dtype: str, rows: int) -> tuple[NDArray[Any], Floats | None]:
    """``weight`` [outputs, inputs] as float32, bfloat16, or int8, which holds numbers of 4 bits too; of whole numbers what a step
    of each row is worth, with zeros up to ``rows``."""
    if dtype in LEVELS:
        scales = steps(weight, dtype)
        return whole(weight, scales[:, None], LEVELS[dtype]).astype(np.int8), padded(scales, rows)
    return to_bfloat16(weight) if dtype == "bfloat16" else weight, None


def whole_numbers(weight: Floats, dtype: str, rows: int) -> tuple[NDArray[np.int8], Floats, NDArray[np.int32]]:
    """For products of whole numbers: ``weight`` [outputs, inputs] as int8 or int4, what a step of each row is worth, and the sum
    of its steps; both with zeros up to ``rows``. Kernels see numbers of 4 bits 16 times as large: so step and sum are theirs."""
    numbers, scales = quantized(weight, dtype, rows)
    totals: NDArray[np.int32] = aligned(rows, np.int32)
    totals[: len(weight)] = numbers.sum(axis=1, dtype=np.int32)
    assert scales is not None
    if dtype == "int4":
        scales, totals = scales / np.float32(16), totals * np.int32(16)
    return numbers, scales, totals


def fours(numbers: NDArray[np.int8]) -> NDArray[np.int32]:
    """[outputs, inner, ...] as [outputs, inner / 4, ...], four inner ones in one, with zeros where there are no more."""
    outputs, inner, *rest = numbers.shape
    full = np.zeros((outputs, -(-inner // 4) * 4, *rest), np.int8)
    full[:, :inner] = numbers
    apart = np.moveaxis(full.reshape(outputs, -1, 4, *rest), 2, -1)
    together: NDArray[np.int32] = np.ascontiguousarray(apart).view(np.int32)[..., 0]
    return together


def each_of_four(numbers: NDArray[np.int32]) -> NDArray[np.int8]:
    """[n] of ``fours`` as [n, 4]."""
    return numbers.view(np.int8).reshape(-1, 4)
