"""Ranges of what products in whole numbers read, measured on examples before a network is served (static quantization, Jacob
et al. 2018): a call then need not look for them, and products write bytes for each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ticketsmith.errors import RecipeError
from ticketsmith.runtime.graph import MOST_PORTS, PRODUCTS, Graph
from ticketsmith.runtime.model import Model

STATIC, WHOLE = "int8_static", "int8_dot"
"""What files are called whose ranges were measured before, and in which precision they are stored and served."""


def calibrated(graph: Graph, examples: Sequence[Any]) -> Graph:
    """``graph`` with the smallest and the largest number of every value that a product reads, in float32, over batches of
    ``examples``: arrays ``[batch, ...]``, or a sequence of them for a graph of several inputs. Raises InputError for examples
    that do not fit, RecipeError where there are none, or what they give is not finite."""
    batches = [one if isinstance(one, (list, tuple)) else (one,) for one in examples]
    tokens = {port.name for port in graph.inputs if port.dtype == "int64"}
    computed = {node.output for node in graph.nodes}
    names = list(dict.fromkeys(node.inputs[0] for node in graph.nodes if node.op in PRODUCTS))
    ends = {
        port.name: [_ends(batch[place]) for batch in batches]
        for place, port in enumerate(graph.inputs) if port.name in names and port.name not in tokens
    }  # fmt: skip
    inner = [name for name in names if name in computed]
    for begin in range(0, len(inner), MOST_PORTS):
        first, *more = inner[begin : begin + MOST_PORTS]
        model = Model(replace(graph, output=first, more_outputs=tuple(more), scalars=()), handover=False)
        for batch in batches:
            outputs = model(*batch)
            for name, values in zip((first, *more), outputs if more else (outputs,), strict=True):
                ends.setdefault(name, []).append(_ends(values))
    ranges = {
        name: (min(0.0, *(low for low, _ in pairs)), max(0.0, *(high for _, high in pairs)))
        for name, pairs in ends.items() if pairs
    }  # fmt: skip
    if not batches or not np.isfinite(list(ranges.values())).all():
        raise RecipeError("ranges are measured on one example or more, which give finite numbers.")
    return replace(graph, ranges=ranges)


def _ends(values: NDArray[Any]) -> tuple[float, float]:
    return float(np.min(values)), float(np.max(values))
