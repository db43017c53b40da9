"""Graphs to ONNX models, so that a dense library can serve a network that has too few zeros. Needs the package ``onnx``."""

from __future__ import annotations

import importlib.util

from ticketsmith.runtime.builder.core import UnsupportedError
from ticketsmith.runtime.graph import Graph
from ticketsmith.runtime.onnx.files import OnnxError
from ticketsmith.runtime.onnx.write import WRITERS
from ticketsmith.runtime.onnx.writer import Writer

__all__ = ["to_onnx"]


def to_onnx(graph: Graph, batch: int | None = None) -> bytes:
    """The graph as a serialised ONNX model, with its inputs and outputs in the graph's order.

    Each has the batch as its first axis: ``batch`` samples, or any number of them where it is None. What is one number a
    sample has no other axis.

    Raises UnsupportedError for what cannot be written (the step of a session, more weights than 2 GiB), and OnnxError where
    ``onnx`` is not installed.
    """
    if importlib.util.find_spec("onnx") is None:
        raise OnnxError('writing ONNX models needs onnx: pip install "ticketsmith[serve]".')
    if graph.step is not None:
        raise UnsupportedError("the step of a session cannot be written as an ONNX model.")
    return Writer(graph, batch, WRITERS).model()
