"""Dense weights in the order in which the kernels read them; sparse ones are views in :mod:`ticketsmith.sparse`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ticketsmith.sparse.values import Floats, aligned, pairs, quantized, whole_numbers


def pack_dense_hx16(weight: NDArray[Any], height: int) -> NDArray[Any]:
    """``weight`` [outputs, taps] as [outputs / height, taps, height], zeros for outputs that are not there."""
    outputs, taps = weight.shape
    tall = -(-outputs // height)
    full = np.zeros((tall * height, taps), weight.dtype)
    full[:outputs] = weight
    out: NDArray[Any] = aligned((tall, taps, height), weight.dtype)
    out[:] = full.reshape(tall, height, taps).transpose(0, 2, 1)
    return out


def pack_dense_px32(weight: NDArray[Any]) -> NDArray[Any]:
    """``weight`` [outputs, taps] as [outputs / 32, taps, 32]; of the last group only 16 where no more are left."""
    outputs, taps = weight.shape
    rows = -(-outputs // 16) * 16
    full = np.zeros((rows, taps), weight.dtype)
    full[:outputs] = weight
    out: NDArray[Any] = aligned(rows * taps, weight.dtype)
    for begin in range(0, rows, 32):
        group = full[begin : begin + 32].T
        out[begin * taps : begin * taps + group.size] = group.ravel()
    return out


def pack_gemv(weight: Floats, dtype: str = "float32") -> tuple[NDArray[Any], Floats | None]:
    """``weight`` [outputs, inputs] as [outputs / 8, inputs / 16, 8, 16], in the order in which it is read; and scales, for
    int8."""
    outputs, inputs = weight.shape
    rows = -(-outputs // 8) * 8
    values, scales = quantized(weight, dtype, rows)
    full = np.zeros((rows, -(-inputs // 16) * 16), values.dtype)
    full[:outputs, :inputs] = values
    out = aligned((rows // 8, full.shape[1] // 16, 8, 16), values.dtype)
    out[:] = full.reshape(rows // 8, 8, -1, 16).transpose(0, 2, 1, 3)
    return out, scales


def pack_gemv_dot(weight: Floats, dtype: str) -> tuple[NDArray[Any], Floats, NDArray[np.int32]]:
    """``weight`` [outputs, inputs] as int8 or int4 [outputs / 8, inputs / 64, 8, 64], in the order in which it is read; what a
    step of each row is worth, and the sum of its steps, [outputs / 8, 16]."""
    outputs, inputs = weight.shape
    groups, blocks = -(-outputs // 8), -(-inputs // 64)
    numbers, *by_row = whole_numbers(weight, dtype, groups * 8)
    full = np.zeros((groups * 8, blocks * 64), np.int8)
    full[:outputs, :inputs] = numbers
    ordered = full.reshape(groups, 8, blocks, 64).transpose(0, 2, 1, 3)
    values = pairs(ordered.ravel()) if dtype == "int4" else ordered
    out = aligned(values.shape, values.dtype)
    out[:] = values
    scales, totals = (aligned((groups, 16), one.dtype) for one in by_row)
    scales[:, :8], totals[:, :8] = (one.reshape(groups, 8) for one in by_row)
    return out, scales, totals
