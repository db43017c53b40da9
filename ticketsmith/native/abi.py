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


class Kind(IntEnum):
    """What an operation does."""

    COPY = 0
    TAPS = 1
    TILES = 2
    SLICES = 3
    ROWS = 4
    POOL = 5
    BINARY = 6
    AFFINE = 7
    NORM = 8
    SOFTMAX = 9
    EMBED = 10
    ATTENTION = 11
    DEAL = 12


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


class Taps(ctypes.Structure):
    """A sparse product with planes."""

    _fields_ = [
        *_PRODUCT,
        *((name, _PTR) for name in ("taps", "starts", "bias", "mask", "shifts", "keeps")),
        *((name, _I64) for name in ("vectors", "row_vectors", "blocks", "groups", "activation", "has_residual")),
    ]


class Tiles(ctypes.Structure):
    """A dense product with planes."""

    _fields_ = [
        *_PRODUCT,
        *((name, _PTR) for name in ("offsets", "weights", "bias", "mask")),
        *((name, _I64) for name in ("vectors", "taps", "height", "blocks", "activation", "has_residual")),
    ]


class Slices(ctypes.Structure):
    """A sparse product with a vector."""

    _fields_ = [
        *_PRODUCT,
        *((name, _PTR) for name in ("first", "slots", "columns", "values", "scales", "bias")),
        *((name, _I64) for name in ("slices", "blocks", "width", "dtype", "activation", "has_residual")),
    ]


class Rows(ctypes.Structure):
    """A dense product with a vector."""

    _fields_ = [
        *_PRODUCT,
        ("weights", _PTR),
        ("bias", _PTR),
        *((name, _I64) for name in ("inputs", "activation", "has_residual")),
    ]


class Pool(ctypes.Structure):
    """A maximum or mean over windows."""

    _fields_ = [
        ("op", Op),
        ("in_", Value),
        ("out", Value),
        *(
            (name, _I64)
            for name in ("average", "height", "width", "step_r", "step_c", "pad_r", "pad_c", "count_padding")
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
    ]


class Softmax(ctypes.Structure):
    """Softmax over the planes."""

    _fields_ = [("op", Op), ("in_", Value), ("out", Value)]


class Embed(ctypes.Structure):
    """Rows of a table, picked by tokens."""

    _fields_ = [("op", Op), ("out", Value), ("table", _PTR), ("tokens", _I64)]


class Attention(ctypes.Structure):
    """Attention of a sequence to itself."""

    _fields_ = [
        ("op", Op),
        *((name, Value) for name in ("query", "key", "value", "out", "scratch")),
        ("heads", _I64),
        ("causal", _I64),
        ("scale", ctypes.c_double),
    ]


class Deal(ctypes.Structure):
    """Even and odd columns, each to a place of their own."""

    _fields_ = [("op", Op), ("in_", Strided), ("out", Strided)] + [
        (name, _I64) for name in ("planes", "rows", "evens", "odds", "distance")
    ]


OPERATIONS: tuple[type[ctypes.Structure], ...] = (
    Copy,
    Taps,
    Tiles,
    Slices,
    Rows,
    Pool,
    Binary,
    Affine,
    Norm,
    Softmax,
    Embed,
    Attention,
    Deal,
)


def check() -> None:
    """Raises NotBuiltError when the library lays its structures out in another way than this file."""
    for kind, structure in enumerate(OPERATIONS):
        if library().ts_sizeof(kind) != ctypes.sizeof(structure):
            raise NotBuiltError(
                f"the kernels and {__name__} disagree about {structure.__name__}: install TicketSmith again."
            )
