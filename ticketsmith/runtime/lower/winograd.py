"""Convolutions by Winograd's minimal filtering.

In: a convolution and its tiling. Out: for each part of its tiles two instructions: the inputs to frequencies, then products
and outputs.
"""

from __future__ import annotations

from ticketsmith.native import abi
from ticketsmith.native.abi import Space
from ticketsmith.runtime.graph import Node, conv_geometry
from ticketsmith.runtime.layout import LANES, Layout, up
from ticketsmith.runtime.lower.lowering import Lowering
from ticketsmith.runtime.lower.products import padded_bias, product_fields
from ticketsmith.runtime.operands import Tensor
from ticketsmith.runtime.winograd import FREQUENCIES, Tiling, pack_winograd


def convolution(node: Node, source: Tensor, tiling: Tiling, lowering: Lowering) -> None:
    """Of 3 by 3, in the parts of ``tiling``."""
    weight = lowering.graph.parameter(node, "weight")
    residual = lowering.read_residual(node)
    out = lowering.new(node) if residual else lowering.new_compact(node)
    outputs, inputs = weight.shape[:2]
    _, padding, _, _ = conv_geometry(node)
    common = {
        **product_fields(node, source, out, residual), "weights": pack_winograd(weight),
        "bias": padded_bias(node, outputs, lowering), "columns": tiling.columns(), "tile_cols": tiling.tile_cols,
        "pad_rows": padding[0], "left": tiling.left, "skip": tiling.skip,
    }  # fmt: skip
    blocks = up(outputs) // LANES
    for part in tiling.parts():
        # an odd number of cache lines, so that the frequencies of a tile lie in different sets of a cache
        plane = (up(up(inputs, part.together) * part.pitch) // LANES | 1) * LANES
        block = FREQUENCIES * LANES * (part.pitch + 1)
        transformed = Tensor.new(Layout(FREQUENCIES, inputs, part.pitch, plane, part.pitch), Space.SAMPLE)
        sums = Tensor.new(Layout(blocks, FREQUENCIES, block // FREQUENCIES, block, LANES), Space.SAMPLE)
        starts, ends = tiling.neighbours(part)
        fields = {
            **common, "transformed": transformed, "sums": sums, "starts": starts, "ends": ends, "first": part.first,
            "tile_rows": part.tile_rows, "pitch": part.pitch, "together": part.together,
        }  # fmt: skip
        work = FREQUENCIES * part.tiles * inputs
        lowering.emit(abi.Winograd, **fields, product=False, work=4 * work, uses=(source, transformed))
        lowering.emit(abi.Winograd, **fields, product=True, work=work * outputs)
