"""Which format is fastest, for each product, on this machine: measured, not guessed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ticketsmith.native import Isa
from ticketsmith.runtime import formats
from ticketsmith.runtime.graph import PRODUCTS, Graph, Node, Shape
from ticketsmith.runtime.model import MOST_LANES, Model
from ticketsmith.runtime.plan import lane_nodes
from ticketsmith.runtime.winograd import Tiling

ROUNDS = 9
SAMPLE_SECONDS = 2e-4
_CACHES = 2**26
"""Bytes that leave nothing else in the caches of most machines."""
_CONVINCING = 0.97
"""A format other than the usual one must win by more than a quiet machine's noise."""


@dataclass(frozen=True)
class Measured:
    """One product: the seconds a call of each format took, the best of all rounds, and which one is taken."""

    key: str
    density: float
    seconds: dict[str, float]
    chosen: str


def tune(
    graph: Graph,
    *,
    threads: int = 1,
    isa: Isa | None = None,
    precision: str = "float32",
    rounds: int = ROUNDS,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Measured]:
    """Times every format of every product, with one sample and in a full batch; rivals take turns, round by round."""
    shapes, batched = graph.shapes(), lane_nodes(graph)
    elsewhere = np.ones(_CACHES, np.uint8) if formats.cold(graph) else None
    found = []
    for node in graph.nodes:
        if node.op not in PRODUCTS:
            continue
        shape = shapes[node.inputs[0]]
        vector = len(shape) == 1 or (len(shape) == 2 and shape[0] == 1)
        modes = [("vector" if vector else "planes", 1)]
        if node.output in batched:
            modes.append(("lanes", MOST_LANES))
        for mode, batch in modes:
            found.append(_measured(graph, node, shape, mode, batch, threads, isa, precision, rounds, clock, elsewhere))
    return found


def choices(measured: list[Measured]) -> dict[str, str]:
    """What ``Model`` and ``save`` take."""
    return {one.key: one.chosen for one in measured}


def _measured(
    graph: Graph,
    node: Node,
    shape: Shape,
    mode: str,
    batch: int,
    threads: int,
    isa: Isa | None,
    precision: str,
    rounds: int,
    clock: Callable[[], float],
    elsewhere: NDArray[np.uint8] | None,
) -> Measured:
    """``elsewhere``, for a network that is larger than the caches: what is read before each call, since one layer alone would
    find its weights in them."""
    alone = Node(node.op, ("x",), "y", node.weights, node.attributes)
    tensors = {name: graph.tensors[name] for name in node.weights.values()}
    one = Graph("x", shape, "float32", (alone,), "y", tensors)
    weight = one.parameter(alone, "weight")
    shared = node.op == "linear" or node.number("groups", 1) == 1
    cold = elsewhere is not None
    tiling = Tiling.of(one, alone, shape)
    names = formats.sensible(mode, shared, cold, tiling)
    inputs = np.random.default_rng(0).standard_normal((batch, *shape), dtype=np.float32)
    models = {name: Model(one, {f"{mode}:y": name}, threads=threads, isa=isa, precision=precision) for name in names}
    seconds = dict.fromkeys(names, float("inf"))
    calls = {}
    for name, model in models.items():
        model(inputs)
        start = clock()
        model(inputs)
        calls[name] = 1 if cold else max(1, min(1000, int(SAMPLE_SECONDS / max(clock() - start, 1e-7))))
    for _ in range(rounds):
        for name, model in models.items():
            if elsewhere is not None:
                elsewhere.max()
            start = clock()
            for _ in range(calls[name]):
                model(inputs)
            seconds[name] = min(seconds[name], (clock() - start) / calls[name])
    usual = formats.default(mode, shared, weight, cold, tiling)
    best = min(seconds, key=lambda name: seconds[name])
    chosen = best if seconds[best] < _CONVINCING * seconds[usual] else usual
    return Measured(f"{mode}:{node.output}", np.count_nonzero(weight) / weight.size, seconds, chosen)
