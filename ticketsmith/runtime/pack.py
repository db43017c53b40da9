"""Weights in the order in which the kernels read them. Pure NumPy: dense weights in, flat arrays out."""

from __future__ import annotations

import contextlib
import mmap
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ticketsmith.runtime.graph import GraphError

Floats = NDArray[np.float32]

TAP = np.dtype([("offset", np.int32), ("weight", np.float32)])
STRETCH = np.dtype([("in", np.int32), ("out", np.int32), ("vectors", np.int32)])
SLICE_ROWS = 16
BITMAP_ROWS, BITMAP_COLUMNS = 8, 64
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


@dataclass(frozen=True, eq=False)
class SparseConvPack:
    """Weights by block of input planes, output plane, and the columns that they are moved by: ``shifts``, first 0.
    ``starts`` is [blocks * outputs * shifts + 1]."""

    taps: NDArray[Any]
    starts: NDArray[np.int32]
    shifts: NDArray[np.int64]
    blocks: int
    moves: NDArray[np.uint8]
    """Of each tap, the place in ``shifts``."""


def pack_sparse_conv(
    weight: Floats,
    offsets: NDArray[np.int64],
    planes: NDArray[np.int64],
    moves: NDArray[np.int64],
    block_planes: int,
) -> SparseConvPack:
    """``weight`` [outputs, taps]; where each tap reads [outputs or 1, taps], from which plane, and how far what it gives is
    moved, of the same shape."""
    outputs = len(weight)
    row, column = np.nonzero(weight)
    where = row if len(offsets) > 1 else 0
    offset, plane, move = offsets[where, column], planes[where, column], moves[where, column]
    if offset.size and (offset.max() >= 2**31 or offset.min() < -(2**31)):
        raise GraphError("a layer is too large: its input does not fit 32-bit offsets.")
    shifts = np.array([0, *sorted(set(move.tolist()) - {0})], np.int64)
    group = np.zeros_like(move)
    for index, shift in enumerate(shifts):
        group[move == shift] = index
    blocks = max(1, -(-(int(planes.max()) + 1) // block_planes))
    key = (plane // block_planes * outputs + row) * len(shifts) + group
    order = np.argsort(key, kind="stable")
    taps = aligned(len(row) + 2, TAP)  # the kernels know where they read from two taps before
    taps["offset"][: len(row)], taps["weight"][: len(row)] = offset[order], weight[row, column][order]
    starts = np.zeros(blocks * outputs * len(shifts) + 1, np.int32)
    np.cumsum(np.bincount(key, minlength=blocks * outputs * len(shifts)), out=starts[1:])
    which: NDArray[np.uint8] = aligned(len(taps), np.uint8)
    which[: len(row)] = group[order]
    return SparseConvPack(taps, starts, shifts, blocks, which)


def pack_few_sparse_conv(
    weight: Floats, offsets: NDArray[np.int64], planes: NDArray[np.int64], moves: NDArray[np.int64]
) -> SparseConvPack:
    """The same for taps that are read where they lie: ``starts`` is [outputs + 1]."""
    packed = pack_sparse_conv(weight, offsets + moves, planes, moves, int(planes.max()) + 1)
    starts: NDArray[np.int32] = np.ascontiguousarray(packed.starts[:: len(packed.shifts)])
    return replace(packed, starts=starts)


def pack_dense_hx16(weight: Floats, height: int) -> Floats:
    """``weight`` [outputs, taps] as [outputs / height, taps, height], zeros for outputs that are not there."""
    outputs, taps = weight.shape
    tall = -(-outputs // height)
    full = np.zeros((tall * height, taps), np.float32)
    full[:outputs] = weight
    out: Floats = aligned((tall, taps, height), np.float32)
    out[:] = full.reshape(tall, height, taps).transpose(0, 2, 1)
    return out


def pack_dense_px32(weight: Floats) -> Floats:
    """``weight`` [outputs, taps] as [outputs / 32, taps, 32]; of the last group only 16 where no more are left."""
    outputs, taps = weight.shape
    rows = -(-outputs // SLICE_ROWS) * SLICE_ROWS
    full = np.zeros((rows, taps), np.float32)
    full[:outputs] = weight
    out: Floats = aligned(rows * taps, np.float32)
    for begin in range(0, rows, 2 * SLICE_ROWS):
        group = full[begin : begin + 2 * SLICE_ROWS].T
        out[begin * taps : begin * taps + group.size] = group.ravel()
    return out


@dataclass(frozen=True, eq=False)
class SellPack:
    """16 rows by 64 or 128 columns at a time, each with as many slots of 16 weights as its fullest row needs."""

    first: NDArray[np.int64]
    slots: NDArray[np.uint16]
    columns: NDArray[np.uint8]
    values: NDArray[Any]
    scales: Floats | None
    dtype: str
    order: NDArray[np.int32] | None
    """Which output each row is, where rows of about as many weights were put together; those that are none come to lie
    behind the last output."""


_WORTH_ORDERING = 0.95
"""The share of slots that must be left: outputs are then written one by one."""

_AT_ONCE = 128
"""Rows among which a slice chooses: with more it would take long to make a program."""

_GROWTH, _NEVER = 2**20, 2**60
"""Of two rows that let a slice grow as much, the fuller one is taken."""


def pack_sell(weight: Floats, dtype: str = "float32", width: int = 64) -> SellPack:
    """``weight`` [outputs, inputs]; ``dtype`` of the packed values is float32, bfloat16 or int8 with a scale per row;
    ``width`` columns (64 or 128) make a block."""
    outputs, inputs = weight.shape
    slices, blocks = -(-outputs // SLICE_ROWS), -(-inputs // width)
    row, column = np.nonzero(weight)
    cell = row * blocks + column // width  # ascending: rows by rows, and within a row by columns
    counts = np.bincount(cell, minlength=slices * SLICE_ROWS * blocks)
    rank = np.arange(len(cell)) - np.repeat(np.cumsum(counts) - counts, counts)
    by_row = counts.reshape(slices * SLICE_ROWS, blocks)
    plain, order = np.arange(len(by_row)), _alike(by_row)
    is_ordered = _fullest(by_row, order).sum() <= _WORTH_ORDERING * _fullest(by_row, plain).sum()
    order = order if is_ordered else plain
    slots, lane = _fullest(by_row, order), np.argsort(order)[row]
    begin = np.zeros(slices * blocks + 1, np.int64)
    np.cumsum(slots.ravel(), out=begin[1:])
    slot = begin[lane // SLICE_ROWS * blocks + column // width] + rank
    place = slot * SLICE_ROWS + lane % SLICE_ROWS
    # the kernels read four slots at a time, never more than there are; 64 spare bytes let narrow loads be wide
    columns = aligned(int(begin[-1]) * SLICE_ROWS + 64, np.uint8)
    columns[place] = column % width
    scales = padded(int8_scales(weight), slices * SLICE_ROWS) if dtype == "int8" else None
    stored = _stored(weight[row, column], dtype, None if scales is None else scales[row])
    values = aligned(len(columns), stored.dtype)
    values[place] = stored
    if scales is not None:
        scales = padded(scales[order], len(order))
    places = order.astype(np.int32) if is_ordered else None
    return SellPack(begin[::blocks].copy(), slots.astype(np.uint16), columns, values, scales, dtype, places)


def _fullest(weights: NDArray[np.int64], order: NDArray[np.int64]) -> NDArray[np.int64]:
    """[slices, blocks]: the most weights that a row of a slice has in each block."""
    most: NDArray[np.int64] = weights[order].reshape(-1, SLICE_ROWS, weights.shape[1]).max(axis=1)
    return most


def _alike(weights: NDArray[np.int64]) -> NDArray[np.int64]:
    """An order of rows with ``weights`` [rows, blocks] in which 16 that follow each other have about as many in each block.

    Sorted by their fullest block first; then, among some that follow each other, a slice takes the row that makes it grow
    least. Where rows are very uneven the latter spoils the former, and is left. Slices that would follow each other come to
    lie far apart, so that parts of all, as threads take them, have about as much work.
    """
    order = np.lexsort((weights.argmax(axis=1), -weights.max(axis=1)))
    parts = [order[begin : begin + _AT_ONCE] for begin in range(0, len(order), _AT_ONCE)]
    grouped = np.concatenate([part[_grouped(weights[part])] for part in parts])
    if _fullest(weights, grouped).sum() < _fullest(weights, order).sum():
        order = grouped
    slices = order.reshape(-1, SLICE_ROWS)
    digits = max(1, (len(slices) - 1).bit_length())
    turned = [int(f"{index:0{digits}b}"[::-1], 2) for index in range(len(slices))]
    return slices[np.argsort(turned, kind="stable")].ravel()


def _grouped(weights: NDArray[np.int64]) -> list[int]:
    left, total, order = np.ones(len(weights), bool), weights.sum(axis=1), []
    for _ in range(len(weights) // SLICE_ROWS):
        row = int(np.where(left, total, -1).argmax())
        most = weights[row]
        for index in range(SLICE_ROWS):
            if index:
                growth = np.maximum(weights - most, 0).sum(axis=1)
                row = int(np.where(left, _GROWTH * growth - total, _NEVER).argmin())
                most = np.maximum(most, weights[row])
            order.append(row)
            left[row] = False
    return order


@dataclass(frozen=True, eq=False)
class BitmaskPack:
    """8 rows by 64 columns at a time: a bit for each weight, and the values of those that are not zero."""

    first: NDArray[np.int64]
    bits: NDArray[np.uint64]
    values: NDArray[Any]
    scales: Floats | None


def pack_bitmask(weight: Floats, dtype: str = "float32") -> BitmaskPack:
    """``weight`` [outputs, inputs]; ``dtype`` as for ``pack_sell``."""
    outputs, inputs = weight.shape
    groups, blocks = -(-outputs // BITMAP_ROWS), -(-inputs // BITMAP_COLUMNS)
    full = np.zeros((groups * BITMAP_ROWS, blocks * BITMAP_COLUMNS), np.float32)
    full[:outputs, :inputs] = weight
    # [groups, blocks, rows, columns]: the order in which they are read
    cells = full.reshape(groups, BITMAP_ROWS, blocks, BITMAP_COLUMNS).transpose(0, 2, 1, 3)
    kept = cells != 0
    bits = aligned((groups, blocks, BITMAP_ROWS), np.uint64)
    bits[:] = np.packbits(kept, axis=-1, bitorder="little").view("<u8")[..., 0]
    first = np.zeros(groups + 1, np.int64)
    np.cumsum(kept.sum(axis=(1, 2, 3)), out=first[1:])
    scales = padded(int8_scales(weight), len(full)) if dtype == "int8" else None
    row = None
    if scales is not None:
        row = np.broadcast_to(scales.reshape(groups, 1, BITMAP_ROWS, 1), cells.shape)[kept]
    stored = _stored(cells[kept], dtype, row)
    values = aligned(len(stored) + SLICE_ROWS, stored.dtype)  # the kernels read whole vectors
    values[: len(stored)] = stored
    return BitmaskPack(first, bits, values, scales)


def _stored(values: Floats, dtype: str, scales: Floats | None) -> NDArray[Any]:
    """Values in the type in which kernels read them; ``scales`` are those of their rows."""
    if dtype == "int8" and scales is not None:
        steps: NDArray[np.int8] = np.rint(values / scales).astype(np.int8)
        return steps
    return to_bfloat16(values) if dtype == "bfloat16" else values


def pack_gemv(weight: Floats, dtype: str = "float32") -> tuple[NDArray[Any], Floats | None]:
    """``weight`` [outputs, inputs] as [outputs / 8, inputs / 16, 8, 16], in the order in which it is read; and scales, for
    int8."""
    outputs, inputs = weight.shape
    rows = -(-outputs // 8) * 8
    scales = padded(int8_scales(weight), rows) if dtype == "int8" else None
    stored = _stored(weight, dtype, None if scales is None else scales[:outputs, None])
    full = np.zeros((rows, -(-inputs // 16) * 16), stored.dtype)
    full[:outputs, :inputs] = stored
    out = aligned((rows // 8, full.shape[1] // 16, 8, 16), stored.dtype)
    out[:] = full.reshape(rows // 8, 8, -1, 16).transpose(0, 2, 1, 3)
    return out, scales


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
