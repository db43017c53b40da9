"""Winograd's minimal filtering F(4x4, 3x3) (Lavin and Gray 2016): which convolutions it can compute, and in which parts.

Outputs are computed in tiles of 4 by 4, from input tiles of 6 by 6. Input tiles and weights are transformed to 36
"frequencies"; for each of these the convolution is a product of matrices. A tile costs 36 multiplications for each pair of
an input and an output plane, where the convolution itself takes 144.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ticketsmith.runtime.graph import Graph, Node, Shape, conv_geometry
from ticketsmith.runtime.layout import LANES, bits, up
from ticketsmith.sparse.values import Floats, aligned

FREQUENCIES = 36
_MOST_TILES = 256
"""In a part; ``src/dense/winograd.inl`` has room for as many."""

_SECOND_CACHE = 600_000
"""Bytes of transformed inputs that a part should have: a second cache of 1 MiB, less what weights and sums need."""

_POINTS = (0.5**0.5, -(0.5**0.5), 2**0.5, -(2**0.5))
"""And 0 and infinity. Pairs whose product is 1 have errors a quarter as large as 1, -1, 2 and -2 (cf. Alam et al. 2022,
Winograd convolution for deep neural networks: efficient point selection)."""


def _weights() -> NDArray[np.float64]:
    """G of the paper: [6, 3]."""
    rows = [[1.0, 0.0, 0.0]]
    for point in _POINTS:
        others = [0.0, *(other for other in _POINTS if other != point)]
        scale = np.prod([point - other for other in others])
        rows.append([1 / scale, point / scale, point**2 / scale])
    return np.array([*rows, [0.0, 0.0, 1.0]])


@dataclass(frozen=True)
class Part:
    """Rows of tiles that are computed together. ``pitch`` tiles lie between two planes: whole vectors, or the few that there
    are; then ``together`` planes make whole vectors."""

    first: int
    tile_rows: int
    tiles: int

    @property
    def pitch(self) -> int:
        return up(self.tiles) if self.tiles >= LANES else self.tiles

    @property
    def together(self) -> int:
        return 1 if self.pitch % LANES == 0 else LANES


@dataclass(frozen=True)
class Tiling:
    """Tiles of a convolution. The middle four columns of the first one begin with column ``left`` of the input; its outputs
    begin ``skip`` columns before the image, so that what it reads before its middle is always padding."""

    planes: int
    """Of the input."""
    cols: int
    """Of the input."""
    pixels: int
    """Of an output plane."""
    rows: int
    """Of the output."""
    left: int
    skip: int
    tile_cols: int

    @classmethod
    def of(cls, graph: Graph, node: Node, shape: Shape) -> Tiling | None:
        """None where this is no convolution that can be computed so. ``shape`` is its input's."""
        if node.op != "conv2d" or graph.parameter(node, "weight").shape[2:] != (3, 3):
            return None
        stride, padding, dilation, groups = conv_geometry(node)
        if stride != (1, 1) or dilation != (1, 1) or groups != 1:
            return None
        planes, rows, cols = shape
        left, skip = 1 - max(1, padding[1]), max(0, 1 - padding[1])
        out_rows, out_cols = rows + 2 * padding[0] - 2, cols + 2 * padding[1] - 2
        tile_cols = -(-max(out_cols + skip, cols - left) // 4)
        tiling = cls(planes, cols, out_rows * out_cols, out_rows, left, skip, tile_cols)
        return tiling if tile_cols <= _MOST_TILES else None

    @property
    def tiles(self) -> int:
        """Of a plane."""
        return -(-self.rows // 4) * self.tile_cols

    def parts(self) -> list[Part]:
        """Even ones, of as many tiles as fit the second cache."""
        tiles = min(_MOST_TILES, max(LANES, _SECOND_CACHE // (4 * FREQUENCIES * self.planes)))
        tile_rows = -(-self.rows // 4)
        count = -(-tile_rows // max(1, tiles // self.tile_cols))
        starts = [tile_rows * index // count for index in range(count + 1)]
        return [Part(a, b - a, (b - a) * self.tile_cols) for a, b in pairwise(starts)]

    def columns(self) -> NDArray[np.uint16]:
        """A bit for each column of a row of tiles: whether the input has it."""
        column = np.arange(up(4 * self.tile_cols)) + self.left
        return bits((column >= 0) & (column < self.cols))

    def neighbours(self, part: Part) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
        """A bit for each tile: whether one is before it in its row; whether one is behind it."""
        column = np.arange(up(part.together * part.pitch)) % self.tile_cols
        return bits(column != 0), bits(column != self.tile_cols - 1)


def pack_winograd(weight: Floats) -> Floats:
    """``weight`` [outputs, inputs, 3, 3] as [outputs / 16, 36 frequencies, inputs, 16], zeros for outputs that are not
    there. Computed in float64, rounded once."""
    outputs, inputs = weight.shape[:2]
    blocks = up(outputs) // LANES
    matrix = _weights()
    out: Floats = aligned((blocks, FREQUENCIES, inputs, LANES), np.float32)
    for block in range(blocks):  # one at a time: float64 of all would be large
        part = weight[LANES * block : LANES * (block + 1)].astype(np.float64)
        transformed = matrix @ part @ matrix.T
        out[block, :, :, : len(part)] = transformed.reshape(len(part), inputs, FREQUENCIES).transpose(2, 1, 0)
    return out
