"""What a convolution reads: which rows and columns, and how far beyond its input."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ticketsmith.runtime.graph import Graph, Node, Shape, conv_geometry
from ticketsmith.runtime.layout import LANES, Halo


@dataclass(frozen=True, eq=False)
class Reach:
    """What a convolution reads.

    With stride s and padding p, kernel row k of output row r reads input row ``s r + d``, ``d = k - p`` ("far"): row
    ``r + d // s`` ("shift") of those whose index is ``d % s`` modulo s ("phase"). A convolution is ``direct`` when it can
    read its input where it is; otherwise the input is split first. ``beyond`` is how far it reads beyond its input itself.
    """

    direct: bool
    stride: tuple[int, int]
    groups: int
    far_r: NDArray[np.int64]
    far_c: NDArray[np.int64]
    shift_r: NDArray[np.int64]
    shift_c: NDArray[np.int64]
    phase_r: NDArray[np.int64]
    phase_c: NDArray[np.int64]
    halo: Halo
    beyond: Halo

    @classmethod
    def of(cls, graph: Graph, node: Node, shape: Shape) -> Reach:
        """Of a ``conv2d`` whose input has ``shape``."""
        stride, padding, dilation, groups = conv_geometry(node)
        kernel = graph.parameter(node, "weight").shape[2:]
        far = [np.arange(k) * d - p for k, d, p in zip(kernel, dilation, padding, strict=True)]
        shift = [d // s for d, s in zip(far, stride, strict=True)]
        same = all(
            n + 2 * p - d * (k - 1) == n for n, k, d, p in zip(shape[1:], kernel, dilation, padding, strict=True)
        )
        direct = stride == (1, 1) and same
        top, bottom = max(0, -int(shift[0].min())), max(0, int(shift[0].max()))
        halo = Halo(padding[1] if direct else 0, top, bottom)
        before = [max(0, -int(d.min())) for d in far]
        last = [(n + p - 1 - int(d.max())) // s * s for n, p, d, s in zip(shape[1:], padding, far, stride, strict=True)]
        behind = [max(0, begin + int(d.max()) - (n - 1)) for begin, d, n in zip(last, far, shape[1:], strict=True)]
        return cls(
            direct, stride, groups, far[0], far[1], shift[0], shift[1], far[0] % stride[0], far[1] % stride[1],
            halo, Halo(max(before[1], behind[1]), before[0], behind[0]),
        )  # fmt: skip

    @property
    def phases(self) -> list[tuple[int, int]]:
        """(row, column) of the phases that are read, in order."""
        return sorted({(int(r), int(c)) for r in self.phase_r for c in self.phase_c})

    def places(self, phases: list[tuple[int, int]]) -> NDArray[np.int64]:
        """[rows, columns of the kernel]: the place of each tap's phase in ``phases``."""
        return np.array([[phases.index((r, c)) for c in self.phase_c] for r in self.phase_r])

    def planes(self, outputs: int, inner: int) -> NDArray[np.int64]:
        """[outputs, or 1 if all read the same; inner, 1, 1]: the input planes of each output."""
        group = np.arange(outputs if self.groups > 1 else 1) // (outputs // self.groups)
        return (group[:, None] * inner + np.arange(inner))[:, :, None, None]

    @property
    def shifts(self) -> bool:
        """Whether anything is read from another place than that of its output."""
        return bool(np.any(self.shift_r) or np.any(self.shift_c))

    def moves_rows(self, row: int) -> bool:
        """Whether to move sums by rows, too: where several rows are in a vector, one that begins with another row would be
        read from two cache lines. Moves are of less than a vector, and each has one meaning."""
        rows, cols = int(np.abs(self.shift_r).max()), int(np.abs(self.shift_c).max())
        return row < LANES and 2 * cols < row and rows * row + cols < LANES
