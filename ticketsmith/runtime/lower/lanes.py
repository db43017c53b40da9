"""What is done once for a whole batch: a column is a float of each sample, so that every move is of whole vectors.

In: a node whose values are in lanes. Out: the same instructions as for one sample, over columns of all of them. Kernels
that treat every column alike need nothing of their own; these do.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ticketsmith.native.abi import Space
from ticketsmith.runtime import layout
from ticketsmith.runtime.analysis import Reach
from ticketsmith.runtime.graph import Node, Shape
from ticketsmith.runtime.layout import LANES, Halo
from ticketsmith.runtime.lower.lowering import Lowering
from ticketsmith.runtime.lower.products import TILE, Taps, plane_product
from ticketsmith.runtime.operands import Strided, Tensor


def convolution(node: Node, lowering: Lowering) -> None:
    """Of small images, from where they lie; with a stride, from copies of their rows and columns."""
    weight, source = lowering.graph.parameter(node, "weight"), lowering.read(node.inputs[0], node)
    outputs, inner, high, wide = weight.shape
    reach, count = lowering.analysis.reaches[node.output], lowering.lanes
    phase: NDArray[np.int64] = np.zeros((high, wide), np.int64)
    if reach.stride != (1, 1):
        source = _deal_phases(node, source, reach, lowering)
        phase = reach.places(reach.phases)
    own, out = source.layout, lowering.resolutions.lane_layout(lowering.shapes[node.output])
    plane = reach.planes(outputs, inner) + phase * lowering.shapes[node.inputs[0]][0]
    offset = plane * own.plane + (reach.shift_r * own.row)[:, None] + reach.shift_c * count
    offset, plane = (each.reshape(len(plane), -1) for each in (offset, plane))
    columns = min(out.cols, TILE * LANES) + (int(np.ptp(reach.shift_c)) + 1) * count
    plane_bytes = (int(np.ptp(reach.shift_r)) + 1) * columns * 4
    taps = Taps(offset, plane, np.zeros_like(offset), own.cols, plane_bytes, own.row)
    format_ = lowering.analysis.format(node, "lanes")
    plane_product(node, weight.reshape(outputs, -1), source, taps, format_, lowering)


def _deal_phases(node: Node, source: Tensor, reach: Reach, lowering: Lowering) -> Tensor:
    """Every stride-th row and column, for each phase that is read."""
    (channels, rows, cols), (_, high, wide) = lowering.shapes[node.inputs[0]], lowering.shapes[node.output]
    left, right = max(0, -int(reach.shift_c.min())), max(0, int(reach.shift_c.max()))
    phases, lanes, (step_r, step_c) = reach.phases, lowering.lanes, reach.stride
    halo, key = Halo(left + right, reach.halo.top, reach.halo.bottom), ("phases", node.output)
    planes = layout.lanes(channels * len(phases), high, wide, lanes, halo, key)
    target, own = Tensor.new(planes, Space.BATCH), source.layout
    for index, (r, c) in enumerate(phases):
        height, width = min(high + halo.bottom, -(-(rows - r) // step_r)), min(wide + right, -(-(cols - c) // step_c))
        if min(height, width) > 0:
            from_ = Strided(source, own.plane, own.row * step_r, lanes * step_c, 1, r * own.row + c * lanes)
            to = Strided(target, planes.plane, planes.row, lanes, 1, index * channels * planes.plane)
            lowering.copy(from_, to, (channels, height, width), lanes=True)
    return target


def flatten(node: Node, source: Tensor, shape: Shape, lowering: Lowering) -> None:
    """A value of ``shape`` as a vector."""
    planes, rows, cols = lowering.lane_extent(source, shape)
    if planes == 1:
        lowering.tensors[node.output] = source.as_layout(layout.columns(math.prod(shape), lowering.lanes))
        return
    out, lanes = lowering.new(node), lowering.lanes
    to = Strided(out, rows * cols * lanes, cols * lanes, lanes, 1)
    lowering.copy(lowering.lane_side(source), to, (planes, rows, cols), lanes=True)


def output(result: Tensor, outside: Tensor, shape: Shape, lowering: Lowering) -> None:
    """Each sample's lane to where the caller wants it."""
    planes, rows, cols = lowering.lane_extent(result, shape)
    to = Strided(outside, rows * cols, cols, sample=math.prod(shape))
    lowering.copy(lowering.lane_side(result), to, (planes, rows, cols), lanes=True)
