"""Which format is fastest for each product on this machine, and where a dense library is: measured, not guessed."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ticketsmith.engines import Call, installed
from ticketsmith.native import Isa
from ticketsmith.race import REST, SAMPLE_SECONDS, Runner, Stopwatch, race
from ticketsmith.runtime import formats, handover
from ticketsmith.runtime.analysis import lane_nodes
from ticketsmith.runtime.graph import PRODUCTS, Graph, Node, Port, Shape, attention_heads, conv_geometry
from ticketsmith.runtime.model import MOST_LANES, Model
from ticketsmith.runtime.winograd import Tiling

ROUNDS = 9
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
_PERHAPS = 1.6
"""So many times slower than the fastest, alone, a format may still be the best for all images of a size together."""
_FAR = 2.5
"""So many times slower than our kernels in one round, a library makes it pointless to try the next: that takes as long as
all the rest for a small network."""
_ROUND_SECONDS = 2e-3


@dataclass(frozen=True)
class Measured:
    """One product, or a whole network: the seconds a call of each format or library took, and which one is taken."""

    key: str
    density: float
    seconds: dict[str, float]
    choice: str


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
    trial = _Trial(graph, threads, isa, precision, rounds, clock, elsewhere)
    measured = []
    for node in graph.nodes:
        shape = shapes[node.inputs[0]] if node.inputs else ()
        if node.op == "attention" and len({shapes[name] for name in node.inputs[:3]}) == 1:
            heads, _ = attention_heads(node)
            if formats.attention_fits(precision, heads, shape):
                measured.append(trial.attention(node, shape))
        if node.op not in PRODUCTS:
            continue
        vector = len(shape) == 1 or (len(shape) == 2 and shape[0] == 1)
        modes = [("vector" if vector else "planes", 1)]
        if node.output in batched:
            modes.append(("lanes", MOST_LANES))
        for mode, batch in modes:
            measured.append(trial.product(node, shape, mode, batch))
    measured = _together(trial, measured, shapes)
    if isa is None and precision == "float32":
        measured += tune_network(graph, choices(measured), threads=threads, rounds=rounds, batches=batches, clock=clock)
    return measured


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
    libraries = installed() if graph.step is None else ()
    if not libraries:
        return []
    own = Model(graph, choices, threads=threads, handover=False)
    density = formats.density(graph)
    measured = []
    for batch in batches:
        inputs = [_example(port, graph, batch) for port in graph.inputs]
        calls: dict[str, Call] = {handover.OWN: lambda inputs: own(*inputs)}
        for name in libraries:
            call = handover.session(name, graph, threads, batch)
            if call is None or not _agree(call, own, inputs):
                continue
            calls[name] = call
            seconds = _seconds({one: calls[one] for one in (handover.OWN, name)}, inputs, 1, 1, clock)
            if seconds[name] > _FAR * seconds[handover.OWN]:
                break
        seconds = _seconds(calls, inputs, threads, rounds, clock)
        best = min(seconds, key=lambda name: seconds[name])
        convincing = _CONVINCING if threads == 1 else _CONVINCING_THREADS
        choice = best if seconds[best] < convincing * seconds[handover.OWN] else handover.OWN
        measured.append(Measured(handover.choice(threads, batch), density, seconds, choice))
    return measured


def _call(model: Model, inputs: list[NDArray[Any]]) -> Any:
    return model(*inputs)


def _example(port: Port, graph: Graph, batch: int) -> NDArray[Any]:
    generator, shape = np.random.default_rng(0), (batch, *port.shape)
    if port.dtype == "float32":
        return generator.standard_normal(shape, dtype=np.float32)
    tables = [graph.parameter(node, "table") for node in graph.nodes if node.op == "embedding"]
    return generator.integers(0, min((len(table) for table in tables), default=1), shape)


def _agree(call: Call, own: Model, inputs: list[NDArray[Any]]) -> bool:
    """Whether a library computes the same: what is faster and wrong is not taken."""
    expected = own(*inputs)
    try:
        outputs = call(inputs)
    except Exception:  # a library's own failures, of any kind
        return False
    for one, other in zip(outputs, expected if isinstance(expected, tuple) else (expected,), strict=True):
        if not np.allclose(one, other, rtol=0, atol=_TOLERANCE * max(1.0, float(np.abs(other).max(initial=0.0)))):
            return False
    return True


def _seconds(
    calls: Mapping[str, Call], inputs: list[NDArray[Any]], threads: int, rounds: int, clock: Callable[[], float]
) -> dict[str, float]:
    """Seconds a call usually takes: the median of the rounds, of those that have hope against the first."""
    # with one thread nothing rests; with several, those of libraries are asleep before each sample
    stopwatch = Stopwatch(clock, prepare=(lambda: time.sleep(REST)) if threads > 1 else lambda: None)
    runners = [Runner(call, inputs) for call in calls.values()]
    counts = []
    for runner in runners:
        runner.run(inputs)
        begin = clock()
        while threads > 1 and clock() - begin < REST:  # in which ours try how many threads are worth it
            runner.run(inputs)
        counts.append(stopwatch.calls(runner, _ROUND_SECONDS))
    rounds = rounds if threads == 1 else 2 * rounds
    medians = np.median(race(runners, counts, stopwatch, rounds=rounds, hopeless=_HOPELESS), axis=0)
    return {name: float(median) for name, median in zip(calls, medians, strict=True) if np.isfinite(median)}


def choices(measured: list[Measured]) -> dict[str, str]:
    """What ``Model`` and ``save`` take."""
    return {one.key: one.choice for one in measured}


def _together(trial: _Trial, measured: list[Measured], shapes: Mapping[str, Shape]) -> list[Measured]:
    """``measured``, with one format for all convolutions, then for those to images of one size, then for those of them with a
    stride, where the whole network is faster so: layouts, copies and rounding are theirs together, which a product that was
    timed alone does not show."""
    groups: dict[tuple[Any, ...], list[Measured]] = defaultdict(list)
    by_key = {one.key: one for one in measured}
    for node in trial.graph.nodes:
        key = f"planes:{node.output}"
        if node.op == "conv2d" and key in by_key:
            size, strided = shapes[node.output][1:], conv_geometry(node)[0] != (1, 1)
            for place in ((), size, (*size, "strided"))[: 2 + strided]:
                groups[place].append(by_key[key])
    taken = choices(measured)
    for _, group in sorted(groups.items(), key=lambda item: len(item[0])):
        ways = [taken]
        for name in dict.fromkeys(name for one in group for name in one.seconds if len(group) > 1):
            maybe = [one for one in group if one.seconds.get(name, np.inf) < _PERHAPS * one.seconds[one.choice]]
            way = taken | {one.key: name for one in maybe}
            ways += [way] * (way not in ways)
        if len(ways) > 1:
            seconds = trial.network(ways)
            best = int(np.argmin(seconds))
            taken = ways[best] if seconds[best] < _CONVINCING * seconds[0] else taken
    return [replace(one, choice=taken[one.key]) for one in measured]


@dataclass(frozen=True, eq=False)
class _Trial:
    """How products are timed. ``elsewhere``, for a network that is larger than the caches: what is read before each call,
    since one layer alone would find its weights in them."""

    graph: Graph
    threads: int
    isa: Isa | None
    precision: str
    rounds: int
    clock: Callable[[], float]
    elsewhere: NDArray[np.uint8] | None

    def product(self, node: Node, shape: Shape, mode: str, batch: int) -> Measured:
        """Every format that makes sense for a node, alone, on ``batch`` samples of ``shape``."""
        alone = Node(node.op, ("x",), "y", node.weights, node.attributes)
        tensors = {name: self.graph.tensors[name] for name in node.weights.values()}
        known = self.graph.ranges.get(node.inputs[0])
        ranges = {} if known is None else {"x": known}
        graph = Graph("x", shape, "float32", (alone,), "y", tensors, ranges=ranges)
        weight = graph.parameter(alone, "weight")
        shared = node.op == "linear" or node.number("groups", 1) == 1
        cold = self.elsewhere is not None
        tiling = Tiling.of(graph, alone, shape)
        dot = formats.dot_fits(self.precision, weight)
        names = formats.sensible(mode, shared, weight, cold, tiling, dot)
        usual = formats.default(mode, shared, weight, cold, tiling, dot)
        seconds, choice = self._formats(graph, mode, names, usual, batch)
        return Measured(f"{mode}:{node.output}", np.count_nonzero(weight) / weight.size, seconds, choice)

    def attention(self, node: Node, shape: Shape) -> Measured:
        """Attention in float32 and in whole numbers, of ``shape`` to itself, without its mask."""
        alone = Node(node.op, ("x",) * 3, "y", {}, node.attributes)
        names = ("attention", formats.ATTENTION_DOT)
        seconds, choice = self._formats(
            Graph("x", shape, "float32", (alone,), "y", {}), "attention", names, names[0], 1
        )
        return Measured(f"attention:{node.output}", 1.0, seconds, choice)

    def _formats(
        self, graph: Graph, mode: str, names: Sequence[str], usual: str, batch: int
    ) -> tuple[dict[str, float], str]:
        """Seconds of each format of ``y``, and the one to take: another than the usual one only where it is faster for sure."""
        inputs = np.random.default_rng(0).standard_normal((batch, *graph.shape), dtype=np.float32)
        times = self._race(graph, [{f"{mode}:y": name} for name in names], [inputs])
        seconds = dict(zip(names, times, strict=True))
        best = min(seconds, key=lambda name: seconds[name])
        return seconds, best if seconds[best] < _CONVINCING * seconds[usual] else usual

    def network(self, ways: Sequence[Mapping[str, str]]) -> list[float]:
        """The seconds of the whole network, one sample, for each of several choices of formats."""
        examples = [_example(port, self.graph, 1) for port in self.graph.inputs]
        return self._race(self.graph, ways, examples, _ROUND_SECONDS)

    def _race(
        self,
        graph: Graph,
        ways: Sequence[Mapping[str, str]],
        inputs: list[NDArray[Any]],
        seconds: float = SAMPLE_SECONDS,
    ) -> list[float]:
        """The seconds of a call for each of several choices, turn by turn; at best, which is what noise adds to."""
        how: dict[str, Any] = {"threads": self.threads, "isa": self.isa, "precision": self.precision, "handover": False}
        models = [Model(graph, way, **how) for way in ways]
        runners = [Runner(partial(_call, model), inputs) for model in models]
        cold = self.elsewhere is not None
        prepare = (lambda: None) if self.elsewhere is None else self.elsewhere.max
        stopwatch = Stopwatch(self.clock, prepare=prepare, first=0)
        counts = []
        for runner in runners:
            runner.run(inputs)
            counts.append(stopwatch.calls(runner, seconds, most=1 if cold else 1000))
        rounds = race(runners, counts, stopwatch, rounds=self.rounds)
        return [float(column.min()) for column in rounds.T]
