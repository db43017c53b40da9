"""Linear layers: of one vector, of tokens, of samples."""

from __future__ import annotations

import numpy as np

from ticketsmith.runtime.formats import BYTES_FORMAT, DENSE_DOT_FORMAT, TALL_DOT_FORMAT, WHOLE_FORMATS
from ticketsmith.runtime.graph import Node
from ticketsmith.runtime.layout import LANES
from ticketsmith.runtime.lower import dots
from ticketsmith.runtime.lower.lowering import Lowering
from ticketsmith.runtime.lower.products import FIRST_CACHE, Taps, column_tile, planes_linear, vector_product


def linear(node: Node, lowering: Lowering) -> None:
    """Features with one vector, or with each column of tokens or of samples."""
    name, batched = node.inputs[0], node.output in lowering.analysis.batched
    if batched and lowering.analysis.rounds_lanes(node) and not lowering.tensors[name].batched:
        format_ = lowering.analysis.format(node, "lanes")
        planes = dots.quantised_samples(name, lowering, format_ == BYTES_FORMAT)
        _dots(node, planes, lowering.lanes, format_, lowering)
        return
    source = lowering.read(name, node)
    if source.layout.is_vector:
        vector_product(node, lowering)
    elif (format_ := lowering.analysis.format(node, "lanes" if batched else "planes")) in WHOLE_FORMATS:
        lanes = lowering.lanes if batched else 0
        planes = dots.quantised(name, source, lanes, lowering, apart=format_ == BYTES_FORMAT)
        _dots(node, planes, source.layout.plane, format_, lowering)
    else:
        planes_linear(node, lowering)


def _dots(node: Node, planes: dots.Bytes, distance: int, format_: str, lowering: Lowering) -> None:
    """``distance``: columns of a plane's memory."""
    weight, own = lowering.graph.parameter(node, "weight"), planes.planes.layout
    dtype = lowering.analysis.dtype_of(node)
    fours = lowering.once(("fours", node.weights["weight"], dtype), lambda: dots.Fours.of(weight, dtype))
    plane = np.arange(weight.shape[1] if format_ == BYTES_FORMAT else fours.numbers.shape[1], dtype=np.int64)[None]
    tile = column_tile(own, FIRST_CACHE)
    taps = Taps(plane * distance, plane, np.zeros_like(plane), own.cols, tile * LANES * 4, tile=tile)
    if format_ == BYTES_FORMAT:
        dots.plane_bytes(node, weight, planes, taps, lowering)
    elif format_ == DENSE_DOT_FORMAT:
        dots.dense_dots(node, fours, planes, taps.offset[0], np.arange(own.cols, dtype=np.int64), lowering)
    else:
        dots.plane_dots(node, fours, planes, taps, format_ == TALL_DOT_FORMAT, lowering)
