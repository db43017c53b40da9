"""Which format is fastest for each product on this machine, and where a dense library is: measured, not guessed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ticketsmith.native import Isa
from ticketsmith.runtime import formats, handover
from ticketsmith.runtime.analysis import lane_nodes
from ticketsmith.runtime.graph import PRODUCTS, Graph, Node, Port, Shape
from ticketsmith.runtime.model import MOST_LANES, Model
from ticketsmith.runtime.winograd import Tiling

ROUNDS = 9
SAMPLE_SECONDS = 2e-4
_CACHES = 2**26
"""Bytes that leave nothing else in the caches of most machines."""
_CONVINCING, _CONVINCING_THREADS = 0.97, 0.85
"""A format other than the usual one must win by more than a quiet machine's noise, and so must a dense library; with several
threads, which do not always wake up at once, by more."""

BATCHES = (1, 8, 32)
"""For which dense libraries are raced with the whole network; other sizes do as the nearest of these."""

_TOLERANCE = 1e-4
"""How far a library's outputs may be from ours, of the largest one."""

_HOPELESS = 1.5
"""So many times slower than the fastest, after a few rounds, a library is out of the race."""
_FAR = 2.5
"""So many times slower than our kernels in one round, a library makes it pointless to try the next: that takes as long as
all the rest for a small network."""
_ROUND_SECONDS = 2e-3
_REST = 0.05
"""Seconds after which the threads of dense libraries no longer wait for work at full speed, which takes a core from others;
and for which ours try how many are worth it, before they are timed."""


@dataclass(frozen=True)
class Measured:
    """One product, or a whole network: the seconds a call of each format or library took, and which one is taken."""

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
    batches: Sequence[int] = BATCHES,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Measured]:
    """Times every format of every product, with one sample and in a full batch, and then, in float32, the whole network in
    the dense libraries that are installed, for each of ``batches``; rivals take turns, round by round."""
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
    if isa is None and precision == "float32":
        found += tune_network(graph, choices(found), threads=threads, rounds=rounds, batches=batches, clock=clock)
    return found


def tune_network(
    graph: Graph,
    choices: Mapping[str, str],
    *,
    threads: int = 1,
    rounds: int = ROUNDS,
    batches: Sequence[int] = BATCHES,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Measured]:
    """The last part of ``tune``: our own kernels, with ``choices`` of formats, against dense libraries."""
    libraries = handover.installed() if graph.step is None else ()
    if not libraries:
        return []
    own = Model(graph, choices, threads=threads, handover=False)
    kept = formats.density(graph)
    found = []
    for batch in batches:
        inputs = [_example(port, graph, batch) for port in graph.inputs]
        calls: dict[str, handover.Call] = {handover.OWN: lambda inputs: own(*inputs)}
        for name in libraries:
            call = handover.session(name, graph, threads, batch)
            if call is None or not _agree(call, own, inputs):
                continue
            calls[name] = call
            seconds = _raced({one: calls[one] for one in (handover.OWN, name)}, inputs, 1, 1, clock)
            if seconds[name] > _FAR * seconds[handover.OWN]:
                break
        seconds = _raced(calls, inputs, threads, rounds, clock)
        best = min(seconds, key=lambda name: seconds[name])
        convincing = _CONVINCING if threads == 1 else _CONVINCING_THREADS
        chosen = best if seconds[best] < convincing * seconds[handover.OWN] else handover.OWN
        found.append(Measured(handover.choice(threads, batch), kept, seconds, chosen))
    return found


def _example(port: Port, graph: Graph, batch: int) -> NDArray[Any]:
    generator, shape = np.random.default_rng(0), (batch, *port.shape)
    if port.dtype == "float32":
        return generator.standard_normal(shape, dtype=np.float32)
    tables = [graph.parameter(node, "table") for node in graph.nodes if node.op == "embedding"]
    return generator.integers(0, min((len(table) for table in tables), default=1), shape)


def _agree(call: handover.Call, own: Model, inputs: list[NDArray[Any]]) -> bool:
    """Whether a library computes the same: what is faster and wrong is not taken."""
    expected = own(*inputs)
    try:
        found = call(inputs)
    except Exception:  # a library's own failures, of any kind
        return False
    for one, other in zip(found, expected if isinstance(expected, tuple) else (expected,), strict=True):
        if not np.allclose(one, other, rtol=0, atol=_TOLERANCE * max(1.0, float(np.abs(other).max(initial=0.0)))):
            return False
    return True


def _raced(
    calls: Mapping[str, handover.Call],
    inputs: list[NDArray[Any]],
    threads: int,
    rounds: int,
    clock: Callable[[], float],
) -> dict[str, float]:
    """Seconds a call usually takes: the median of the rounds."""
    repeats: dict[str, int] = {}
    for name, call in calls.items():
        call(inputs)
        begin = clock()
        while threads > 1 and clock() - begin < _REST:
            call(inputs)
        start = clock()
        call(inputs)
        repeats[name] = max(1, min(1000, int(_ROUND_SECONDS / max(clock() - start, 1e-7))))
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for index in range(rounds if threads == 1 else 2 * rounds):
        for name in list(taken):
            if threads > 1:
                time.sleep(_REST)
            calls[name](inputs)
            start = clock()
            for _ in range(repeats[name]):
                calls[name](inputs)
            taken[name].append((clock() - start) / repeats[name])
        if index == 1:
            fastest = min(min(seconds) for seconds in taken.values())
            hopeless = [name for name, seconds in taken.items() if min(seconds) > _HOPELESS * fastest]
            taken = {name: taken[name] for name in taken if name == handover.OWN or name not in hopeless}
    return {name: float(np.median(seconds)) for name, seconds in taken.items()}


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
