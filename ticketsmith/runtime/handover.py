"""Whole networks in a dense library: those with too few zeros, where a library was measured to be faster.

Which networks these are, for which sizes of batches and on how many threads, is one of the choices of ``tune``; a library that
is not installed where the network is served is simply not used.
"""

from __future__ import annotations

import importlib.util
import math
import queue
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ticketsmith.dense_libraries import onnx_session, openvino_model
from ticketsmith.runtime.graph import Graph

Call = Callable[[Sequence[NDArray[Any]]], list[NDArray[np.float32]]]
"""All inputs of a network, in order, to all its outputs, which belong to the caller. Any number of threads may call."""

OWN = "own"
"""The choice that is no library: our own kernels."""


def installed() -> tuple[str, ...]:
    """The libraries that are here; each also needs the package ``onnx``, in whose format it is given a network."""
    if importlib.util.find_spec("onnx") is None:
        return ()
    return tuple(name for name in _LIBRARIES if importlib.util.find_spec(name) is not None)


def choice(threads: int, batch: int) -> str:
    """The key under which choices name the library for batches of this size."""
    return f"network:{threads}:{batch}"


def chosen(choices: Mapping[str, str], threads: int) -> dict[int, str]:
    """Libraries (or ``OWN``) by the size of batch for which they were measured."""
    found = {}
    for key, name in choices.items():
        kind, _, rest = key.partition(":")
        count, _, batch = rest.partition(":")
        if kind == "network" and count == str(threads) and batch.isdecimal() and int(batch) > 0:
            found[int(batch)] = name
    return found


def nearest(measured: Mapping[int, str], batch: int) -> str:
    """What was measured for the size of batch that is nearest, in proportion."""
    if not measured or batch < 1:
        return OWN
    return measured[min(measured, key=lambda size: abs(math.log(size / batch)))]


def session(library: str, graph: Graph, threads: int, batch: int | None) -> Call | None:
    """``graph`` in a dense library, for batches of one size, or of any; None when the library is not here, or does not take
    the network."""
    if library not in installed():
        return None
    from ticketsmith.runtime.to_onnx import to_onnx

    try:
        return _LIBRARIES[library](to_onnx(graph, batch), graph, threads)
    except Exception:  # a library's own failures, of any kind; our kernels know every graph
        return None


def _onnx_runtime(model: bytes, graph: Graph, threads: int) -> Call:
    run, names = onnx_session(model, threads).run, [port.name for port in graph.inputs]

    def call(inputs: Sequence[NDArray[Any]]) -> list[NDArray[np.float32]]:
        outputs: list[NDArray[np.float32]] = run(None, dict(zip(names, inputs, strict=True)))
        return outputs

    return call


def _openvino(model: bytes, graph: Graph, threads: int) -> Call:
    compiled = openvino_model(model, threads)
    idle: queue.SimpleQueue[Any] = queue.SimpleQueue()  # a request is for one caller at a time

    def call(inputs: Sequence[NDArray[Any]]) -> list[NDArray[np.float32]]:
        try:
            request = idle.get_nowait()
        except queue.Empty:
            request = compiled.create_infer_request()
        outputs = request.infer(list(inputs), share_inputs=True)
        found = [outputs[index] for index in range(len(outputs))]
        idle.put(request)
        return found

    return call


def needs_size(library: str) -> bool:
    """Whether a library is faster when it knows the size of batches: then it has a session for each that was measured."""
    return library == "openvino"


_LIBRARIES: dict[str, Callable[[bytes, Graph, int], Call]] = {"onnxruntime": _onnx_runtime, "openvino": _openvino}
