"""Products of whole numbers with planes: four input channels lie side by side, and so do an output's four weights for them.

In: a node, its weights, planes of float32, and where taps read in planes of four channels. Out: the planes rounded to 8 bits,
once for all that read them, and one instruction.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ticketsmith.native import abi
from ticketsmith.runtime import layout
from ticketsmith.runtime.dense_packing import pack_dense_hx16
from ticketsmith.runtime.formats import stored
from ticketsmith.runtime.graph import Node
from ticketsmith.runtime.layout import LANES, up
from ticketsmith.runtime.lower.lowering import Lowering, Steps
from ticketsmith.runtime.lower.products import Taps, dense_px32, int32, product_fields, row_stretches
from ticketsmith.runtime.operands import Strided, Tensor
from ticketsmith.sparse.pattern import Pattern
from ticketsmith.sparse.sparse_conv import Quads, SparseConv
from ticketsmith.sparse.values import Floats, aligned, each_of_four, fours, padded, quantized


class Fours(NamedTuple):
    """Weights [outputs, inner, ...] as whole numbers, four inner ones in one: [outputs, inner / 4, ...]; what a step of each
    output is worth."""

    numbers: NDArray[np.int32]
    scales: Floats

    @classmethod
    def of(cls, weight: Floats, precision: str) -> Fours:
        flat, scales = quantized(weight.reshape(len(weight), -1), stored(precision), up(len(weight)))
        assert scales is not None
        return cls(fours(flat.reshape(weight.shape)), scales)


class Bytes(NamedTuple):
    """Planes of bytes, of four channels side by side or of one, the range of what they stand for, and after how many vectors
    another range begins."""

    planes: Tensor
    range_: Tensor
    period: int


def quantised(
    value: str, source: Tensor, lanes: int, lowering: Lowering, dealt: str = "", apart: bool = False
) -> Bytes:
    """``source``, once for all readers of ``value`` as it is or was ``dealt``. If its range is not known, an image has one;
    tokens, and with ``lanes`` samples, have one each. Of planes that were dealt, rows and columns beyond the value itself are
    read, too. ``apart``: not by four channels."""
    name = f"{value} {dealt} {source.layout.key} {apart}"
    if name in lowering.quantised:
        result: Bytes = lowering.quantised[name]
        return result
    own, known = source.layout, lowering.known_steps(value)
    mask = np.full(own.plane // LANES, 0xFFFF, np.uint16) if dealt else own.columns_mask
    is_image = own.key != "flat" and not lanes
    period = 1 if is_image or known else lanes // LANES or own.plane // LANES
    low = own._replace(planes=-(-own.planes // 4), key=("fours", own.key, name))
    if apart:  # byte by byte as it is float by float
        low = own._replace(plane=own.plane // 4, origin=own.origin // 4, key=("bytes", own.key, name))
    space = abi.Space(source.space) if source.space == abi.Space.BATCH else abi.Space.SAMPLE
    planes = Tensor.new(low, space)
    range_ = known.range_ if known else Tensor.new(layout.vector(2 * LANES * period), space)
    if not (known and not dealt and _rounded_by_product(source, planes, known, apart, lowering)):
        lowering.emit(
            abi.QuantisePlanes, in_=source, out=planes, range=range_, mask=mask, before=own.origin, period=period,
            alike=is_image, apart=apart, batch=source.batched, work=own.planes * own.plane, known=known is not None,
            inverse=known.inverse if known else 0.0, zero=known.zero if known else 0.0,
        )  # fmt: skip
    result = lowering.quantised[name] = Bytes(planes, range_, period)
    return result


_ROUNDING = (abi.SparseConv, abi.SparseConvFours, abi.SparseConvDot, abi.SparseConvBytes, abi.DenseDotHx16)
"""Products that can write bytes, too."""


def _rounded_by_product(source: Tensor, planes: Tensor, known: Steps, apart: bool, lowering: Lowering) -> bool:
    """Has the product that computes ``source`` write bytes, too, and says whether one does. The zeros around its images stay
    what they are, and must be zeros in bytes."""
    if known.zero:
        return False
    for place, one in enumerate(lowering.instructions):
        if one.fields.get("out") is source and one.kind in _ROUNDING and not one.fields.get("rounds"):
            fields = {**one.fields, "bytes": planes, "rounds": True, "apart": apart, **known.fields}
            lowering.instructions[place] = one._replace(fields=fields, uses=(*one.uses, planes))
            return True
    return False


def quantised_samples(key: str, lowering: Lowering, apart: bool) -> Bytes:
    """The vector ``key`` of each sample, and then what it has become into lanes: that is a quarter of what it was."""
    name = f"{key} by sample {apart}"
    if name not in lowering.quantised:
        source, lanes = lowering.tensors[key], lowering.lanes
        fours = -(-source.layout.planes // 4)
        floats, period = 2 * LANES + up(fours), lanes // LANES
        samples = Tensor.new(layout.vector(floats * lanes), abi.Space.BATCH)
        planes = Tensor.new(layout.columns(fours, lanes), abi.Space.BATCH)
        range_ = Tensor.new(layout.vector(2 * LANES * period), abi.Space.BATCH)
        of_one = samples.as_layout(layout.vector(floats))
        lowering.emit(abi.QuantiseVector, in_=source, out=of_one, sample=floats, **lowering.known_fields(key))
        ends, bytes_ = (Strided(samples, LANES, 1, 1, floats, offset) for offset in (0, 2 * LANES))
        lowering.copy(ends, Strided(range_, period * LANES, 1, 1, 1), (2, 1, 1), lanes=True)
        lowering.copy(bytes_, lowering.lane_side(planes), (1, 1, fours), lanes=True)
        if apart:
            lowering.emit(abi.SplitFours, in_=planes, batch=True, work=fours * lanes)
            planes = planes.as_layout(planes.layout._replace(planes=4 * fours, plane=lanes // 4))
        lowering.quantised[name] = Bytes(planes, range_, period)
    result: Bytes = lowering.quantised[name]
    return result


def _where(node: Node, source: Bytes, vectors: int) -> tuple[Hashable, ...]:
    """What decides how the weights of ``node`` are packed."""
    own = source.planes.layout
    return (node.weights["weight"], *((own.plane, vectors) if node.op == "linear" else (node.output,)))


def plane_bytes(node: Node, weight: Floats, source: Bytes, taps: Taps, lowering: Lowering) -> None:
    """``weight`` [outputs, taps] on planes of bytes; taps read in them where they would in planes of floats."""
    residual, out = lowering.read_residual(node), lowering.new(node)
    mask, stretches = row_stretches(out.layout, taps)

    def packed() -> tuple[Quads, NDArray[Any], NDArray[np.int32], Floats]:
        numbers, scales = quantized(weight, stored(lowering.analysis.dtype_of(node)), up(len(weight)))
        assert scales is not None
        pattern, totals = Pattern.of(numbers), aligned(len(weight), np.int32)
        view = Quads.of(pattern, taps.offset, taps.plane, max(4, 4 * taps.cached_planes))
        totals[:] = numbers.sum(axis=1, dtype=np.int32)
        return view, view.packed(pattern.values(numbers)), totals, scales

    view, quads, totals, scales = lowering.once(("bytes", *_where(node, source, out.layout.sweep[1])), packed)
    lowering.emit(
        abi.SparseConvBytes, **product_fields(node, source.planes, out, residual, lowering), range=source.range_,
        quads=quads, starts=view.starts, totals=totals, scales=scales, mask=mask,
        stretches=stretches, stretch_count=len(stretches), blocks=view.blocks, period=source.period, batch=out.batched,
        work=len(view.offsets) * out.layout.sweep[1] * LANES,
    )  # fmt: skip


def dense_dots(
    node: Node, weight: Fours, source: Bytes, offset: NDArray[np.int64], begin: NDArray[np.int64], lowering: Lowering
) -> None:
    """All of ``weight``, as ``dense_px32``."""
    numbers = weight.numbers.reshape(len(weight.numbers), -1)
    dense_px32(
        node, numbers, source.planes, offset, begin, lowering, abi.DenseDotPx32, range=source.range_,
        totals=_totals(numbers), scales=weight.scales, period=source.period,
    )  # fmt: skip


def _totals(numbers: NDArray[np.int32]) -> NDArray[np.int32]:
    """The sum of each output's weights; ``numbers`` [outputs, taps] are four each."""
    totals = aligned(up(len(numbers)), np.int32)
    totals[: len(numbers)] = numbers.view(np.int8).sum(axis=1, dtype=np.int32)
    return totals


def plane_dots(node: Node, weight: Fours, source: Bytes, taps: Taps, dense: bool, lowering: Lowering) -> None:
    """``weight`` [outputs, taps] on shifted planes; ``dense``: all of it, none of whose sums are moved."""
    residual, out = lowering.read_residual(node), lowering.new(node)
    (_, vectors), planes = out.layout.sweep, source.planes.layout.planes
    mask, stretches = row_stretches(out.layout, taps)
    if dense:
        numbers, where = weight.numbers, _where(node, source, vectors)
        offsets, weights, totals = lowering.once(
            ("tall", *where), lambda: (int32(taps.offset[0]), pack_dense_hx16(numbers, 4), _totals(numbers))
        )
        lowering.emit(
            abi.DenseDotHx16, **product_fields(node, source.planes, out, residual, lowering), range=source.range_,
            offsets=offsets, weights=weights, totals=totals, scales=weight.scales, mask=mask, stretches=stretches,
            stretch_count=len(stretches), taps=numbers.shape[1], period=source.period, batch=out.batched,
            work=numbers.size * vectors * LANES,
        )  # fmt: skip
        return

    def packed() -> tuple[SparseConv, NDArray[np.int32], NDArray[Any]]:
        pattern = Pattern.of(weight.numbers)
        count = -(-planes // max(4, taps.cached_planes))
        view = SparseConv.of(pattern, taps.offset, taps.plane, taps.move, -(-planes // count))
        numbers = pattern.values(weight.numbers)
        return view, numbers, view.packed(numbers)

    view, numbers, pairs = lowering.once(("dots", *_where(node, source, vectors)), packed)
    groups = len(view.shifts)
    keeps = out.layout.moved_masks(view.shifts.tolist(), taps.cols, taps.moves_rows) if groups > 1 else None
    row_vectors = vectors if taps.moves_rows else max(1, out.layout.row // LANES) if groups > 1 else 1
    lowering.emit(
        abi.SparseConvDot, **product_fields(node, source.planes, out, residual, lowering), range=source.range_,
        taps=pairs, starts=view.starts, totals=view.totals(each_of_four(numbers).sum(axis=-1)),
        scales=padded(weight.scales, len(weight.scales)), mask=mask, shifts=view.shifts, keeps=keeps, stretches=stretches,
        stretch_count=len(stretches), vectors=vectors, row_vectors=row_vectors, tile=taps.tile,
        blocks=view.blocks, groups=groups, period=source.period, batch=out.batched,
        work=len(numbers) * vectors * LANES,
    )  # fmt: skip
