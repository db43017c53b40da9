"""Products of weights with a vector, or with planes; of all convolutions, too, once they know where they read.

In: a node, its weights [outputs, taps], and where each tap reads. Out: one instruction, with the weights packed for the
format that was chosen.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ticketsmith.native import abi
from ticketsmith.runtime import layout
from ticketsmith.runtime.dense_packing import pack_dense_hx16, pack_dense_px32, pack_gemv, pack_gemv_dot
from ticketsmith.runtime.formats import dot_fits, stored
from ticketsmith.runtime.graph import GraphError, Node
from ticketsmith.runtime.layout import LANES, Layout, up
from ticketsmith.runtime.lower.lowering import Lowering, activation
from ticketsmith.runtime.operands import Tensor
from ticketsmith.sparse.bitmask import Bitmask
from ticketsmith.sparse.pattern import Pattern
from ticketsmith.sparse.sell import Sell
from ticketsmith.sparse.sparse_conv import STRETCH, SparseConv, in_fours
from ticketsmith.sparse.values import Floats, aligned, padded

FIRST_CACHE = 39_000
"""Bytes of inputs that a tile of a convolution may take: a first cache of 48 KiB, less what weights and outputs need."""

_TWO_CACHES = 62_000
"""The same of a product with tokens or samples, which reads whole planes and little else: where half of what it reads lies in
the first cache, the second brings the rest in time, and fewer blocks mean fewer sums that are stored and read again."""

TILE = 16
"""Vectors of a plane that are computed at once, at most: as many sums as registers hold beside a weight and inputs."""

_NARROW_TILE = 5
"""Vectors of a tile that are enough to hide what an output takes beside its taps."""

_FEW_TO_MOVE = 3
"""Taps of an output plane that are moved alike: so few are rather read from two cache lines each than summed and moved."""

_DENSE_IN_FEW_LANES = 0.3
"""The density above which 16 samples or fewer are computed with their zeros: a vector of each plane is too few for kernels
that read a weight for each."""


@dataclass(frozen=True, eq=False)
class Taps:
    """What taps read [outputs, or 1 if all read the same; taps]: the offset, the input plane that it lies in, and by how many
    columns what was read is moved afterwards. Of a row of the input, the first ``cols`` columns count. ``plane_bytes`` of
    each input plane feed a tile of ``tile`` vectors. With ``row``, rows of the input lie so far apart, and each row of the
    output is computed by itself. ``moves_rows``: a move is by rows, too. Parts of the input take ``cache`` bytes."""

    offset: NDArray[np.int64]
    plane: NDArray[np.int64]
    move: NDArray[np.int64]
    cols: int
    plane_bytes: int
    row: int = 0
    tile: int = TILE
    moves_rows: bool = False
    cache: int = FIRST_CACHE

    @property
    def cached_planes(self) -> int:
        """Of the input, that are read together."""
        return self.cache // self.plane_bytes


def vector_product(node: Node, lowering: Lowering) -> None:
    """Features with one vector."""
    weight = lowering.graph.parameter(node, "weight")
    _vector_product(node, weight, lowering.read(node.inputs[0], node), lowering)


def planes_linear(node: Node, lowering: Lowering) -> None:
    """Features with each column of tokens or of samples, in float32."""
    weight = lowering.graph.parameter(node, "weight")
    source = lowering.read(node.inputs[0], node)
    own = source.layout
    inputs = np.arange(weight.shape[1], dtype=np.int64)
    batched = node.output in lowering.analysis.batched
    format_ = lowering.analysis.format(node, "lanes" if batched else "planes")
    dense = np.count_nonzero(weight) > _DENSE_IN_FEW_LANES * weight.size
    if format_ == "dense_px32" or (batched and lowering.lanes <= LANES and dense):
        dense_px32(node, weight, source, inputs * own.plane, np.arange(own.cols, dtype=np.int64), lowering)
        return
    offset, move = (inputs * own.plane)[None], np.zeros_like(inputs)[None]
    tile = column_tile(own, _TWO_CACHES)
    taps = Taps(offset, inputs[None], move, own.cols, tile * LANES * 4, tile=tile, cache=_TWO_CACHES)
    plane_product(node, weight, source, taps, format_, lowering)


def column_tile(own: Layout, cache: int) -> int:
    """Vectors of the columns of ``own`` to compute at once: so many that what they read fits ``cache`` bytes; but no fewer than
    pay. Where planes lie a multiple of eight cache lines apart, narrow tiles would share few sets of a cache."""
    _, vectors = own.sweep
    fewest = -(-vectors // TILE)
    most = fewest if own.plane % (8 * LANES) == 0 else max(fewest, -(-vectors // _NARROW_TILE))
    tiles = [-(-vectors // chunks) for chunks in range(fewest, most + 1)]
    return next((tile for tile in tiles if own.planes * tile * LANES * 4 <= cache), tiles[-1])


def product_fields(
    node: Node, source: Tensor, out: Tensor, residual: Tensor | None, lowering: Lowering
) -> dict[str, Any]:
    """The fields that all products have; the bias, or zeros, in whole vectors."""
    outputs = len(lowering.graph.parameter(node, "weight"))
    return {
        "in_": source, "out": out, "residual": residual or out, "has_residual": residual is not None,
        "bias": padded(lowering.graph.tensor(node, "bias"), up(outputs)), "activation": activation(node),
    }  # fmt: skip


# ---- with one vector


def _vector_product(node: Node, weight: Floats, source: Tensor, lowering: Lowering) -> None:
    residual, name = lowering.read_residual(node), node.output
    if name == lowering.graph.output and name not in lowering.graph.more_outputs and not lowering.analysis.users(name):
        # nothing else reads it: it is written where the caller wants it
        out = lowering.tensors[name] = Tensor.at(layout.vector(len(weight)), abi.Space.OUTPUT)
    else:
        out = lowering.new(node)
    format_, precision = lowering.analysis.format(node, "vector"), lowering.analysis.dtype_of(node)
    dtype = stored(precision)
    if dot_fits(precision, weight):
        source = lowering.quantised_vector(node.inputs[0], source)
        kind, work, fields = _DOT_FORMATS[format_](weight, dtype)
    else:
        kind, work, fields = _VECTOR_FORMATS[format_](weight, dtype)
        fields["dtype"] = abi.Dtype["INT8" if dtype == "int4" else dtype.upper()]
    common = product_fields(node, source, out, residual, lowering)
    if fields.get("order") is not None:
        common["bias"] = padded(common["bias"][fields["order"]], len(common["bias"]))
    lowering.emit(kind, work=work, **common, **fields)


_Packed = tuple[type[ctypes.Structure], int, dict[str, Any]]
"""The operation, its work, and the fields that are its own."""


def _gemv(weight: Floats, dtype: str) -> _Packed:
    weights, scales = pack_gemv(weight, dtype)
    return abi.Gemv, weight.size, {"weights": weights, "scales": scales, "inputs": weight.shape[1]}


def _bitmask(weight: Floats, dtype: str) -> _Packed:
    view = Bitmask.of(Pattern.of(weight))
    values, scales = view.weights(weight, dtype)
    fields = {"first": view.first, "bits": view.bits, "values": values, "scales": scales, "blocks": view.bits.shape[1]}
    return abi.Bitmask, weight.size, fields


def _sell(weight: Floats, dtype: str, width: int = 64) -> _Packed:
    view = Sell.of(Pattern.of(weight), width)
    (values, scales), (slices, blocks) = view.weights(weight, dtype), view.slots.shape
    fields = {
        "first": view.first, "slots": view.slots, "columns": view.columns, "values": values, "scales": scales,
        "order": view.order, "slices": slices, "blocks": blocks, "width": width,
    }  # fmt: skip
    return abi.Sell, int(view.first[-1]) * LANES, fields


_VECTOR_FORMATS: dict[str, Callable[[Floats, str], _Packed]] = {
    "sell": _sell,
    "sell_wide": partial(_sell, width=128),
    "bitmask": _bitmask,
    "gemv": _gemv,
}


def _sell_dot(weight: Floats, dtype: str, width: int = 128) -> _Packed:
    view = Sell.of(Pattern.of(weight), width, four=4)
    (values, scales, totals), (slices, blocks) = view.dots(weight, dtype), view.slots.shape
    fields = {
        "first": view.first, "slots": view.slots, "columns": view.columns, "values": values, "scales": scales,
        "totals": totals, "order": view.order, "slices": slices, "blocks": blocks, "width": width, "bits": _BITS[dtype],
    }  # fmt: skip
    return abi.SellDot, int(view.first[-1]) * LANES, fields


def _gemv_dot(weight: Floats, dtype: str) -> _Packed:
    weights, scales, totals = pack_gemv_dot(weight, dtype)
    blocks = -(-weight.shape[1] // 64)
    fields = {"weights": weights, "scales": scales, "totals": totals, "blocks": blocks, "bits": _BITS[dtype]}
    return abi.GemvDot, weight.size // 4, fields


_BITS = {"int8": 8, "int4": 4}
_DOT_FORMATS: dict[str, Callable[[Floats, str], _Packed]] = {
    "sell": _sell_dot,
    "sell_wide": partial(_sell_dot, width=256),
    "gemv": _gemv_dot,
}


# ---- with planes


def plane_product(node: Node, weight: Floats, source: Tensor, taps: Taps, format_: str, lowering: Lowering) -> None:
    """``weight`` [outputs, taps] on shifted planes, in the format ``sparse_conv``, ``sparse_conv_whole`` or
    ``dense_hx16``."""
    residual, out = lowering.read_residual(node), lowering.new(node)
    _, vectors = out.layout.sweep
    mask, stretches = row_stretches(out.layout, taps)

    def packed() -> _Packed:
        if format_ == "dense_hx16":
            return _dense_hx16(weight, source, taps, stretches)
        if format_ == "sparse_conv_fours":
            return _sparse_conv_fours(weight, source, out, taps)
        return _sparse_conv(weight, source, out, taps, blocked=format_ == "sparse_conv")

    where = node.output if node.op != "linear" else (source.layout.plane, vectors)
    kind, work, fields = lowering.once((node.weights["weight"], format_, where), packed)
    if format_ == "dense_hx16":
        work *= vectors * LANES
    lowering.emit(
        kind, **product_fields(node, source, out, residual, lowering), mask=mask, stretches=stretches,
        stretch_count=len(stretches), **fields, batch=out.batched, work=work,
    )  # fmt: skip


def row_stretches(own: Layout, taps: Taps) -> tuple[NDArray[np.uint16] | None, NDArray[Any]]:
    """What is computed of a plane of the output, and which of it must be kept zero."""
    if not taps.row or taps.row == own.row == own.cols:
        return own.mask, np.array([(0, 0, own.sweep[1])], STRETCH)
    row = np.arange(own.rows)  # row by row, and nothing between them
    stretches = np.zeros(len(row), STRETCH)
    stretches["in"], stretches["out"] = row * taps.row, row * own.row
    stretches["vectors"] = own.cols // LANES
    return None, stretches


def _dense_hx16(weight: Floats, source: Tensor, taps: Taps, stretches: NDArray[Any]) -> _Packed:
    height = 8 if stretches["vectors"].max() <= 3 else 4
    blocks = max(1, round(source.layout.planes * taps.plane_bytes / FIRST_CACHE))
    weights = pack_dense_hx16(weight, height)
    fields = {
        "offsets": int32(taps.offset[0]),
        "weights": weights,
        "taps": weight.shape[1],
        "height": height,
        "blocks": blocks,
    }
    return abi.DenseHx16, weight.size, fields


def _sparse_conv(weight: Floats, source: Tensor, out: Tensor, taps: Taps, blocked: bool) -> _Packed:
    pattern, planes, (_, vectors) = Pattern.of(weight), source.layout.planes, out.layout.sweep
    moves = len(np.unique(taps.move))
    grouped = len(taps.plane) > 1  # other convolutions sum more than they move
    if grouped and moves > 1 and np.count_nonzero(weight) <= _FEW_TO_MOVE * moves * len(weight):
        view = SparseConv.few(pattern, taps.offset, taps.plane, taps.move)
        groups, hides = 1, view.moves
    else:
        count = -(-planes // max(4, taps.cached_planes))
        even = -(-planes // count) if blocked else planes
        view = SparseConv.of(pattern, taps.offset, taps.plane, taps.move, even)
        groups, hides = len(view.shifts), None
    keeps = None
    if groups > 1 or hides is not None:
        keeps = out.layout.moved_masks(view.shifts.tolist(), taps.cols, taps.moves_rows)
    row_vectors = max(1, out.layout.row // LANES) if groups > 1 else 1
    if taps.moves_rows:  # a tile is then a whole plane, or knows its neighbours
        row_vectors = vectors
    packed = view.packed(pattern.values(weight))
    fields = {
        "taps": packed, "starts": view.starts, "shifts": view.shifts, "keeps": keeps, "hides": hides,
        "vectors": vectors, "row_vectors": row_vectors, "tile": taps.tile,
        "blocks": view.blocks, "groups": groups,
    }  # fmt: skip
    return abi.SparseConv, len(packed) * vectors * LANES, fields


def _sparse_conv_fours(weight: Floats, source: Tensor, out: Tensor, taps: Taps) -> _Packed:
    planes, (_, vectors) = source.layout.planes, out.layout.sweep
    blocks = -(-planes // max(4, taps.cached_planes))
    view = SparseConv.of(in_fours(weight), taps.offset + taps.move, taps.plane, taps.move, -(-planes // blocks))
    offsets, weights = view.fours(weight)
    fields = {
        "offsets": offsets, "weights": weights, "starts": view.starts, "vectors": vectors, "blocks": view.blocks,
        "groups": len(view.shifts), "keeps": out.layout.moved_masks(view.shifts.tolist(), taps.cols, taps.moves_rows),
    }  # fmt: skip
    return abi.SparseConvFours, weights.size * vectors * LANES, fields


def dense_px32(node: Node, weight: NDArray[Any], source: Tensor, offset: NDArray[np.int64], begin: NDArray[np.int64],
               lowering: Lowering, kind: type[ctypes.Structure] = abi.DensePx32, **fields: Any) -> None:  # fmt: skip
    """``weight`` [outputs, taps], dense: where each tap reads, from where each column of each row begins to read. ``kind``: in
    whole numbers, with ``fields`` of its own."""
    residual = lowering.read_residual(node)
    out = lowering.new(node) if residual else lowering.new_compact(node)
    own = out.layout
    to = (np.arange(own.rows) * own.row)[:, None] + np.arange(own.cols)
    lowering.emit(
        kind, **product_fields(node, source, out, residual, lowering), offsets=int32(offset), from_=int32(begin),
        to=int32(to.ravel()), weights=pack_dense_px32(weight), pixels=len(begin), taps=weight.shape[1], batch=out.batched,
        work=weight.size * len(begin), **fields,
    )  # fmt: skip


def int32(offsets: NDArray[np.int64]) -> NDArray[np.int32]:
    """``offsets`` as the kernels read them. Raises GraphError where they are too large."""
    if offsets.max() >= 2**31:
        raise GraphError("a layer is too large: its input does not fit 32-bit offsets.")
    memory: NDArray[np.int32] = aligned(len(offsets), np.int32)
    memory[:] = offsets
    return memory
