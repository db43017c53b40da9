"""Every kernel by itself: an operation on memory of its own, and what NumPy computes for it in float64.

``CASES`` has an entry for each operation of ``ticketsmith.native.abi.KERNELS``; ``tests/native/test_kernels.py`` compares their
answers, and ``benchmarks/kernels.py`` times them.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ticketsmith import native
from ticketsmith.native import abi
from ticketsmith.runtime.dense_packing import pack_dense_hx16, pack_dense_px32, pack_gemv, pack_gemv_dot
from ticketsmith.runtime.lower.arrays import attention_room, dot_attention_room
from ticketsmith.runtime.winograd import FREQUENCIES, Tiling, pack_winograd
from ticketsmith.sparse.bitmask import Bitmask
from ticketsmith.sparse.pattern import Pattern
from ticketsmith.sparse.sell import Sell
from ticketsmith.sparse.sparse_conv import STRETCH, Quads, SparseConv, in_fours
from ticketsmith.sparse.values import aligned, each_of_four, fours, padded, quantized

_SLACK = 1024
"""Floats before and behind all values: kernels read whole vectors, as in a program's scratch memory."""


def up(number: int) -> int:
    return -(-number // 16) * 16


@dataclass(eq=False)
class Case:
    """Operations that compute ``expected``; ``outputs`` reads what they wrote."""

    name: str
    size: int
    random: np.random.Generator = field(init=False)
    operations: list[abi.Operation] = field(default_factory=list)
    expected: NDArray[Any] = field(default_factory=lambda: np.zeros(0))
    outputs: Callable[[], NDArray[Any]] = field(default=lambda: np.zeros(0))
    work: int = 0
    samples: int = 1
    tolerance: float = 2e-5
    """Of the largest number that is expected."""
    position: int = 0

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.size)
        self.memory = aligned(8 * up(self.size) ** 2 + 400 * up(self.size) + 8 * _SLACK + 150_000, np.float32)
        self.end, self.kept = _SLACK, list[NDArray[Any]]()
        self.spaces = (ctypes.c_void_p * (abi.Space.MORE_OUTPUTS + abi.MORE))()
        self.spaces[abi.Space.SAMPLE] = self.memory.ctypes.data

    def numbers(self, *shape: int) -> NDArray[np.float32]:
        return self.random.standard_normal(shape).astype(np.float32)

    def sparse(self, *shape: int) -> NDArray[np.float32]:
        return self.numbers(*shape) * (self.random.random(shape) < 0.2)

    def address(self, array: NDArray[Any] | None) -> int | None:
        if array is None:
            return None
        self.kept.append(np.ascontiguousarray(array))
        return self.kept[-1].ctypes.data

    def room(self, floats: int) -> int:
        base, self.end = self.end, self.end + up(floats) + 64
        assert self.end + _SLACK < len(self.memory)
        return base

    def value(self, numbers: NDArray[Any]) -> abi.Value:
        """[features] as a vector, [planes, columns] or [planes, rows, columns] as planes whose rows begin with vectors."""
        if numbers.ndim == 1:
            base = self.room(len(numbers))
            self.memory[base : base + len(numbers)] = numbers
            return abi.Value(base, 1, 1, abi.Space.SAMPLE, len(numbers), 1, 1)
        planes, (rows, cols) = len(numbers), (1, *numbers.shape[1:])[-2:]
        row = up(cols)
        value = abi.Value(self.room(planes * rows * row), rows * row, row, abi.Space.SAMPLE, planes, rows, cols)
        self.floats(value)[:] = numbers.reshape(planes, rows, cols)
        return value

    def floats(self, value: abi.Value) -> NDArray[Any]:
        """[planes, rows, columns] in memory."""
        strides = (4 * value.plane, 4 * value.row, 4)
        shape = value.planes, value.rows, value.cols
        return np.lib.stride_tricks.as_strided(self.memory[value.base :], shape, strides)

    def array(self, numbers: NDArray[Any], axes: int) -> abi.Array:
        """In row-major order, with axes of size 1 before, ``axes`` in all."""
        base = self.room(numbers.size)
        self.memory[base : base + numbers.size] = numbers.ravel()
        strides = [0] * (axes - numbers.ndim) + [stride // numbers.itemsize for stride in numbers.strides]
        return abi.Array(base, 0, (*strides, *[0] * (6 - axes)), abi.Space.SAMPLE, 0)

    def add(self, operation: abi.Operation, expected: NDArray[Any], out: abi.Value | abi.Array, work: int) -> Case:
        self.then(operation)
        self.expected, self.work = expected.astype(np.float64), work
        if isinstance(out, abi.Value):
            self.outputs = lambda: self.floats(out).reshape(expected.shape).copy()
        else:
            self.outputs = lambda: self.memory[out.base : out.base + expected.size].reshape(expected.shape).copy()
        return self

    def then(self, operation: abi.Operation) -> None:
        operation.op = abi.Op(abi.OPERATIONS.index(type(operation)), 0, 0)
        self.operations.append(operation)

    def run(self, isa: abi.Isa, parts: int = 1) -> int:
        """By so many threads' shares, one after the other; the status."""
        for operation in self.operations:
            for part in range(parts):
                status = int(
                    native.library().ts_kernel(
                        ctypes.addressof(operation), int(isa), self.spaces, self.samples, self.position, part, parts
                    )
                )
                if status:
                    return status
        return 0


def _product(case: Case, source: abi.Value, outputs: int, columns: tuple[int, ...]) -> tuple[dict[str, Any], Any, Any]:
    """The ends of a product with ReLU, bias and residual; a function of the sums; where they are written."""
    residual, bias = case.numbers(outputs, *columns), case.numbers(outputs)
    out, other = case.value(np.zeros((outputs, *columns))), case.value(residual)
    common = {
        "in_": source, "out": out, "residual": other, "bias": case.address(padded(bias, up(outputs))),
        "activation": abi.Activation.RELU, "has_residual": 1,
    }  # fmt: skip
    shaped = bias.reshape(-1, *[1] * len(columns))
    return common, lambda sums: np.maximum(sums + shaped + residual, 0), out


def _rounded(weight: NDArray[np.float32], dtype: str) -> NDArray[np.float64]:
    values, scales = quantized(weight, dtype, len(weight))
    if scales is not None:
        return values * scales[:, None].astype(np.float64)
    if dtype == "bfloat16":
        return (values.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return weight.astype(np.float64)


def _vector_product(case: Case, dtype: str, dense: bool = False) -> tuple[Any, ...]:
    outputs, inputs = case.size, case.size + 7
    weight, x = (case.numbers if dense else case.sparse)(outputs, inputs), case.numbers(inputs)
    common, finish, out = _product(case, case.value(x), outputs, ())
    return weight, common, finish(_rounded(weight, dtype) @ x.astype(np.float64)), out


def _sells(size: int) -> Iterator[Case]:
    for width, dtype in ((64, "float32"), (128, "float32"), (64, "bfloat16"), (64, "int8"), (128, "int8")):
        case = Case(f"{width} columns, {dtype}", size)
        weight, common, expected, out = _vector_product(case, dtype)
        p = Sell.of(Pattern.of(weight), width)
        if p.order is not None:
            bias = np.ctypeslib.as_array((ctypes.c_float * up(size)).from_address(common["bias"]))
            common["bias"] = case.address(padded(bias[p.order], up(size)))
        values, scales = map(case.address, p.weights(weight, dtype))
        indices = {name: case.address(getattr(p, name)) for name in ("first", "slots", "columns", "order")}
        yield case.add(
            abi.Sell(
                **common, **indices, values=values, scales=scales, slices=len(p.slots), blocks=p.slots.shape[1], width=width,
                dtype=abi.Dtype[dtype.upper()],
            ), expected, out, np.count_nonzero(weight),
        )  # fmt: skip


def _bitmasks(size: int) -> Iterator[Case]:
    for dtype in ("float32", "bfloat16", "int8"):
        case = Case(dtype, size)
        weight, common, expected, out = _vector_product(case, dtype)
        p = Bitmask.of(Pattern.of(weight))
        values, scales = map(case.address, p.weights(weight, dtype))
        operation = abi.Bitmask(
            **common, first=case.address(p.first), bits=case.address(p.bits), values=values, scales=scales,
            blocks=p.bits.shape[1], dtype=abi.Dtype[dtype.upper()],
        )  # fmt: skip
        yield case.add(operation, expected, out, np.count_nonzero(weight))


def _gemvs(size: int) -> Iterator[Case]:
    for dtype in ("float32", "bfloat16", "int8"):
        case = Case(dtype, size)
        weight, common, expected, out = _vector_product(case, dtype, dense=True)
        weights, scales = (case.address(array) for array in pack_gemv(weight, dtype))
        kind = abi.Dtype[dtype.upper()]
        operation = abi.Gemv(**common, weights=weights, scales=scales, inputs=weight.shape[1], dtype=kind)
        yield case.add(operation, expected, out, weight.size)


def _range(x: NDArray[np.float32]) -> tuple[Any, Any]:
    """What a step of ``x`` [..., inputs] in 8 bits is worth, and which byte is zero: of each row."""
    low, high = np.minimum(x.min(axis=-1), 0), np.maximum(x.max(axis=-1), 0)
    step = np.maximum((high - low) / np.float32(255), np.float32(1e-30))
    return step, np.clip(np.rint(-low * (np.float32(1) / step)), 0, 255)


def _bytes(x: NDArray[np.float32]) -> NDArray[np.float32]:
    step, zero = _range(x)
    return np.clip(np.rint(x * (np.float32(1) / step)[..., None]) + zero[..., None], 0, 255)


def _quantised(case: Case, x: NDArray[np.float32]) -> tuple[abi.Value, abi.Operation]:
    source, floats = case.value(x), 32 + -(-len(x) // 256) * 64
    out = abi.Value(case.room(floats), 1, 1, abi.Space.SAMPLE, floats, 1, 1)
    return out, abi.QuantiseVector(in_=source, out=out)


def _quantise_vectors(size: int) -> Iterator[Case]:
    for name in ("of both signs", "not negative", "zeros"):
        case = Case(name, size)
        x = case.numbers(size) * np.float32(name != "zeros")
        x = np.abs(x) if name == "not negative" else x
        out, operation = _quantised(case, x)
        step, zero = _range(x)
        case.add(operation, np.array([step, zero, *_bytes(x)]), out, size)

        def outputs(memory: NDArray[np.float32] = case.memory[out.base :], size: int = size) -> NDArray[Any]:
            numbers = [memory[:1], memory[16:17].view(np.int32), memory[32:].view(np.uint8)[:size]]
            return np.concatenate(numbers, dtype=np.float64)

        case.outputs = outputs
        yield case


def _dot_product(case: Case, bits: int, dense: bool = False) -> tuple[Any, ...]:
    """A product of whole numbers: weights, dtype, the fields that are not its own, and what comes out, and where."""
    outputs, inputs, dtype = case.size, 3 * case.size + 7, f"int{bits}"
    weight, x = (case.numbers if dense else case.sparse)(outputs, inputs), case.numbers(inputs)
    source, operation = _quantised(case, x)
    case.then(operation)
    common, finish, out = _product(case, source, outputs, ())
    step, zero = _range(x)
    expected = finish(_rounded(weight, dtype) @ (float(step) * (_bytes(x).astype(np.float64) - zero)))
    return weight, dtype, common, expected, out


def _sell_dots(size: int) -> Iterator[Case]:
    for width, bits in ((128, 8), (256, 8), (128, 4), (256, 4)):
        case = Case(f"{width} columns, int{bits}", size)
        weight, dtype, common, expected, out = _dot_product(case, bits)
        p = Sell.of(Pattern.of(weight), width, four=4)
        if p.order is not None:
            bias = np.ctypeslib.as_array((ctypes.c_float * up(size)).from_address(common["bias"]))
            common["bias"] = case.address(padded(bias[p.order], up(size)))
        values, scales, totals = map(case.address, p.dots(weight, dtype))
        indices = {name: case.address(getattr(p, name)) for name in ("first", "slots", "columns", "order")}
        yield case.add(
            abi.SellDot(
                **common, **indices, values=values, scales=scales, totals=totals, slices=len(p.slots), blocks=p.slots.shape[1],
                width=width, bits=bits,
            ), expected, out, np.count_nonzero(weight),
        )  # fmt: skip


def _gemv_dots(size: int) -> Iterator[Case]:
    for bits in (8, 4):
        case = Case(f"int{bits}", size)
        weight, dtype, common, expected, out = _dot_product(case, bits, dense=True)
        weights, scales, totals = map(case.address, pack_gemv_dot(weight, dtype))
        blocks = -(-weight.shape[1] // 64)
        operation = abi.GemvDot(**common, weights=weights, scales=scales, totals=totals, blocks=blocks, bits=bits)
        yield case.add(operation, expected, out, weight.size)


def _planes_in_bytes(case: Case, x: NDArray[np.float32], alike: bool, apart: bool = False) -> tuple[Any, ...]:
    """[planes, rows, columns] in whole numbers: the operation, where they and their ranges lie, and what they stand for."""
    source = case.value(x)
    planes, rows, cols = x.shape
    period = 1 if alike else source.row // 16
    plane, count = (source.plane // 4, planes) if apart else (source.plane, -(-planes // 4))
    out = abi.Value(case.room(count * plane + 16), plane, source.row, abi.Space.SAMPLE, count, rows, cols)
    range_ = abi.Value(case.room(32 * period), 1, 1, abi.Space.SAMPLE, 32 * period, 1, 1)
    column = np.arange(source.plane) % source.row < cols
    mask = (column.reshape(-1, 16) << np.arange(16)).sum(axis=-1).astype(np.uint16)
    operation = abi.QuantisePlanes(
        in_=source,
        out=out,
        range=range_,
        mask=case.address(mask),
        before=0,
        vectors=len(mask),
        period=period,
        alike=alike,
        apart=apart,
    )
    together = x.reshape(1, -1) if alike else x.transpose(2, 0, 1).reshape(cols, -1)
    step, zero = _range(together)
    near = step.astype(np.float64)[:, None] * (_bytes(together).astype(np.float64) - zero[:, None])
    near = near.reshape(x.shape) if alike else near.reshape(cols, planes, rows).transpose(1, 2, 0)
    return operation, out, range_, near, period


def _quantise_planes(size: int) -> Iterator[Case]:
    for alike, apart in itertools.product((True, False), (True, False)):
        case = Case(("one range" if alike else "a range for each column") + (", apart" if apart else ""), size)
        x = case.numbers(6, 2, size) * np.arange(1, size + 1, dtype=np.float32)
        operation, out, *_ = _planes_in_bytes(case, x, alike, apart)
        together = x.reshape(1, -1) if alike else x.transpose(2, 0, 1).reshape(size, -1)
        numbers = _bytes(together)
        numbers = numbers.reshape(x.shape) if alike else numbers.reshape(size, 6, 2).transpose(1, 2, 0)
        case.add(operation, numbers, out, x.size)

        def outputs(case: Case = case, out: abi.Value = out, apart: bool = apart, row: int = up(size)) -> NDArray[Any]:
            each = case.memory[out.base : out.base + out.planes * out.plane].view(np.uint8)
            each = (
                each.reshape(6, 2, row)
                if apart
                else each.reshape(2, 2, row, 4).transpose(0, 3, 1, 2).reshape(8, 2, row)
            )
            return each[:6, :, : out.cols].astype(np.float64)

        case.outputs = outputs
        yield case


def _splits(size: int) -> Iterator[Case]:
    for columns in (16, 32):
        case = Case(f"{columns} columns", size)
        each = case.random.integers(0, 256, (size, columns, 4)).astype(np.uint8)
        source, out = (case.value(numbers) for numbers in (each.view(np.float32)[..., 0], np.zeros((size, columns))))
        sides = [abi.Strided(one.base, columns, columns, 1, 0, abi.Space.SAMPLE) for one in (source, out)]
        case.then(abi.Copy(in_=sides[0], out=sides[1], planes=size, rows=1, cols=columns))
        case.add(abi.SplitFours(in_=out), each.transpose(0, 2, 1).reshape(size, -1), out, size)
        memory = case.memory[out.base :][: size * columns].view(np.uint8).reshape(size, -1)
        case.outputs = lambda memory=memory: memory.astype(np.float64)
        yield case


def _sparse_conv_bytes(size: int) -> Iterator[Case]:
    """A product with a range for each column, and a convolution of 3 by 1, in two blocks."""
    for name, kernel, rows in (("product", 1, 1), ("convolution", 3, 4)):
        case, row = Case(name, size), up(size)
        weight = case.sparse(11, 12 * kernel)
        operation, source, range_, x, period = _planes_in_bytes(
            case, case.numbers(12, rows, size), kernel > 1, apart=True
        )
        case.then(operation)
        high = rows - kernel + 1
        common, finish, out = _product(case, source, 11, (high, size))
        numbers, scales = quantized(weight, "int8", up(11))
        planes, pattern = np.repeat(np.arange(12), kernel)[None], Pattern.of(numbers)
        offsets = planes * rows * row + np.tile(np.arange(kernel) * row, 12)[None]
        p = Quads.of(pattern, offsets, planes, block_planes=7)
        moved = np.stack([x[:, r : r + high] for r in range(kernel)], axis=1).reshape(12 * kernel, high, size)
        totals = padded(None, 11).view(np.int32)
        totals[:] = numbers.sum(axis=1, dtype=np.int32)
        vectors = high * row // 16
        mask = ((np.arange(high * row) % row < size).reshape(-1, 16) << np.arange(16)).sum(axis=-1).astype(np.uint16)
        yield case.add(
            abi.SparseConvBytes(
                **common, range=range_, quads=case.address(p.packed(pattern.values(numbers))), starts=case.address(p.starts),
                totals=case.address(totals), scales=case.address(scales), mask=case.address(mask),
                stretches=case.address(np.array([(0, 0, vectors)], STRETCH)), stretch_count=1, blocks=p.blocks, period=period,
            ), finish(np.tensordot(numbers * scales[:11, None].astype(np.float64), moved, 1)), out,
            np.count_nonzero(weight) * high * size,
        )  # fmt: skip


def _sparse_conv_dots(size: int) -> Iterator[Case]:
    """A product with a range for each column, and a convolution of 1 by 3 whose sums are moved."""
    cols, row = size, up(size)
    for name, kernel, rows in (("product", 1, 1), ("moved sums", 3, 3)):
        case, shifts = Case(name, size), np.arange(kernel) - kernel // 2
        weight = case.sparse(11, 12, kernel) * (case.random.random((11, 12, 1)) < 0.5)
        operation, source, range_, x, period = _planes_in_bytes(case, case.numbers(12, rows, cols), kernel > 1)
        case.then(operation)
        common, finish, out = _product(case, source, 11, (rows, cols))
        numbers, scales = quantized(weight.reshape(11, -1), "int8", up(11))
        four = fours(numbers.reshape(weight.shape)).reshape(11, -1)
        planes, pattern = np.repeat(np.arange(3), kernel)[None], Pattern.of(four)
        p = SparseConv.of(pattern, planes * rows * row, planes, np.tile(shifts, 3)[None], block_planes=2)
        column = np.arange(rows * row) % row
        inside = [(column >= max(0, -shift)) & (column < cols - max(0, shift)) for shift in p.shifts]
        keeps = (np.reshape(inside, (len(inside), -1, 16)) << np.arange(16)).sum(axis=-1).astype(np.uint16)
        moved = np.stack([np.pad(x, ((0, 0), (0, 0), (1, 1)))[:, :, 1 + s : 1 + s + cols] for s in shifts], axis=1)
        exact = numbers * scales[:11, None].astype(np.float64)
        sums = np.tensordot(exact, moved.reshape(12 * kernel, rows, cols), 1)
        values, vectors = pattern.values(four), rows * row // 16
        yield case.add(
            abi.SparseConvDot(
                **common, range=range_, taps=case.address(p.packed(values)), starts=case.address(p.starts),
                totals=case.address(p.totals(each_of_four(values).sum(axis=-1))), scales=case.address(scales),
                shifts=case.address(p.shifts), mask=case.address(keeps[0]), keeps=case.address(keeps),
                stretches=case.address(np.array([(0, 0, vectors)], STRETCH)), stretch_count=1, vectors=vectors,
                row_vectors=row // 16, tile=16, blocks=p.blocks, groups=len(p.shifts), period=period,
            ), finish(sums), out, np.count_nonzero(weight) * rows * cols,
        )  # fmt: skip


def _sparse_convs(size: int) -> Iterator[Case]:
    """A product, and a convolution of 1 by 3 whose sums, or whose few inputs, are moved."""
    rows, cols, row = 3, size, up(size)
    for name, kernel in (("product", 1), ("moved sums", 3), ("few taps", 3)):
        case, shifts = Case(name, size), np.arange(kernel) - kernel // 2
        x = case.numbers(9, rows, cols)
        weight = case.sparse(11, 9 * kernel)
        source = case.value(x)
        common, finish, out = _product(case, source, 11, (rows, cols))
        planes = np.repeat(np.arange(9), kernel)[None]
        offsets, moves = planes * rows * row, np.tile(shifts, 9)[None]
        few, vectors = name == "few taps", rows * row // 16
        pattern = Pattern.of(weight)
        reads = pattern, offsets, planes, moves
        p = SparseConv.few(*reads) if few else SparseConv.of(*reads, block_planes=4)
        column = np.arange(rows * row) % row
        inside = [(column >= max(0, -shift)) & (column < cols - max(0, shift)) for shift in p.shifts]
        keeps = (np.reshape(inside, (len(inside), -1, 16)) << np.arange(16)).sum(axis=-1).astype(np.uint16)
        moved = np.stack([np.pad(x, ((0, 0), (0, 0), (1, 1)))[:, :, 1 + s : 1 + s + cols] for s in shifts], axis=1)
        sums = np.tensordot(weight.astype(np.float64), moved.reshape(9 * kernel, rows, cols).astype(np.float64), 1)
        yield case.add(
            abi.SparseConv(
                **common, taps=case.address(p.packed(pattern.values(weight))), starts=case.address(p.starts),
                shifts=case.address(p.shifts), mask=case.address(keeps[0]), keeps=case.address(keeps),
                hides=case.address(p.moves) if few else None,
                stretches=case.address(np.array([(0, 0, vectors)], STRETCH)), stretch_count=1, vectors=vectors,
                row_vectors=row // 16, tile=16, blocks=p.blocks, groups=1 if few else len(p.shifts),
            ), finish(sums), out, np.count_nonzero(weight) * rows * cols,
        )  # fmt: skip


def _sparse_convs_of_fours(size: int) -> Iterator[Case]:
    """A product, and a convolution of 1 by 3, of eleven outputs: of the last four one is missing."""
    rows, cols, row = 3, size, up(size)
    for name, kernel in (("product", 1), ("moved inputs", 3)):
        case, shifts = Case(name, size), np.arange(kernel) - kernel // 2
        x, weight = case.numbers(9, rows, cols), case.sparse(12, 9 * kernel)[:11]
        source = case.value(x)
        common, finish, out = _product(case, source, 11, (rows, cols))
        planes, moves = np.repeat(np.arange(9), kernel)[None], np.tile(shifts, 9)[None]
        p = SparseConv.of(in_fours(weight), planes * rows * row + moves, planes, moves, block_planes=4)
        column = np.arange(rows * row) % row
        inside = [(column >= max(0, -shift)) & (column < cols - max(0, shift)) for shift in p.shifts]
        keeps = (np.reshape(inside, (len(inside), -1, 16)) << np.arange(16)).sum(axis=-1).astype(np.uint16)
        moved = np.stack([np.pad(x, ((0, 0), (0, 0), (1, 1)))[:, :, 1 + s : 1 + s + cols] for s in shifts], axis=1)
        sums = np.tensordot(weight.astype(np.float64), moved.reshape(9 * kernel, rows, cols).astype(np.float64), 1)
        (offsets, weights), vectors = p.fours(weight), rows * row // 16
        yield case.add(
            abi.SparseConvFours(
                **common, offsets=case.address(offsets), weights=case.address(weights), starts=case.address(p.starts),
                mask=case.address(keeps[0]), keeps=case.address(keeps),
                stretches=case.address(np.array([(0, 0, vectors)], STRETCH)), stretch_count=1, vectors=vectors,
                blocks=p.blocks, groups=len(p.shifts),
            ), finish(sums), out, np.count_nonzero(weight) * rows * cols,
        )  # fmt: skip


def _plane_product(case: Case) -> tuple[Any, ...]:
    x, weight = case.numbers(13, case.size), case.numbers(37, 13)
    source = case.value(x)
    common, finish, out = _product(case, source, 37, (case.size,))
    offsets = case.address(np.arange(13, dtype=np.int32) * source.plane)
    return weight, offsets, common, finish(weight.astype(np.float64) @ x), out


def _hx16s(size: int) -> Iterator[Case]:
    for height, blocks in ((4, 1), (8, 2)):
        case = Case(f"{height} outputs, {blocks} blocks", size)
        weight, offsets, common, expected, out = _plane_product(case)
        stretches = case.address(np.array([(0, 0, up(size) // 16)], STRETCH))
        yield case.add(
            abi.DenseHx16(
                **common, offsets=offsets, weights=case.address(pack_dense_hx16(weight, height)), height=height,
                stretches=stretches, stretch_count=1, taps=13, blocks=blocks,
            ), expected, out, weight.size * size,
        )  # fmt: skip


def _px32s(size: int) -> Iterator[Case]:
    case = Case("product", size)
    weight, offsets, common, expected, out = _plane_product(case)
    places = case.address(np.arange(size, dtype=np.int32))
    weights = case.address(pack_dense_px32(weight))
    operation = abi.DensePx32(**common, offsets=offsets, from_=places, to=places, weights=weights, pixels=size, taps=13)
    yield case.add(operation, expected, out, weight.size * size)


def _dense_dots(tall: bool, size: int) -> Iterator[Case]:
    """A product with a range for each column, and one of an image."""
    for name, rows in (("product", 1), ("image", 3)):
        case = Case(name, size)
        weight, x = case.numbers(37, 13), case.numbers(13, rows, size)
        operation, source, range_, near, period = _planes_in_bytes(case, x, rows > 1)
        case.then(operation)
        common, finish, out = _product(case, source, 37, (rows, size))
        numbers, scales = quantized(weight, "int8", up(37))
        four, totals = fours(numbers), padded(None, up(37)).view(np.int32)
        totals[:37] = numbers.sum(axis=1, dtype=np.int32)
        places = case.address((np.arange(rows)[:, None] * source.row + np.arange(size)).astype(np.int32))
        common |= {
            "range": range_, "offsets": case.address(np.arange(4, dtype=np.int32) * source.plane), "taps": 4,
            "totals": case.address(totals), "scales": case.address(scales), "period": period,
        }  # fmt: skip
        if tall:
            stretches = case.address(np.array([(0, 0, rows * up(size) // 16)], STRETCH))
            weights = case.address(pack_dense_hx16(four, 4))
            operation = abi.DenseDotHx16(**common, weights=weights, stretches=stretches, stretch_count=1)
        else:
            weights = case.address(pack_dense_px32(four))
            operation = abi.DenseDotPx32(**common, from_=places, to=places, weights=weights, pixels=rows * size)
        exact = numbers * scales[:37, None].astype(np.float64)
        yield case.add(operation, finish(np.tensordot(exact, near, 1)), out, weight.size * rows * size)


def _winograds(size: int) -> Iterator[Case]:
    case, side, inputs, outputs = Case("3x3", size), min(size, 21), 5, 19
    x, weight = case.numbers(inputs, side, side), case.numbers(outputs, inputs, 3, 3)
    common, finish, out = _product(case, case.value(x), outputs, (side, side))
    tiling = Tiling(inputs, side, side * side, side, 0, 0, -(-side // 4))
    (part,) = tiling.parts()
    starts, ends = (case.address(mask) for mask in tiling.neighbours(part))
    plane = (up(-(-inputs // part.together) * part.together * part.pitch) // 16 | 1) * 16
    block, blocks = FREQUENCIES * 16 * (part.pitch + 1), up(outputs) // 16
    transformed, sums, space = case.room(FREQUENCIES * plane), case.room(block * blocks), abi.Space.SAMPLE
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, ((0, 0), (1, 1), (1, 1))), (3, 3), (1, 2))
    expected = finish(np.einsum("oikl,ixykl->oxy", weight.astype(np.float64), windows))
    common |= {
        "transformed": abi.Value(transformed, plane, part.pitch, space, FREQUENCIES, inputs, part.pitch),
        "sums": abi.Value(sums, block, 16, space, blocks, FREQUENCIES, block // FREQUENCIES),
        "weights": case.address(pack_winograd(weight)), "columns": case.address(tiling.columns()), "starts": starts,
        "ends": ends, "first": part.first, "tile_rows": part.tile_rows, "tile_cols": tiling.tile_cols,
        "pitch": part.pitch, "together": part.together, "pad_rows": 1,
    }  # fmt: skip
    case.then(abi.Winograd(**common, product=0))
    yield case.add(abi.Winograd(**common, product=1), expected, out, 9 * inputs * outputs * side * side)


def _pools(size: int) -> Iterator[Case]:
    for average, kernel, step, pad in ((0, 2, 2, 0), (1, 2, 2, 0), (0, 3, 2, 1), (1, 3, 1, 1)):
        case = Case(f"{'mean' if average else 'maximum'} of {kernel}x{kernel}", size)
        x = case.numbers(3, max(2, size), max(2, size))
        padding = np.pad(
            x.astype(np.float64), ((0, 0), (pad, pad), (pad, pad)), constant_values=0.0 if average else -np.inf
        )
        windows = np.lib.stride_tricks.sliding_window_view(padding, (kernel, kernel), (1, 2))[:, ::step, ::step]
        expected = (np.mean if average else np.max)(windows, axis=(3, 4))
        out = case.value(np.zeros(expected.shape))
        operation = abi.Pool(
            in_=case.value(x), out=out, average=average, height=kernel, width=kernel, step_r=step, step_c=step, pad_r=pad,
            pad_c=pad, count_padding=1,
        )  # fmt: skip
        yield case.add(operation, expected, out, x.size)


def _binaries(size: int) -> Iterator[Case]:
    for function, compute in zip(abi.BinaryFunction, (np.add, np.subtract, np.multiply), strict=True):
        case = Case(function.name.lower(), size)
        left, right = case.numbers(3, size), case.numbers(3, size)
        out, vectors = case.value(np.zeros((3, size))), up(size) // 16
        a, b = case.value(left), case.value(right)
        yield case.add(
            abi.Binary(left=a, right=b, out=out, binary=function, vectors=vectors), compute(left, right), out, 3 * size
        )


def _affines(size: int) -> Iterator[Case]:
    case = Case("hard sigmoid", size)
    x, scale, shift = case.numbers(3, size), case.numbers(3), case.numbers(3)
    out = case.value(np.zeros(x.shape))
    expected = np.clip((x * scale[:, None] + shift[:, None]) / 6 + 0.5, 0, 1)
    yield case.add(
        abi.Affine(
            in_=case.value(x), out=out, scale=case.address(scale), shift=case.address(shift), vectors=up(size) // 16,
            activation=abi.Activation.HARD_SIGMOID,
        ), expected, out, x.size,
    )  # fmt: skip


def _layer_norm(x: NDArray[Any], scale: NDArray[Any], shift: NDArray[Any], rms: bool, axis: int) -> NDArray[Any]:
    x = x.astype(np.float64)
    x = x if rms else x - x.mean(axis=axis, keepdims=True)
    return x / np.sqrt((x * x).mean(axis=axis, keepdims=True) + 1e-5) * scale + shift


def _softmax(x: NDArray[Any], axis: int) -> NDArray[Any]:
    e = np.exp(x.astype(np.float64) - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def _norms(size: int) -> Iterator[Case]:
    for name, shape, rms in (("vector", (size,), 0), ("planes", (19, size), 0), ("planes, rms", (19, size), 1)):
        case = Case(name, size)
        x, scale, shift = case.numbers(*shape), case.numbers(shape[0]), case.numbers(shape[0])
        wide = [one.reshape(-1, *[1] * (len(shape) - 1)) for one in (scale, shift)]
        tables = [case.address(padded(one, up(len(one)))) for one in (scale, shift)]
        out = case.value(np.zeros(shape))
        operation = abi.Norm(in_=case.value(x), out=out, scale=tables[0], shift=tables[1], epsilon=1e-5, rms=rms)
        yield case.add(operation, _layer_norm(x, *wide, bool(rms), 0), out, x.size)


def _softmaxes(size: int) -> Iterator[Case]:
    for name, shape in (("vector", (size,)), ("planes", (19, size))):
        case = Case(name, size)
        x, out = case.numbers(*shape), case.value(np.zeros(shape))
        yield case.add(abi.Softmax(in_=case.value(x), out=out), _softmax(x, 0), out, x.size)


def _embeds(size: int) -> Iterator[Case]:
    case = Case("tokens", size)
    table, tokens = case.numbers(29, 19), case.random.integers(0, 29, size)
    case.spaces[abi.Space.INPUT] = case.address(tokens)
    out = case.value(np.zeros((19, size)))
    operation = abi.Embed(out=out, table=case.address(table), tokens=29, space=abi.Space.INPUT)
    yield case.add(operation, table[tokens].T, out, 19 * size)


def _attended(
    q: NDArray[Any], k: NDArray[Any], v: NDArray[Any], scale: float, causal: bool, mask: NDArray[Any] | None = None
) -> NDArray[Any]:
    """[.., tokens, width] each."""
    scores = scale * (q.astype(np.float64) @ k.swapaxes(-1, -2))
    if mask is not None:
        scores = np.maximum(scores + mask, -1e30)
    if causal:
        scores = np.where(np.tri(*scores.shape[-2:], dtype=bool), scores, -1e30)
    return _softmax(scores, -1) @ v


def _attentions(
    size: int, kind: type[abi.Operation] = abi.Attention, width: int = 13, tolerance: float = 2e-5
) -> Iterator[Case]:
    """One sequence, or two, whose tokens lie side by side; or one with a mask, of keys alone, or of queries and keys."""
    for causal, sequences in itertools.product((0, 1), (1, 2)):
        case = Case(("causal" if causal else "whole") + ", two sequences" * (sequences - 1), size, tolerance=tolerance)
        yield _attention(case, kind, causal, sequences, width)
    for name, queries in (("a mask of keys", 1), ("a mask", size)):
        case = Case(name, size, tolerance=tolerance)
        mask = np.where(case.random.random((1, 1, queries, size)) < 0.5, -np.inf, case.numbers(2, queries, size))
        yield _attention(case, kind, 0, 1, width, np.float32(mask))


def _attention_dots(size: int) -> Iterator[Case]:
    return _attentions(size, abi.AttentionDot, 12, 3e-2)


def _attention(
    case: Case, kind: type[abi.Operation], causal: int, sequences: int, width: int, mask: NDArray[Any] | None = None
) -> Case:
    """``mask`` [1, heads, 1 or queries, keys]."""
    size = case.size
    x = case.numbers(3, sequences, 2, width, size)  # [query, key or value; sequence; head; feature; token]
    expected = _attended(*x.swapaxes(-1, -2), 0.4, bool(causal), mask).swapaxes(-1, -2)
    fields: dict[str, Any] = {}
    if mask is not None:
        array = case.array(mask, 4)
        array.stride[2] *= mask.shape[2] > 1
        fields = {"mask": array, "has_mask": 1}
    query, key, value, out = (
        case.value(one.transpose(1, 2, 0, 3).reshape(2 * width, -1)) for one in (*x, np.zeros_like(x[0]))
    )
    room = attention_room if kind is abi.Attention else dot_attention_room
    scratch = case.value(np.zeros((2 * sequences, room(size, width))))
    operation = kind(
        query=query,
        key=key,
        value=value,
        out=out,
        scratch=scratch,
        sequences=sequences,
        heads=2,
        causal=causal,
        scale=0.4,
        **fields,
    )
    expected = expected.transpose(1, 2, 0, 3).reshape(2 * width, -1)
    return case.add(operation, expected, out, 4 * width * sequences * size * size)


def _copies(size: int) -> Iterator[Case]:
    for name, (left, right), expected in (
        ("rows", ((size, 1), (up(size), 1)), lambda x: x),
        ("transposed", ((1, 19), (up(size), 1)), lambda x: x.reshape(-1, 19).T),
    ):
        case = Case(name, size)
        x = case.numbers(19, size)
        base, out = case.room(x.size), case.value(np.zeros(x.shape))
        case.memory[base : base + x.size] = x.ravel()
        ends = (
            abi.Strided(b, plane, 0, col, 0, abi.Space.SAMPLE) for b, (plane, col) in ((base, left), (out.base, right))
        )
        yield case.add(abi.Copy(*((abi.Op(), *ends)), planes=19, rows=1, cols=size), expected(x), out, x.size)


def _deals(size: int) -> Iterator[Case]:
    case = Case("columns", size)
    x = case.numbers(3, 2, size)
    source, evens, odds = case.value(x), (size + 1) // 2, size // 2
    out = case.value(np.zeros((6, 2, evens)))
    left, right = (abi.Strided(v.base, v.plane, v.row, 1, 0, abi.Space.SAMPLE) for v in (source, out))
    expected = np.zeros((6, 2, evens))
    expected[:3], expected[3:, :, :odds] = x[:, :, ::2], x[:, :, 1::2]
    operation = abi.Deal(in_=left, out=right, planes=3, rows=2, evens=evens, odds=odds, distance=3 * out.plane)
    yield case.add(operation, expected, out, x.size)


_MAPS: dict[str, Callable[..., NDArray[Any]]] = {
    "COPY": lambda a, b, c: a, "ADD": lambda a, b, c: a + b, "SUB": lambda a, b, c: a - b, "MUL": lambda a, b, c: a * b,
    "DIV": lambda a, b, c: a / b, "MAXIMUM": lambda a, b, c: np.maximum(a, b), "MINIMUM": lambda a, b, c: np.minimum(a, b),
    "POWER": lambda a, b, c: a**b, "EQUAL": lambda a, b, c: a == b, "LESS": lambda a, b, c: a < b,
    "LESS_EQUAL": lambda a, b, c: a <= b, "WHERE": lambda a, b, c: np.where(a != 0, b, c),
    "FMA": lambda a, b, c: a * b + c,
}  # fmt: skip


def _maps(size: int) -> Iterator[Case]:
    for function in abi.MapFunction:
        case = Case(function.name.lower(), size)
        inputs = [np.abs(case.numbers(5, 3, size)) + 0.5 for _ in range(3)]
        inputs[1][..., ::3] = inputs[0][..., ::3]
        out = case.array(np.zeros((5, 3, size), np.float32), 6)
        arrays = tuple(case.array(one, 6) for one in inputs)
        sizes, expected = (1, 1, 1, 5, 3, size), _MAPS[function.name](*(one.astype(np.float64) for one in inputs))
        yield case.add(abi.Map(in_=arrays, out=out, size=sizes, inputs=3, function=function), expected, out, 15 * size)


def _reduces(size: int) -> Iterator[Case]:
    for function, compute in ((abi.ReduceFunction.SUM, np.sum), (abi.ReduceFunction.MAX, np.max)):
        case = Case(function.name.lower(), size)
        x = case.numbers(5, 3, size)
        source, out = case.array(x, 6), case.array(np.zeros(5, np.float32), 3)
        source.stride = (0, 0, 3 * size, 0, 0, 0)
        yield case.add(
            abi.Reduce(
                in_=source, out=out, size=(1, 1, 5), over=(1, 3, size), over_stride=(0, size, 1), function=function, scale=1.0
            ), compute(x.astype(np.float64), axis=(1, 2)), out, x.size,
        )  # fmt: skip


def _matmuls(size: int) -> Iterator[Case]:
    case = Case("batches of two", size)
    a, b = case.numbers(2, 7, 9), case.numbers(2, 9, size)
    left, right, out = case.array(a, 3), case.array(b, 3), case.array(np.zeros((2, 7, size), np.float32), 3)
    left.stride, right.stride = (0, 0, 63, 9, 0, 1), (0, 0, 9 * size, 0, 1, size)
    out.stride = (0, 0, 7 * size, size, 1, 0)
    operation = abi.Matmul(left=left, right=right, out=out, size=(1, 1, 2, 7, size, 9))
    yield case.add(operation, a.astype(np.float64) @ b, out, 126 * size)


def _normalises(size: int) -> Iterator[Case]:
    for function in abi.NormFunction:
        case = Case(function.name.lower(), size)
        x, scale, shift = case.numbers(5, size), case.numbers(1, size), case.numbers(1, size)
        out = case.array(np.zeros((5, size), np.float32), 6)
        source, tables = case.array(x, 6), [case.array(one, 6) for one in (scale, shift)]
        for one in (source, out):
            one.stride = (0, 0, size, 0, 0, 1)
        for table in tables:
            table.stride = (0, 0, 0, 0, 0, 1)
        softmax, rms = function == abi.NormFunction.SOFTMAX, function == abi.NormFunction.RMS_NORM
        yield case.add(
            abi.Normalise(
                in_=source, out=out, scale=tables[0], shift=tables[1], size=(1, 1, 5, 1, 1, size), kind=function, epsilon=1e-5
            ), _softmax(x, 1) if softmax else _layer_norm(x, scale, shift, rms, 1), out, x.size,
        )  # fmt: skip


def _attends(size: int) -> Iterator[Case]:
    for causal in (0, 1):
        case = Case("causal" if causal else "whole", size)
        q, k, v = case.numbers(1, 4, size, 5), case.numbers(1, 2, size, 5), case.numbers(1, 2, size, 7)
        expected = _attended(q, np.repeat(k, 2, axis=1), np.repeat(v, 2, axis=1), 0.4, bool(causal))
        query, key, value = (case.array(one, 4) for one in (q, k, v))
        out, scratch = case.array(expected.astype(np.float32), 4), case.array(np.zeros((4, up(size)), np.float32), 2)
        case.memory[out.base : out.base + expected.size] = 0
        operation = abi.Attend(
            query=query, key=key, value=value, out=out, mask=abi.Array(), scratch=scratch, samples=1, heads=4, group=2,
            queries=size, keys=size, width=5, value_width=7, causal=causal, scale=0.4,
        )  # fmt: skip
        yield case.add(operation, expected, out, 48 * size * size)


CASES: dict[type[abi.Operation], Callable[[int], Iterator[Case]]] = {
    abi.Copy: _copies, abi.Deal: _deals, abi.SparseConv: _sparse_convs, abi.Sell: _sells, abi.Bitmask: _bitmasks,
    abi.Gemv: _gemvs, abi.DenseHx16: _hx16s, abi.DensePx32: _px32s, abi.Winograd: _winograds, abi.Pool: _pools,
    abi.Binary: _binaries, abi.Affine: _affines, abi.Norm: _norms, abi.Softmax: _softmaxes, abi.Embed: _embeds,
    abi.Attention: _attentions, abi.AttentionDot: _attention_dots,
    abi.Map: _maps, abi.Reduce: _reduces, abi.Matmul: _matmuls, abi.Normalise: _normalises,
    abi.Attend: _attends, abi.QuantiseVector: _quantise_vectors, abi.SellDot: _sell_dots, abi.GemvDot: _gemv_dots,
    abi.QuantisePlanes: _quantise_planes, abi.SparseConvDot: _sparse_conv_dots,
    abi.SparseConvFours: _sparse_convs_of_fours, abi.DenseDotPx32: partial(_dense_dots, False),
    abi.DenseDotHx16: partial(_dense_dots, True),
    abi.SparseConvBytes: _sparse_conv_bytes, abi.SplitFours: _splits,
}  # fmt: skip
