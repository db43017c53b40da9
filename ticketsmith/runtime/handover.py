"""Whole networks in a dense library: those with too few zeros, where a library was measured to be faster.

Which networks these are, for which sizes of batches and on how many threads, is one of the choices of ``tune``; a library that
is not installed where the network is served is simply not used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from ticketsmith import engines
from ticketsmith.runtime.graph import Graph

Call = engines.Call

OWN = "own"
"""The choice that is no library: our own kernels."""


def choice(threads: int, batch: int) -> str:
    """The key under which choices name the library for batches of this size."""
    return f"network:{threads}:{batch}"


def chosen(choices: Mapping[str, str], threads: int) -> dict[int, str]:
    """Libraries (or ``OWN``) by the size of batch for which they were measured."""
    libraries = {}
    for key, name in choices.items():
        kind, _, rest = key.partition(":")
        count, _, batch = rest.partition(":")
        if kind == "network" and count == str(threads) and batch.isdecimal() and int(batch) > 0:
            libraries[int(batch)] = name
    return libraries


def nearest(measured: Mapping[int, str], batch: int) -> str:
    """What was measured for the size of batch that is nearest, in proportion."""
    if not measured or batch < 1:
        return OWN
    return measured[min(measured, key=lambda size: abs(math.log(size / batch)))]


def session(library: str, graph: Graph, threads: int, batch: int | None) -> Call | None:
    """``graph`` in a dense library, for batches of one size, or of any; None when the library is not here, or does not take
    the network."""
    if library not in engines.installed():
        return None
    from ticketsmith.runtime.to_onnx import to_onnx

    try:
        call: Call = engines.engine(library).call(to_onnx(graph, batch), threads)
    except Exception:  # a library's own failures, of any kind; our kernels know every graph
        return None
    return call


def needs_size(library: str) -> bool:
    """Whether a library is faster when it knows the size of batches: then it has a session for each that was measured."""
    return library in engines.installed() and bool(engines.engine(library).BY_SIZE)
