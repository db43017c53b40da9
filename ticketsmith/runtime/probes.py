"""Whether a model treats the samples of a batch alike and apart: the runtime computes one sample at a time, so that what mixes
samples, or depends on how many there are, would come out wrong.

A model is run on two batches, a small one and a large one that holds the small one's samples in other places. Each value on
the way must be the same for a sample in both. This looks at every value and not at the outputs alone, so it also sees what
these numbers do not bring to light, such as a choice that they never take.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

SMALL, LARGE, FIRST = 2, 5, 1
"""Samples of the two batches, and the place of the small one's first sample in the large one. No order that is turned round or
rolled has the same neighbours in both, and neither end is the same."""

MANY, MOST = 17, 129
"""Samples of a third batch, of which only the operators and the outputs are compared: at least, and where values are small."""

MOST_BYTES = 2**30
"""Of values that are kept for comparison; later ones are not compared."""

_RELATIVE, _OF_LARGEST = 1e-3, 1e-5
"""How far float32 may be from itself in another batch: of each number, and of the largest one."""

_MOST_FLIPS = 1e-3
"""The share of truths and whole numbers that may differ, since rounding may decide them."""


def small(samples: Any) -> Any:
    """The small batch of ``samples`` [LARGE, ...], which are the large one."""
    return samples[FIRST : FIRST + SMALL]


def random_batch(example: Array, seed: int) -> Array:
    """Samples [LARGE, ...] that differ and are of the kind of ``example`` [batch, ...]: its numbers in other places, so that
    tokens are in their vocabulary, masks are zeros and ones, and floats keep their signs."""
    generator = np.random.default_rng(seed)
    shape = (LARGE, *example.shape[1:])
    values = np.unique(example)
    if example.dtype.kind == "f":
        values = values[np.isfinite(values)]
        if len(values) < 2 and not values.any():
            return generator.standard_normal(shape).astype(example.dtype)
        return (generator.choice(values, shape) * generator.uniform(0.5, 1.0, shape)).astype(example.dtype)
    if len(values) < 2:  # one number: a token, a length or a mask, and its neighbour below
        value = int(values[0])
        values = np.array([value, value - 1 if value > 0 else 1], example.dtype)
    batch: Array = generator.choice(values, shape)
    if batch.ndim > 1 and batch.shape[-1] > 1 and values.max() <= 1:
        batch[..., 0] = 1  # so that no mask is empty
    return batch


def fault(one: Array, other: Array, scale: float = 0.0) -> str | None:
    """Why a value of the small batch and the same one of the large batch are not of each sample alone; None where they are.

    The batch may be any axis, or part of one. ``scale`` is the largest number that the value was computed from.
    """
    if one.ndim != other.ndim:
        return f"its shape is {one.shape} for {SMALL} samples and {other.shape} for {LARGE}"
    axes = [axis for axis, (m, n) in enumerate(zip(one.shape, other.shape, strict=True)) if m != n]
    if not axes:
        return None if same(one, other, scale) else "it is one value for the whole batch"
    axis = axes[0]
    if len(axes) > 1 or one.shape[axis] * LARGE != other.shape[axis] * SMALL:
        return f"its shape is {one.shape} for {SMALL} samples and {other.shape} for {LARGE}"
    inside = one.shape[axis] // SMALL
    before, behind = one.shape[:axis], one.shape[axis + 1 :]
    for outer in (n for n in range(1, inside + 1) if inside % n == 0):
        parts = (*before, outer, -1, inside // outer, *behind)
        left = one.reshape(*parts[: axis + 1], SMALL, *parts[axis + 2 :])
        right = other.reshape(*parts[: axis + 1], LARGE, *parts[axis + 2 :])
        right = right[(slice(None),) * (axis + 1) + (slice(FIRST, FIRST + SMALL),)]
        if same(left, right, scale):
            return None
    return "what it gives for a sample depends on the other samples, their number or their order"


def largest(arrays: Sequence[Array]) -> float:
    """The largest finite number of all."""
    finite = (array[np.isfinite(array)] for array in arrays if array.dtype.kind == "f")
    return max((float(np.abs(one).max(initial=0.0)) for one in finite), default=0.0)


def same(one: Array, other: Array, scale: float = 0.0) -> bool:
    """Whether two arrays of one shape are equal but for rounding."""
    if one.dtype.kind != "f":
        return bool(np.count_nonzero(one != other) <= _MOST_FLIPS * one.size)
    with np.errstate(all="ignore"):
        allowed = _RELATIVE * np.abs(one) + _OF_LARGEST * max(scale, largest([one]))
        near = (np.abs(one - other) <= allowed) | (one == other) | (np.isnan(one) & np.isnan(other))
    return bool(near.all())
