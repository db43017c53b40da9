"""Weights in the types in which kernels read them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


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


def stored(values: Floats, dtype: str, scales: Floats | None) -> NDArray[Any]:
    """``values`` as float32, bfloat16, or int8 with ``scales``, what a step of each is worth."""
    if dtype == "int8" and scales is not None:
        steps: NDArray[np.int8] = np.rint(values / scales).astype(np.int8)
        return steps
    return to_bfloat16(values) if dtype == "bfloat16" else values
