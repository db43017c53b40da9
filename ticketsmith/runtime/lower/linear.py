"""Linear layers: of one vector, of tokens, of samples."""

from __future__ import annotations

import numpy as np

from ticketsmith.runtime.formats import DOT_FORMAT
from ticketsmith.runtime.graph import Node
from ticketsmith.runtime.layout import LANES
from ticketsmith.runtime.lower import dots
from ticketsmith.runtime.lower.lowering import Lowering
from ticketsmith.runtime.lower.products import Taps, planes_linear, vector_product


def linear(node: Node, lowering: Lowering) -> None:
    """Features with one vector, or with each column of tokens or of samples."""
    name, batched = node.inputs[0], node.output in lowering.analysis.batched
    if batched and lowering.analysis.rounds_lanes(node) and not lowering.tensors[name].batched:
        _dots(node, dots.quantised_samples(name, lowering), lowering)
        return
    source = lowering.read(name, node)
    if source.layout.is_vector:
        vector_product(node, lowering)
    elif lowering.analysis.format(node, "lanes" if batched else "planes") == DOT_FORMAT:
        _dots(node, dots.quantised(name, source, lowering.lanes if batched else 0, lowering), lowering)
    else:
        planes_linear(node, lowering)


def _dots(node: Node, planes: dots.Bytes, lowering: Lowering) -> None:
    weight = dots.Fours.of(lowering.graph.parameter(node, "weight"), lowering.analysis.dtype_of(node))
    own = planes.planes.layout
    plane = np.arange(weight.numbers.shape[1], dtype=np.int64)[None]
    taps = Taps(plane * own.plane, plane, np.zeros_like(plane), own.cols, own.sweep[1] * LANES * 4)
    dots.plane_dots(node, weight, planes, taps, lowering)
