"""A pattern and its views say what the dense matrix says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ticketsmith.sparse.bitmask import Bitmask, pack_bitmask
from ticketsmith.sparse.pattern import Pattern
from ticketsmith.sparse.sell import Sell, pack_sell
from ticketsmith.sparse.sparse_conv import SparseConv, pack_sparse_conv


@st.composite
def matrices(draw: st.DrawFn) -> NDArray[np.float32]:
    """Of any size, with empty rows, uneven rows, negative zeros."""
    rows, columns = draw(st.integers(1, 70)), draw(st.integers(1, 300))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    density = draw(st.sampled_from((0.0, 0.02, 0.3, 0.9, 1.0))) * random.random((rows, 1)) ** draw(st.integers(0, 3))
    values = random.standard_normal((rows, columns)).astype(np.float32)
    return np.where(random.random((rows, columns)) < density, values, np.float32(-0.0))


@settings(max_examples=60, deadline=None)
@given(matrices())
def test_a_pattern_gives_values_back_and_so_does_its_transpose(weight: NDArray[np.float32]) -> None:
    pattern = Pattern.of(weight)
    values, other = pattern.values(weight), pattern.transposed
    assert (pattern.matrix(values) == weight).all()
    assert (other.matrix(values[pattern.permutation]) == weight.T).all()
    assert (np.diff(pattern.starts) == (weight != 0).sum(axis=1)).all()
    assert (pattern.places[0] == np.repeat(np.arange(len(weight)), np.diff(pattern.starts))).all()


@settings(max_examples=60, deadline=None)
@given(matrices(), st.sampled_from((64, 128)))
def test_sell_holds_every_weight_once(weight: NDArray[np.float32], width: int) -> None:
    pack = pack_sell(weight, width=width)
    slices, blocks = pack.slots.shape
    dense = np.zeros((16 * slices, blocks * width), np.float32)
    order = np.arange(16 * slices) if pack.order is None else pack.order
    slot = 0
    for s in range(slices):
        assert slot == pack.first[s]
        for block in range(blocks):
            for _ in range(pack.slots[s, block]):
                lanes = slice(16 * slot, 16 * slot + 16)
                np.add.at(dense, (order[16 * s : 16 * s + 16], block * width + pack.columns[lanes]), pack.values[lanes])
                slot += 1
    assert (dense[: weight.shape[0], : weight.shape[1]] == weight).all()
    assert np.count_nonzero(dense) == np.count_nonzero(weight)


@settings(max_examples=60, deadline=None)
@given(matrices())
def test_bitmask_holds_every_weight_once(weight: NDArray[np.float32]) -> None:
    pack = pack_bitmask(weight)
    groups, blocks, _ = pack.bits.shape
    dense, taken = np.zeros((8 * groups, 64 * blocks), np.float32), 0
    for (group, block, row), bits in np.ndenumerate(pack.bits):
        if block == row == 0:
            assert pack.first[group] == taken
        columns = np.flatnonzero((bits >> np.arange(64, dtype=np.uint64)) & np.uint64(1))
        dense[8 * group + row, 64 * block + columns] = pack.values[taken : taken + len(columns)]
        taken += len(columns)
    assert (dense[: weight.shape[0], : weight.shape[1]] == weight).all()


@settings(max_examples=60, deadline=None)
@given(matrices(), st.integers(1, 9))
def test_sparse_conv_holds_every_weight_once(weight: NDArray[np.float32], block: int) -> None:
    outputs, taps = weight.shape
    offsets, planes = np.arange(taps)[None] * 100, np.arange(taps)[None] // 3
    moves = np.arange(taps)[None] % 3 - 1
    pack = pack_sparse_conv(weight, offsets, planes, moves, block)
    dense = np.zeros_like(weight)
    for index, (begin, end) in enumerate(zip(pack.starts[:-1], pack.starts[1:], strict=True)):
        output, group = index // len(pack.shifts) % outputs, index % len(pack.shifts)
        for tap in pack.taps[begin:end]:
            place = tap["offset"] // 100
            assert moves[0, place] == pack.shifts[group]
            assert planes[0, place] // block == index // len(pack.shifts) // outputs
            dense[output, place] = tap["weight"]
    assert (dense == weight).all()


def test_new_values_need_no_new_indices() -> None:
    """After a step of training, say: the views of one pattern pack them as those of a new one would."""
    random = np.random.default_rng(0)
    mask = random.random((40, 130)) < 0.2
    before, after = (random.standard_normal(mask.shape).astype(np.float32) * mask for _ in range(2))
    pattern, zeros = Pattern.of(before), np.zeros((1, 130), np.int64)
    values = pattern.values(after)
    assert (Sell.of(pattern).packed(values) == pack_sell(after).values).all()
    assert (Bitmask.of(pattern).packed(pattern.matrix(values)) == pack_bitmask(after).values).all()
    taps = SparseConv.of(pattern, zeros, zeros, zeros, 1).packed(values)
    assert (taps == pack_sparse_conv(after, zeros, zeros, zeros, 1).taps).all()


def test_a_pattern_cannot_be_changed() -> None:
    pattern = Pattern.of(np.eye(3))
    for array in (pattern.mask, *pattern.places):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
