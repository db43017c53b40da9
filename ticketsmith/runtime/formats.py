"""The formats in which a product can be computed, and rules of thumb for where nothing was measured."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ticketsmith.runtime.graph import PRODUCTS, Graph, Shape
from ticketsmith.runtime.layout import LANES
from ticketsmith.runtime.winograd import FREQUENCIES, Tiling
from ticketsmith.sparse.sparse_conv import in_fours
from ticketsmith.sparse.values import fours

_CANDIDATES = {
    "vector": ("sell", "sell_wide", "bitmask", "gemv"),
    "planes": ("sparse_conv", "sparse_conv_whole", "sparse_conv_fours", "winograd", "dense_px32", "dense_hx16"),
    "lanes": ("sparse_conv", "sparse_conv_whole", "sparse_conv_fours", "dense_hx16"),
}
FORMER_NAMES = {
    "slices": "sell",
    "slices_wide": "sell_wide",
    "bitmap": "bitmask",
    "rows": "gemv",
    "taps": "sparse_conv",
    "taps_whole": "sparse_conv_whole",
    "pixels": "dense_px32",
    "tiles": "dense_hx16",
}
"""Names of formats in files that were written before the formats had those of the field."""

DOT_FORMAT, BYTES_FORMAT, DENSE_DOT_FORMAT, TALL_DOT_FORMAT = WHOLE_FORMATS = (
    "sparse_conv_dot", "sparse_conv_bytes", "dense_dot_px32", "dense_dot_hx16",
)  # fmt: skip
"""Those of planes and lanes of whole numbers: weights of four channels together, of any four inputs, and all, in two ways."""

ATTENTION_DOT = "attention_dot"
"""Attention of whole numbers, of which a tuning can tell that it is faster; without one it stays in float32."""

_WHOLE = {"vector": ("sell", "sell_wide", "gemv")}
"""Those that also multiply whole numbers."""

_ROUNDED_PLANE, _DOT_PAYS = 10, 0.92
"""To round a plane of the input takes as long as so many taps; by how much less work whole numbers must be."""

_DENSE_ABOVE = {"vector": 0.9, "planes": 0.7, "lanes": 0.35}
"""The density above which dense kernels won on the machines where this was measured."""

_DENSE_DOT_ABOVE = 0.4
"""The same for vectors of whole numbers."""

_BITMASK_ABOVE = 0.25
"""The density above which a bit for each weight won over columns, where weights come from memory."""

_WINOGRAD_ABOVE, _TRANSFORMS = 0.22, 1.7
"""The density above which Winograd's filtering won, where all of every tile is needed; what transforms add for each plane."""

FOURS = "sparse_conv_fours"
"""That of planes and lanes whose weights were pruned in blocks of four outputs."""

_FULL_FOURS = 0.7
"""The share of weights in blocks of four outputs that must not be zero for these to be worth a trial."""

_MOST_FOR_FEW_TILES = 4_000_000
"""Transformed weights that can be read for fewer than 16 tiles: more do not come from the last cache in time."""

_MOST_IN_CACHE = 3_000_000
"""Weights that are not zero; with their columns some 24 MB: what one can hope to have of a last cache."""


DOT = "_dot"
"""How a precision ends in which products are of whole numbers."""

MOST_INPUTS_OF_DOT = 2**16
"""Of an output: its sum of products of bytes, 255 x 127 each, then fits 32 bits."""


def candidates(mode: str, shared: bool = True, tiled: bool = True, dot: bool = False) -> tuple[str, ...]:
    """Formats of a product with one vector, with planes, or with lanes.

    ``shared``: all outputs read the same inputs; the dense kernels for planes need that. ``tiled``: it is a convolution that
    Winograd's filtering can compute (``winograd.Tiling``). ``dot``: of whole numbers.
    """
    if dot and mode in _WHOLE:
        return _WHOLE[mode]
    wrong = {"dense_px32", "dense_hx16", FOURS, DENSE_DOT_FORMAT, TALL_DOT_FORMAT} if not shared else set()
    if not (shared and tiled):
        wrong.add("winograd")
    sparse, *others = _CANDIDATES[mode]
    names = (sparse, *(WHOLE_FORMATS if dot else ()), *others)
    return tuple(name for name in names if name not in wrong)


def cold(graph: Graph) -> bool:
    """Whether a network's weights are too many for caches: they then come from memory in each call, and bytes decide."""
    weights = sum(np.count_nonzero(graph.parameter(node, "weight")) for node in graph.nodes if node.op in PRODUCTS)
    return bool(weights > _MOST_IN_CACHE)


def density(graph: Graph) -> float:
    """The share of a network's multiply-adds that are not with zeros."""
    shapes = graph.shapes()
    nonzero = total = 0
    for node in graph.nodes:
        if node.op in PRODUCTS:
            weight = graph.parameter(node, "weight")
            # a weight of a convolution, or of a layer over a sequence, is used at each place of the output
            places = math.prod(shapes[node.output]) // len(weight)
            nonzero, total = nonzero + places * int(np.count_nonzero(weight)), total + places * weight.size
    return nonzero / max(1, total)


def sensible(
    mode: str,
    shared: bool,
    weight: NDArray[np.float32],
    cold: bool,
    tiling: Tiling | None = None,
    dot: bool = False,
) -> tuple[str, ...]:
    """Candidates that are worth timing."""
    wrong = set() if dot else {"sell"} if cold else {"sell_wide"}
    if not in_blocks_of_four(weight):
        wrong.add(FOURS)
    if cold and tiling and tiling.tiles < LANES:
        wrong.add("winograd")
    return tuple(name for name in candidates(mode, shared, tiling is not None, dot) if name not in wrong)


def default(
    mode: str,
    shared: bool,
    weight: NDArray[np.float32],
    cold: bool,
    tiling: Tiling | None = None,
    dot: bool = False,
) -> str:
    """What is usually fastest for this density."""
    density = np.count_nonzero(weight) / max(1, weight.size)
    sparse, *others, dense = sensible(mode, shared, weight, cold, tiling, dot)
    if dot and mode == "vector":
        return dense if density > _DENSE_DOT_ABOVE else "sell_wide" if cold else sparse
    if dot and dot_pays(weight):
        return DOT_FORMAT
    if tiling and "winograd" in others and density > _winograd_above(tiling, len(weight)):
        return "winograd"
    if shared and density > _DENSE_ABOVE[mode]:
        return dense
    if mode == "lanes" and FOURS in others:
        return FOURS
    return "bitmask" if mode == "vector" and cold and density > _BITMASK_ABOVE else sparse


def stored(precision: str) -> str:
    """As what the weights of a precision are stored: float32, bfloat16, int8 or int4."""
    return precision.removesuffix(DOT)


def dot_fits(precision: str, weight: NDArray[np.float32]) -> bool:
    """Whether a product can be one of whole numbers, with no more inputs than a sum has bits for; of one vector it then is.
    Channels of convolutions come in fours."""
    few = weight[0].size <= MOST_INPUTS_OF_DOT
    return precision.endswith(DOT) and few and (weight.ndim == 2 or weight.shape[1] % 4 == 0)


def attention_fits(precision: str, heads: int, shape: Shape) -> bool:
    """Whether attention to itself of a sequence of ``shape`` can be one of whole numbers: a head has fours of features, and a
    sum has bits enough."""
    tokens, features = shape
    return precision.endswith(DOT) and features % (4 * heads) == 0 and 1 < tokens <= MOST_INPUTS_OF_DOT


def in_blocks_of_four(weight: NDArray[np.float32]) -> bool:
    """Whether four neighbouring outputs have nearly the same weights that are not zero."""
    taps = in_fours(weight.reshape(len(weight), -1)).mask
    return bool(np.count_nonzero(weight) >= _FULL_FOURS * 4 * np.count_nonzero(taps))


def dot_pays(weight: NDArray[np.float32]) -> bool:
    """Whether products of planes in whole numbers take less time: four input channels are multiplied at once, wherever one of
    the four weights is not zero, so that needs blocks, or few zeros."""
    together = np.count_nonzero(fours((weight != 0).view(np.int8)))
    return bool(together + _ROUNDED_PLANE * weight.shape[1] < _DOT_PAYS * np.count_nonzero(weight))


def _winograd_above(tiling: Tiling, outputs: int) -> float:
    weights = FREQUENCIES * tiling.planes * outputs
    if tiling.tiles < 4 or (tiling.tiles < LANES and weights > _MOST_FOR_FEW_TILES):
        return 1.0
    computed = 16 * tiling.tiles / tiling.pixels
    return computed * (_WINOGRAD_ABOVE + _TRANSFORMS * (1 / tiling.planes + 1 / outputs))
