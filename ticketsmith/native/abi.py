"""``src/api.h`` as ctypes structures, and the check that both say the same."""

from __future__ import annotations

import ctypes
from enum import IntEnum

from ticketsmith.native import NotBuiltError, library

_I32, _I64, _PTR = ctypes.c_int32, ctypes.c_int64, ctypes.c_void_p


class Space(IntEnum):
    """Where a value lives."""

    SAMPLE = 0
    BATCH = 1
    INPUT = 2
    OUTPUT = 3
    CONSTANT = 4
    MEMORY = 5


MORE = 7
"""How many arrays a caller may have beside the first input, and beside the first output."""

FIRST_MORE_INPUT = 6
FIRST_MORE_OUTPUT = FIRST_MORE_INPUT + MORE


def input_space(index: int) -> int:
    """The space of the caller's input ``index``."""
    return int(Space.INPUT) if index == 0 else FIRST_MORE_INPUT + index - 1


def output_space(index: int) -> int:
    """The space of the caller's output ``index``."""
    return int(Space.OUTPUT) if index == 0 else FIRST_MORE_OUTPUT + index - 1


class Kind(IntEnum):
    """What an operation does."""

    COPY = 0
    SPARSE_CONV = 1
    DENSE_HX16 = 2
    SELL = 3
    GEMV = 4
    POOL = 5
    BINARY = 6
    AFFINE = 7
    NORM = 8
    SOFTMAX = 9
    EMBED = 10
    ATTENTION = 11
    MAP = 12
    REDUCE = 13
    MATMUL = 14
    NORMALISE = 15
    ATTEND = 16
    DEAL = 17
    DENSE_PX32 = 18
    BITMASK = 19
    WINOGRAD = 20


class Value(ctypes.Structure):
    """Planes of rows of columns; a vector has ``plane == 1``. Distances in floats."""

    _fields_ = [
        ("base", _I64),
        ("plane", _I64),
        ("row", _I64),
        ("space", _I32),
        ("planes", _I32),
        ("rows", _I32),
        ("cols", _I32),
    ]


class Strided(ctypes.Structure):
    """One side of a copy."""

    _fields_ = [(name, _I64) for name in ("base", "plane", "row", "col", "sample", "space")]


class Op(ctypes.Structure):
    """How every operation begins; ``work`` counts multiply-adds."""

    _fields_ = [("kind", _I32), ("batch", _I32), ("work", _I64)]


class Copy(ctypes.Structure):
    """A copy between two layouts."""

    _fields_ = [("op", Op), ("in_", Strided), ("out", Strided)] + [
        (name, _I64) for name in ("planes", "rows", "cols", "lanes")
    ]


_PRODUCT = [("op", Op), ("in_", Value), ("out", Value), ("residual", Value)]


class SparseConv(ctypes.Structure):
    """A sparse product with planes."""

    _fields_ = [
        *_PRODUCT,
        *((name, _PTR) for name in ("taps", "starts", "bias", "mask", "shifts", "keeps", "hides", "stretches")),
        *(
            (name, _I64)
            for name in (
                *("stretch_count", "vectors", "row_vectors", "tile"),
                *("blocks", "groups", "activation", "has_residual"),
            )
        ),
    ]


class DenseHx16(ctypes.Structure):
    """A dense product with planes."""

    _fields_ = [
        *_PRODUCT,
        *((name, _PTR) for name in ("offsets", "weights", "bias", "mask", "stretches")),
        *((name, _I64) for name in ("stretch_count", "taps", "height", "blocks", "activation", "has_residual")),
    ]


class DensePx32(ctypes.Structure):
    """A dense product with planes, a few places of many planes at a time."""

    _fields_ = [
        *_PRODUCT,
        *((name, _PTR) for name in ("offsets", "from_", "to", "weights", "bias")),
        *((name, _I64) for name in ("pixels", "taps", "activation", "has_residual")),
    ]


class Sell(ctypes.Structure):
    """A sparse product with a vector."""

    _fields_ = [
        *_PRODUCT,
        *((name, _PTR) for name in ("first", "slots", "columns", "values", "scales", "bias", "order")),
        *((name, _I64) for name in ("slices", "blocks", "width", "dtype", "activation", "has_residual")),
    ]


class Bitmask(ctypes.Structure):
    """A sparse product with a vector, with a bit for each weight."""

    _fields_ = [
        *_PRODUCT,
        *((name, _PTR) for name in ("first", "bits", "values", "scales", "bias")),
        *((name, _I64) for name in ("blocks", "dtype", "activation", "has_residual")),
    ]


class Gemv(ctypes.Structure):
    """A dense product with a vector."""

    _fields_ = [
        *_PRODUCT,
        *((name, _PTR) for name in ("weights", "scales", "bias")),
        *((name, _I64) for name in ("inputs", "dtype", "activation", "has_residual")),
    ]


class Pool(ctypes.Structure):
    """A maximum or mean over windows."""

    _fields_ = [
        ("op", Op),
        ("in_", Value),
        ("out", Value),
        *(
            (name, _I64)
            for name in ("average", "height", "width", "step_r", "step_c", "pad_r", "pad_c", "count_padding", "lanes")
        ),
    ]


class Binary(ctypes.Structure):
    """Two values, element by element."""

    _fields_ = [
        ("op", Op),
        ("left", Value),
        ("right", Value),
        ("out", Value),
        ("mask", _PTR),
        *((name, _I64) for name in ("binary", "vectors", "activation")),
    ]


class Affine(ctypes.Structure):
    """A scale and a shift for each plane, and an activation."""

    _fields_ = [
        ("op", Op),
        ("in_", Value),
        ("out", Value),
        *((name, _PTR) for name in ("scale", "shift", "mask")),
        *((name, _I64) for name in ("vectors", "activation")),
    ]


class Norm(ctypes.Structure):
    """Layer norm over the planes."""

    _fields_ = [
        ("op", Op),
        ("in_", Value),
        ("out", Value),
        ("scale", _PTR),
        ("shift", _PTR),
        ("epsilon", ctypes.c_double),
        ("rms", _I64),
    ]


class Softmax(ctypes.Structure):
    """Softmax over the planes."""

    _fields_ = [("op", Op), ("in_", Value), ("out", Value)]


class Embed(ctypes.Structure):
    """Rows of a table, picked by tokens."""

    _fields_ = [("op", Op), ("out", Value), ("table", _PTR), ("tokens", _I64), ("space", _I64)]


class Attention(ctypes.Structure):
    """Attention of a sequence to itself."""

    _fields_ = [
        ("op", Op),
        *((name, Value) for name in ("query", "key", "value", "out", "scratch")),
        ("heads", _I64),
        ("causal", _I64),
        ("scale", ctypes.c_double),
    ]


class Array(ctypes.Structure):
    """An array of up to six axes; distances in elements."""

    _fields_ = [("base", _I64), ("step", _I64), ("stride", _I64 * 6), ("space", _I32), ("integer", _I32)]


class Map(ctypes.Structure):
    """A function of up to three arrays, element by element."""

    _fields_ = [
        ("op", Op),
        ("in_", Array * 3),
        ("out", Array),
        ("size", _I64 * 6),
        *((name, _I64) for name in ("inputs", "function", "activation")),
    ]


class Reduce(ctypes.Structure):
    """A sum or the largest over three axes."""

    _fields_ = [
        ("op", Op),
        ("in_", Array),
        ("out", Array),
        *((name, _I64 * 3) for name in ("size", "over", "over_stride")),
        ("function", _I64),
        ("scale", ctypes.c_double),
    ]


class Matmul(ctypes.Structure):
    """A product of two values, dense."""

    _fields_ = [("op", Op), *((name, Array) for name in ("left", "right", "out")), ("size", _I64 * 6)]


class Normalise(ctypes.Structure):
    """Softmax or a norm over the last three axes."""

    _fields_ = [
        ("op", Op),
        *((name, Array) for name in ("in_", "out", "scale", "shift")),
        ("size", _I64 * 6),
        ("kind", _I64),
        ("epsilon", ctypes.c_double),
    ]


class Attend(ctypes.Structure):
    """Attention of queries to keys and values that lie anywhere, those of a session among them."""

    _fields_ = [
        ("op", Op),
        *((name, Array) for name in ("query", "key", "value", "out", "mask", "scratch")),
        *((name, _I64) for name in ("samples", "heads", "group", "queries", "keys", "width", "value_width")),
        *((name, _I64) for name in ("causal", "has_mask", "cached")),
        ("scale", ctypes.c_double),
    ]


class Deal(ctypes.Structure):
    """Even and odd columns, each to a place of their own."""

    _fields_ = [("op", Op), ("in_", Strided), ("out", Strided)] + [
        (name, _I64) for name in ("planes", "rows", "evens", "odds", "distance")
    ]


class Winograd(ctypes.Structure):
    """A dense convolution of 3 by 3, by way of frequencies: its inputs, or its product and outputs."""

    _fields_ = [
        *_PRODUCT,
        ("transformed", Value),
        ("sums", Value),
        *((name, _PTR) for name in ("weights", "bias", "columns", "starts", "ends")),
        *((name, _I64) for name in ("product", "first", "tile_rows", "tile_cols", "pitch", "together")),
        *((name, _I64) for name in ("pad_rows", "left", "skip", "activation", "has_residual")),
    ]


OPERATIONS: tuple[type[ctypes.Structure], ...] = (
    Copy,
    SparseConv,
    DenseHx16,
    Sell,
    Gemv,
    Pool,
    Binary,
    Affine,
    Norm,
    Softmax,
    Embed,
    Attention,
    Map,
    Reduce,
    Matmul,
    Normalise,
    Attend,
    Deal,
    DensePx32,
    Bitmask,
    Winograd,
)


def check() -> None:
    """Raises NotBuiltError when the library lays its structures out in another way than this file."""
    for kind, structure in enumerate(OPERATIONS):
        if library().ts_sizeof(kind) != ctypes.sizeof(structure):
            raise NotBuiltError(
                f"the kernels and {__name__} disagree about {structure.__name__}: install TicketSmith again."
            )
