"""From a graph to an assembly, in four passes.

    graph --analyse--> shapes, readers, formats --resolve--> layouts --lower--> instructions --assemble--> operations

A program runs in two parts. The first is done for each sample of a batch: images, sequences, and vectors when there are
few samples. The second is done once: vectors of a whole batch, with a lane for each sample, so that a weight is read once
for all of them.
"""

from __future__ import annotations

from collections.abc import Mapping

from ticketsmith.runtime.analysis import analyse
from ticketsmith.runtime.assembly import Assembly, assemble
from ticketsmith.runtime.graph import Graph
from ticketsmith.runtime.lower.table import lower
from ticketsmith.runtime.resolutions import resolve


def compile_graph(
    graph: Graph, lanes: int = 0, choices: Mapping[str, str] | None = None, dtype: str = "float32"
) -> Assembly:
    """A program for ``graph``. With ``lanes``, the end of the network takes up to that many samples at once.

    ``choices`` maps products by their outputs to the formats that were measured to be fastest; others go by rules of
    thumb. ``dtype`` is that of the weights of sparse products with one vector. Raises GraphError for what no kernel can
    compute, or would need too much memory.
    """
    analysis = analyse(graph, lanes, choices, dtype)
    return assemble(lower(analysis, resolve(analysis)))
