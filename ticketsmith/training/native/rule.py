"""The rule which weights the kernels keep sparse. It looks at shapes and masks, never at the machine, since it says in which
order sums are taken: a change of it makes other weights, and raises ``spec.KERNELS_VERSION``.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ticketsmith.training.native.graph import Conv, Graph, Linear

LINEAR = 0.5
"""Share of zeros from which a linear layer is sparse."""

CONV = 0.6
"""The same of a convolution."""

SMALL = 256
"""A layer of fewer weights is dense: its lists would cost as much as its arithmetic."""


SWAPPED = {2: (0.75, 2_000_000), 4: (CONV, 250_000)}
"""In a network that PyTorch trains, by the axes of a weight, of linear layers and of convolutions: the share of zeros from which
a layer is swapped for a sparse one; and from how many multiplications, forward and dense. Below, calling it costs as much as it
saves."""


def swapped(mask: np.ndarray, rows: int) -> bool:
    """Whether the layer of ``mask`` [outputs, ...], which gives so many rows or pixels in a step, is swapped."""
    share, products = SWAPPED[mask.ndim]
    zeros = mask.size - int(np.count_nonzero(mask))
    return rows * mask.size >= products and zeros >= share * mask.size


def sparse_weights(graph: Graph, masks: Mapping[str, np.ndarray]) -> frozenset[str]:
    """Names of the weights that take the sparse kernels; ``masks``, True survives, are those of pruned weights by name.

    The other weights take the dense kernels, and pruned ones among them are masked there.
    """
    names = set()
    for node in graph.nodes:
        if isinstance(node, Linear | Conv) and node.weight in masks:
            mask = masks[node.weight]
            zeros = mask.size - int(np.count_nonzero(mask))
            share = LINEAR if isinstance(node, Linear) else CONV
            if mask.size >= SMALL and zeros >= share * mask.size:
                names.add(node.weight)
    return frozenset(names)
