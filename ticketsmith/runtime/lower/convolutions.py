"""Convolutions of one sample's image, or of the small images of a whole batch.

In: a ``conv2d`` and its input. Out: where that cannot be read as it lies, copies of its rows and columns; then one product.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ticketsmith.native import abi
from ticketsmith.runtime import layout
from ticketsmith.runtime.analysis import Reach
from ticketsmith.runtime.formats import BYTES_FORMAT, DENSE_DOT_FORMAT, DOT_FORMAT, TALL_DOT_FORMAT
from ticketsmith.runtime.graph import Node, conv_geometry
from ticketsmith.runtime.layout import LANES, Halo, Layout, up
from ticketsmith.runtime.lower import dots
from ticketsmith.runtime.lower.lowering import Lowering
from ticketsmith.runtime.lower.products import TILE, Taps, dense_px32, plane_product, product_fields
from ticketsmith.runtime.operands import Strided, Tensor
from ticketsmith.runtime.winograd import FREQUENCIES, Tiling, pack_winograd

_FEW_TAPS_TILE = 14
"""Vectors of a plane that are computed at once where few taps are summed: fewer leave registers for sums that are moved."""

_FEW_TAPS, _PLANES_IN_CACHE = 9, 28
"""For each output plane, move, and part of the inputs that fits the first cache (so many planes, or all): where that pays."""

_TAPS_OF_A_MOVE = 3
"""Of an output plane: with fewer, moves cost more than reads from two cache lines."""

_DENSE_TILE = 6
"""Vectors that are computed at once where there are few zeros: other registers hold several outputs."""


_INSTEAD = {"dense_px32": "dense_hx16", DENSE_DOT_FORMAT: DOT_FORMAT}
"""What computes the same where no zeros lie between rows, and in lanes."""


def conv2d(node: Node, lowering: Lowering) -> None:
    """In the format that was chosen, if its input can be read so."""
    if node.output in lowering.analysis.batched:
        _lane_convolution(node, lowering)
        return
    source = lowering.read(node.inputs[0], node)
    format_ = lowering.analysis.format(node, "planes")
    reach, tiling = lowering.analysis.reaches[node.output], lowering.analysis.tilings[node.output]
    if format_ == "winograd" and tiling:
        _winograd(node, source, tiling, lowering)
    elif format_ in _INSTEAD and not (source.layout.whole and reach.beyond.cols):  # needs zeros between rows
        _dense_convolution(node, source, reach, format_ == DENSE_DOT_FORMAT, lowering)
    else:
        _plane_convolution(node, source, reach, _INSTEAD.get(format_, format_), lowering)


def _dense_convolution(node: Node, source: Tensor, reach: Reach, dot: bool, lowering: Lowering) -> None:
    """Every input is read where it lies, whatever the strides."""
    weight, own = lowering.graph.parameter(node, "weight"), source.layout
    _, rows, cols = lowering.shapes[node.output]
    channel = np.arange(weight.shape[1] // (4 if dot else 1))[:, None, None] * own.plane
    offset = channel + (reach.far_r * own.row)[:, None] + reach.far_c
    begin = (np.arange(rows) * reach.stride[0] * own.row)[:, None] + np.arange(cols) * reach.stride[1]
    if dot:
        fours = dots.Fours.of(weight, lowering.analysis.dtype_of(node))
        planes = dots.quantised(node.inputs[0], source, 0, lowering)
        dots.dense_dots(node, fours, planes, offset.ravel(), begin.ravel(), lowering)
    else:
        dense_px32(node, weight.reshape(len(weight), -1), source, offset.ravel(), begin.ravel(), lowering)


def _plane_convolution(node: Node, source: Tensor, reach: Reach, format_: str, lowering: Lowering) -> None:
    """As a sum of moved planes: of the input itself, or of copies of its rows and columns."""
    weight, out = lowering.graph.parameter(node, "weight"), lowering.layout(lowering.shapes[node.output])
    outputs, inner, high, wide = weight.shape
    flat: NDArray[Any] = weight.reshape(outputs, -1)
    dense = format_ in ("dense_hx16", TALL_DOT_FORMAT)
    channels, (_, vectors) = lowering.shapes[node.inputs[0]][0], out.sweep
    dot, how = format_ in (DOT_FORMAT, TALL_DOT_FORMAT), ""
    phase: NDArray[np.int64] = np.zeros((high, wide), np.int64)
    in_row = moves = np.zeros(wide, np.int64)
    in_place = reach.direct and not (dense and out.whole and np.any(reach.shift_c))
    dealt = None if in_place or (dense and out.whole) else _deal_phases(node, source, lowering)
    if dealt:
        source, phases = dealt
        how = f"dealt {reach.stride}"
        phase = reach.places(phases)
    if in_place or dealt:
        in_row, moves = (in_row, reach.shift_c) if out.whole else (reach.shift_c, moves)
    else:
        source = _split(node, source, reach, lowering)
        how = f"split for {node.output}"
        phase = reach.phase_r[:, None] * wide + np.arange(wide)
    own = source.layout
    if format_ == BYTES_FORMAT and np.any(moves):  # rows are whole here, so that nothing lies beside them
        format_ = "sparse_conv"
    if dot:
        fours = dots.Fours.of(weight, lowering.analysis.dtype_of(node))
        planes, inner, channels = (
            dots.quantised(node.inputs[0], source, 0, lowering, how),
            inner // 4,
            channels // 4,
        )
        flat = fours.numbers.reshape(outputs, -1)
    plane = reach.planes(outputs, inner) + phase * channels
    count = np.count_nonzero(flat)
    taps_of_a_move = count / flat.size * high * min(inner, _PLANES_IN_CACHE)
    tile = _DENSE_TILE if dense else _FEW_TAPS_TILE if taps_of_a_move < _FEW_TAPS and np.any(moves) else TILE
    in_rows = reach.shift_r * own.row
    many = count > _TAPS_OF_A_MOVE * outputs * high * wide
    moves_rows = not dense and many and reach.direct and out.whole and vectors <= tile and reach.moves_rows(own.row)
    if moves_rows:
        in_rows, moves = np.zeros_like(in_rows), in_rows[:, None] + moves
    offset = plane * own.plane + in_rows[:, None] + in_row
    move = np.broadcast_to(moves, offset.shape)
    chunk = -(-vectors // -(-vectors // tile))
    offset, plane, move = (each.reshape(len(plane), -1) for each in (offset, plane, move))
    plane_bytes = (chunk * LANES + int(np.ptp(in_rows))) * 4
    cols = own.cols if reach.direct else own.row
    taps = Taps(offset, plane, move, cols, plane_bytes, tile=tile, moves_rows=moves_rows)
    if dot:
        dots.plane_dots(node, fours._replace(numbers=flat), planes, taps, format_ == TALL_DOT_FORMAT, lowering)
    elif format_ == BYTES_FORMAT:
        planes = dots.quantised(node.inputs[0], source, 0, lowering, how, apart=True)
        dots.plane_bytes(node, flat, planes, taps, lowering)
    else:
        plane_product(node, flat, source, taps, format_, lowering)


def _deal_phases(node: Node, source: Tensor, lowering: Lowering) -> tuple[Tensor, list[tuple[int, int]]] | None:
    """Every stride-th row and column of an input: planes for each phase that is read, with rows like the output's; and the
    phases. Dealt once for all convolutions which read the input so. None where what is read of each phase, and what must be
    zero beside it, do not fit such rows."""
    analysis, shapes = lowering.analysis, lowering.shapes
    name, size, stride = node.inputs[0], shapes[node.output][1:], analysis.reaches[node.output].stride
    key = name, stride, size
    if key in lowering.phases:
        return lowering.phases[key]
    readers = [
        analysis.reaches[user.output] for user in analysis.users(name)
        if user.op == "conv2d" and user.inputs[0] == name and shapes[user.output][1:] == size
    ]  # fmt: skip
    readers = [reach for reach in readers if reach.stride == stride and not reach.direct]
    phases = sorted({phase for reach in readers for phase in reach.phases})
    (channels, rows, cols), (high, wide), (step_r, step_c) = shapes[name], size, stride
    out = lowering.layout(shapes[node.output])
    left, right = (max(0, *(int((sign * reach.shift_c).max()) for reach in readers)) for sign in (-1, 1))
    left = 0 if out.whole else left  # sums are moved there
    row = out.row - left
    if min(-(-cols // step_c), wide + right) > row:
        return None
    halo = reduce(Halo.union, [reach.halo for reach in readers], Halo(left))
    planes = layout.image(channels * len(phases), high, wide, halo, out.row, whole=out.whole, key=("phases", *key))
    target, own = Tensor.new(planes, abi.Space.SAMPLE), source.layout
    columns = [-(-(cols - c) // step_c) for c in range(step_c)]
    pairs = step_c == 2 and source.space == abi.Space.SAMPLE  # even and odd columns at once
    for index, (r, c) in enumerate(phases):
        height, width = min(high + halo.bottom, -(-(rows - r) // step_r)), min(row, columns[c])
        if min(height, width) <= 0 or (pairs and c == 1 and (r, 0) in phases):
            continue
        to = Strided(target, planes.plane, planes.row, offset=index * channels * planes.plane)
        if pairs and c == 0:
            odds = min(row, columns[1]) if (r, 1) in phases else 0
            lowering.emit(
                abi.Deal, in_=Strided(source, own.plane, own.row * step_r, offset=r * own.row), out=to, planes=channels,
                rows=height, evens=width, odds=odds, distance=channels * planes.plane, work=channels * height * width,
            )  # fmt: skip
        else:
            from_ = Strided(source, own.plane, own.row * step_r, step_c, offset=r * own.row + c)
            lowering.copy(from_, to, (channels, height, width))
    lowering.phases[key] = target, phases
    return target, phases


def _split(node: Node, source: Tensor, reach: Reach, lowering: Lowering) -> Tensor:
    """Every stride-th row and column: for each phase of rows and each column of the kernel, planes that look like the
    output, so that no column is ever read beside its place."""
    (_, high, wide), (channels, rows, cols) = lowering.shapes[node.output], lowering.shapes[node.inputs[0]]
    (step_r, step_c), kernel = reach.stride, len(reach.far_c)
    planes = layout.image(
        channels * step_r * kernel, high, wide, Halo(0, reach.halo.top, reach.halo.bottom),
        lowering.layout(lowering.shapes[node.output]).row,
        key=("split", node.output),  # what is never written in it depends on this very convolution
    )  # fmt: skip
    target, own = Tensor.new(planes, abi.Space.SAMPLE), source.layout
    for index in range(step_r * kernel):
        phase, far = index // kernel, int(reach.far_c[index % kernel])
        first = max(0, -(far // step_c))  # output columns for which there is an input column
        height = min(high + reach.halo.bottom, -(-(rows - phase) // step_r))
        width = min(wide, (cols - 1 - far) // step_c + 1) - first
        if min(height, width) > 0:
            from_ = Strided(source, own.plane, own.row * step_r, step_c, offset=phase * own.row + first * step_c + far)
            to = Strided(target, planes.plane, planes.row, offset=index * channels * planes.plane + first)
            lowering.copy(from_, to, (channels, height, width))
    return target


# ---- of a whole batch: a column is a float of each sample, so that every move is of whole vectors


def _lane_convolution(node: Node, lowering: Lowering) -> None:
    """Of small images of a whole batch, from where they lie; with a stride, from copies of their rows and columns."""
    weight, source = lowering.graph.parameter(node, "weight"), lowering.read(node.inputs[0], node)
    outputs, inner, high, wide = weight.shape
    reach, count = lowering.analysis.reaches[node.output], lowering.lanes
    phase: NDArray[np.int64] = np.zeros((high, wide), np.int64)
    if reach.stride != (1, 1):
        source = _deal_lane_phases(node, source, reach, lowering)
        phase = reach.places(reach.phases)
    own, out = source.layout, lowering.resolutions.lane_layout(lowering.shapes[node.output])
    channels, format_ = lowering.shapes[node.inputs[0]][0], lowering.analysis.format(node, "lanes")
    format_ = _INSTEAD.get(format_, format_)
    flat: NDArray[Any] = weight.reshape(outputs, -1)
    how = "" if reach.stride == (1, 1) else f"dealt for {node.output}"
    if dot := format_ in (DOT_FORMAT, TALL_DOT_FORMAT):
        fours = dots.Fours.of(weight, lowering.analysis.dtype_of(node))
        planes, inner, channels = (
            dots.quantised(node.inputs[0], source, count, lowering, how),
            inner // 4,
            channels // 4,
        )
        flat = fours.numbers.reshape(outputs, -1)
    plane = reach.planes(outputs, inner) + phase * channels
    offset = plane * own.plane + (reach.shift_r * own.row)[:, None] + reach.shift_c * count
    offset, plane = (each.reshape(len(plane), -1) for each in (offset, plane))
    columns = min(out.cols, TILE * LANES) + (int(np.ptp(reach.shift_c)) + 1) * count
    plane_bytes = (int(np.ptp(reach.shift_r)) + 1) * columns * 4
    taps = Taps(offset, plane, np.zeros_like(offset), own.cols, plane_bytes, own.row)
    if dot:
        dots.plane_dots(node, fours._replace(numbers=flat), planes, taps, format_ == TALL_DOT_FORMAT, lowering)
    elif format_ == BYTES_FORMAT:
        planes = dots.quantised(node.inputs[0], source, count, lowering, how, apart=True)
        dots.plane_bytes(node, flat, planes, taps, lowering)
    else:
        plane_product(node, flat, source, taps, format_, lowering)


def _deal_lane_phases(node: Node, source: Tensor, reach: Reach, lowering: Lowering) -> Tensor:
    (channels, rows, cols), (_, high, wide) = lowering.shapes[node.inputs[0]], lowering.shapes[node.output]
    left, right = max(0, -int(reach.shift_c.min())), max(0, int(reach.shift_c.max()))
    phases, lanes, (step_r, step_c) = reach.phases, lowering.lanes, reach.stride
    halo, key = Halo(left + right, reach.halo.top, reach.halo.bottom), ("phases", node.output)
    planes = layout.lanes(channels * len(phases), high, wide, lanes, halo, key)
    target, own = Tensor.new(planes, abi.Space.BATCH), source.layout
    for index, (r, c) in enumerate(phases):
        height, width = min(high + halo.bottom, -(-(rows - r) // step_r)), min(wide + right, -(-(cols - c) // step_c))
        if min(height, width) > 0:
            from_ = Strided(source, own.plane, own.row * step_r, lanes * step_c, 1, r * own.row + c * lanes)
            to = Strided(target, planes.plane, planes.row, lanes, 1, index * channels * planes.plane)
            lowering.copy(from_, to, (channels, height, width), lanes=True)
    return target


# ---- by way of frequencies


def _winograd(node: Node, source: Tensor, tiling: Tiling, lowering: Lowering) -> None:
    """For each part of the tiling: inputs to frequencies, then products and outputs."""
    weight = lowering.graph.parameter(node, "weight")
    residual = lowering.read_residual(node)
    out = lowering.new(node) if residual else lowering.new_compact(node)
    outputs, inputs = weight.shape[:2]
    _, padding, _, _ = conv_geometry(node)
    common = {
        **product_fields(node, source, out, residual, lowering), "weights": pack_winograd(weight),
        "columns": tiling.columns(), "tile_cols": tiling.tile_cols, "pad_rows": padding[0], "left": tiling.left,
        "skip": tiling.skip,
    }  # fmt: skip
    blocks = up(outputs) // LANES
    for part in tiling.parts():
        # an odd number of cache lines, so that the frequencies of a tile lie in different sets of a cache
        plane = (up(up(inputs, part.together) * part.pitch) // LANES | 1) * LANES
        block = FREQUENCIES * LANES * (part.pitch + 1)
        transformed = Tensor.new(Layout(FREQUENCIES, inputs, part.pitch, plane, part.pitch), abi.Space.SAMPLE)
        sums = Tensor.new(Layout(blocks, FREQUENCIES, block // FREQUENCIES, block, LANES), abi.Space.SAMPLE)
        starts, ends = tiling.neighbours(part)
        fields = {
            **common, "transformed": transformed, "sums": sums, "starts": starts, "ends": ends, "first": part.first,
            "tile_rows": part.tile_rows, "pitch": part.pitch, "together": part.together,
        }  # fmt: skip
        work = FREQUENCIES * part.tiles * inputs
        lowering.emit(abi.Winograd, **fields, product=False, work=4 * work, uses=(source, transformed))
        lowering.emit(abi.Winograd, **fields, product=True, work=work * outputs)
