"""A pattern and its views say what the dense matrix says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ticketsmith.sparse.bitmask import Bitmask
from ticketsmith.sparse.pattern import Pattern
from ticketsmith.sparse.sell import Sell
from ticketsmith.sparse.sparse_conv import SparseConv, in_fours
from ticketsmith.sparse.values import from_pairs, pairs, quantized


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
@given(matrices(), st.sampled_from((64, 128, 256)), st.sampled_from((1, 4)))
def test_sell_holds_every_weight_once(weight: NDArray[np.float32], width: int, four: int) -> None:
    sell = Sell.of(Pattern.of(weight), width, four)
    values, _ = sell.weights(weight, "float32")
    slices, blocks = sell.slots.shape
    dense = np.zeros((16 * slices, blocks * width), np.float32)
    order = np.arange(16 * slices) if sell.order is None else sell.order
    slot = 0
    for s in range(slices):
        assert slot == sell.first[s]
        for block in range(blocks):
            for _ in range(sell.slots[s, block]):
                lanes = slice(16 * four * slot, 16 * four * (slot + 1))
                columns = block * width + sell.columns[lanes].astype(np.int64)
                np.add.at(dense, (np.repeat(order[16 * s : 16 * s + 16], four), columns), values[lanes])
                slot += 1
    assert (dense[: weight.shape[0], : weight.shape[1]] == weight).all()
    assert np.count_nonzero(dense) == np.count_nonzero(weight)


@settings(max_examples=60, deadline=None)
@given(matrices())
def test_bitmask_holds_every_weight_once(weight: NDArray[np.float32]) -> None:
    bitmask = Bitmask.of(Pattern.of(weight))
    values, _ = bitmask.weights(weight, "float32")
    groups, blocks, _ = bitmask.bits.shape
    dense, taken = np.zeros((8 * groups, 64 * blocks), np.float32), 0
    for (group, block, row), bits in np.ndenumerate(bitmask.bits):
        if block == row == 0:
            assert bitmask.first[group] == taken
        columns = np.flatnonzero((bits >> np.arange(64, dtype=np.uint64)) & np.uint64(1))
        dense[8 * group + row, 64 * block + columns] = values[taken : taken + len(columns)]
        taken += len(columns)
    assert (dense[: weight.shape[0], : weight.shape[1]] == weight).all()


@settings(max_examples=60, deadline=None)
@given(matrices(), st.integers(1, 9))
def test_sparse_conv_holds_every_weight_once(weight: NDArray[np.float32], block: int) -> None:
    outputs, taps = weight.shape
    offsets, planes = np.arange(taps)[None] * 100, np.arange(taps)[None] // 3
    moves = np.arange(taps)[None] % 3 - 1
    pattern = Pattern.of(weight)
    conv = SparseConv.of(pattern, offsets, planes, moves, block)
    packed = conv.packed(pattern.values(weight))
    dense = np.zeros_like(weight)
    for index, (begin, end) in enumerate(zip(conv.starts[:-1], conv.starts[1:], strict=True)):
        output, group = index // len(conv.shifts) % outputs, index % len(conv.shifts)
        for tap in packed[begin:end]:
            place = tap["offset"] // 100
            assert moves[0, place] == conv.shifts[group]
            assert planes[0, place] // block == index // len(conv.shifts) // outputs
            dense[output, place] = tap["weight"]
    assert (dense == weight).all()


@settings(max_examples=60, deadline=None)
@given(matrices())
def test_fours_of_outputs_hold_every_weight_once(weight: NDArray[np.float32]) -> None:
    outputs, taps = weight.shape
    offsets = np.arange(taps)[None] * 100
    pattern = in_fours(weight)
    conv = SparseConv.of(pattern, offsets, offsets // 100, offsets * 0, taps)
    places, weights = conv.fours(weight)
    dense = np.zeros((4 * len(pattern.mask), taps), np.float32)
    for four, (begin, end) in enumerate(zip(conv.starts[:-1], conv.starts[1:], strict=True)):
        dense[4 * four : 4 * four + 4, places[begin:end] // 100] = weights[begin:end].T
    assert (dense[:outputs] == weight).all()
    assert not dense[outputs:].any()


def test_new_values_need_no_new_indices() -> None:
    """After a step of training, say: the views of one pattern pack them as those of a new one would."""
    random = np.random.default_rng(0)
    mask = random.random((40, 130)) < 0.2
    before, after = (random.standard_normal(mask.shape).astype(np.float32) * mask for _ in range(2))
    pattern, other, zeros = Pattern.of(before), Pattern.of(after), np.zeros((1, 130), np.int64)
    values = pattern.values(after)
    assert (Sell.of(pattern).packed(values) == Sell.of(other).weights(after, "float32")[0]).all()
    assert (Bitmask.of(pattern).packed(pattern.matrix(values)) == Bitmask.of(other).weights(after, "float32")[0]).all()
    taps = SparseConv.of(pattern, zeros, zeros, zeros, 1).packed(values)
    assert (taps == SparseConv.of(other, zeros, zeros, zeros, 1).packed(other.values(after))).all()


def test_a_pattern_cannot_be_changed() -> None:
    pattern = Pattern.of(np.eye(3))
    for array in (pattern.mask, *pattern.places):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


@settings(max_examples=60, deadline=None)
@given(matrices())
def test_numbers_of_4_bits_are_near_and_rounding_them_again_changes_nothing(weight: NDArray[np.float32]) -> None:
    numbers, scales = quantized(weight, "int4", len(weight))
    assert np.abs(numbers).max() <= 7
    rounded = numbers * scales[:, None]
    by_largest = np.abs(weight).max(axis=1, keepdims=True) / 7
    plain = np.rint(weight / np.where(by_largest, by_largest, 1)) * by_largest
    assert (((rounded - weight) ** 2).sum(axis=1) <= ((plain - weight) ** 2).sum(axis=1) + 1e-6).all()
    again, other = quantized(rounded.astype(np.float32), "int4", len(weight))
    assert (again == numbers).all()
    np.testing.assert_allclose(other, scales, rtol=1e-6)
    flat = np.append(numbers.ravel(), np.int8(0))[: numbers.size + numbers.size % 2]
    assert (from_pairs(pairs(flat)) == flat).all()
