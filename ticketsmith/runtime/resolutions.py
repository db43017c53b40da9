"""The second pass: the layout of every value, from what convolutions need at each resolution.

In: the analysis. Out: for each size of images, how many zeros lie around them and whether their rows are whole; and so, for
the shape of any value, its layout.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Set
from dataclasses import dataclass, replace

import numpy as np

from ticketsmith.runtime import layout
from ticketsmith.runtime.analysis import Analysis
from ticketsmith.runtime.formats import BYTES_FORMAT, DENSE_DOT_FORMAT, FOURS, TALL_DOT_FORMAT
from ticketsmith.runtime.graph import Shape
from ticketsmith.runtime.layout import Halo, Layout

_MOST_WASTE = 1.4
"""How much longer rows may get so that reads are of whole cache lines."""

_MOST_ZEROS = 1.04
"""How much longer than with whole rows planes may be that have zero columns between their rows."""


@dataclass(frozen=True, eq=False)
class Resolutions:
    """Images by (rows, columns): the zeros around them, for one sample and in lanes; and those whose rows are whole."""

    lanes: int
    halos: Mapping[Shape, Halo]
    lane_halos: Mapping[Shape, Halo]
    whole: Set[Shape]

    def layout(self, shape: Shape) -> Layout:
        """Of one sample's value."""
        if len(shape) == 1 or (len(shape) == 2 and shape[0] == 1):
            return layout.vector(shape[-1])
        if len(shape) == 2:
            return layout.columns(shape[1], shape[0])
        if len(shape) > 3:
            return layout.vector(math.prod(shape))
        channels, rows, cols = shape
        halo = self.halos.get((rows, cols), Halo())
        if (rows, cols) not in self.whole:
            return layout.image(channels, rows, cols, halo)
        return layout.image(channels, rows, cols, replace(halo, cols=0), layout.whole_row(cols), whole=True)

    def lane_layout(self, shape: Shape) -> Layout:
        """Of a value of a whole batch."""
        if len(shape) == 1:
            return layout.columns(shape[0], self.lanes)
        planes, rows, cols = shape
        return layout.lanes(planes, rows, cols, self.lanes, self.lane_halos.get((rows, cols), Halo()))


def resolve(analysis: Analysis) -> Resolutions:
    """Rows are whole at resolutions where most is computed sparsely.

    Dense kernels, and those of blocks, read an input once for several outputs, so that what lies across two cache lines
    costs them little, and copies of planes would cost them more.
    """
    halos: dict[Shape, Halo] = defaultdict(Halo)
    lane_halos: dict[Shape, Halo] = defaultdict(Halo)
    farthest: dict[Shape, int] = {}
    sparse: Counter[Shape] = Counter()

    for node in analysis.graph.nodes:
        if node.op != "conv2d":
            continue
        reach = analysis.reaches[node.output]
        inside, size = analysis.shapes[node.inputs[0]][1:], analysis.shapes[node.output][1:]
        if node.output in analysis.batched:
            if reach.stride == (1, 1):  # others read phases
                lane_halos[inside] = lane_halos[inside].union(reach.beyond)
            continue
        weight, name = analysis.graph.parameter(node, "weight"), analysis.format(node, "planes")
        if name == "winograd":  # reads no padding
            continue
        if name in ("dense_px32", DENSE_DOT_FORMAT):
            halos[inside] = halos[inside].union(reach.beyond)
            if reach.beyond.cols:
                sparse[inside] -= weight.size
            continue
        halos[size] = halos[size].union(reach.halo if reach.direct else Halo())
        if np.any(reach.shift_r) or np.any(reach.shift_c):
            farthest[size] = max(farthest.get(size, 0), int(np.abs(reach.shift_c).max()))
            count = int(np.count_nonzero(weight))
            anywhere = name == BYTES_FORMAT or (name == FOURS and _no_longer(size))
            sparse[size] += -weight.size if name in ("dense_hx16", TALL_DOT_FORMAT) else -count if anywhere else count
    whole = {
        size for size, far in farthest.items()
        if layout.whole_row(size[1]) <= _MOST_WASTE * size[1] and far < layout.LANES and sparse[size] > 0
    }  # fmt: skip
    return Resolutions(analysis.lanes, halos, lane_halos, whole)


def _no_longer(size: Shape) -> bool:
    """Whether images with zero columns between the rows are about as long as those with whole rows."""
    rows, cols = size
    return (rows - 1) * (cols + 1) + cols <= _MOST_ZEROS * rows * layout.whole_row(cols)
