"""The formats in which a product can be computed, and rules of thumb for where nothing was measured."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_CANDIDATES = {
    "vector": ("slices", "rows"),
    "planes": ("taps", "taps_whole", "tiles"),
    "lanes": ("taps", "taps_whole", "tiles"),
}
_DENSE_ABOVE = {"vector": 0.9, "planes": 0.45, "lanes": 0.35}
"""The density above which dense kernels won on the machines where this was measured."""


def candidates(mode: str, shared: bool = True) -> tuple[str, ...]:
    """Formats of a product with one vector, with planes, or with lanes.

    ``shared``: all outputs read the same inputs; the dense kernel for planes needs that.
    """
    return tuple(name for name in _CANDIDATES[mode] if shared or name != "tiles")


def default(mode: str, shared: bool, weight: NDArray[np.float32]) -> str:
    """What is usually fastest for this density."""
    density = np.count_nonzero(weight) / max(1, weight.size)
    sparse, *_, dense = candidates(mode, shared)
    return dense if shared and density > _DENSE_ABOVE[mode] else sparse
