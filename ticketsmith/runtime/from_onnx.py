"""ONNX models to graphs. Needs the package ``onnx`` and nothing else; weights stay what they are, their zeros make them sparse.

What cannot be translated is named: the caller can then offer a dense runtime instead.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ticketsmith.memory import read_file
from ticketsmith.runtime.builder.core import UnsupportedError
from ticketsmith.runtime.graph import Graph
from ticketsmith.runtime.onnx.files import OnnxError
from ticketsmith.runtime.onnx.probes import check_samples
from ticketsmith.runtime.onnx.translate import Translator
from ticketsmith.runtime.simplify import simplify

__all__ = ["OnnxError", "UnsupportedError", "from_onnx"]

_MOST_NODES = 200_000


def from_onnx(
    model: str | os.PathLike[str] | bytes,
    sizes: Mapping[str | tuple[str, int], int] | None = None,
    shape: Sequence[int] | None = None,
) -> Graph:
    """The graph of an ONNX model, given by its path or its bytes.

    The first axis of every input is the batch, whatever the model says about it. ``sizes`` gives other axes their size where
    the model has none (or one below 1, as some exporters write it): by the axis' name, ``{"sequence": 128}``, or by the
    input's name and the place of the axis, ``{("tokens", 1): 128}``. ``shape``, that of one sample, gives them all for a model
    of one input. Weights in files beside the model are read when they lie in its folder.

    Raises OnnxError, UnsupportedError for what the runtime does not know and for models that mix the samples of a batch,
    GraphError for shapes that it cannot have.
    """
    try:
        import onnx
        from onnx import inliner
    except ImportError as error:
        raise OnnxError('reading ONNX models needs onnx: pip install "ticketsmith[serve]".') from error
    folder = None
    if isinstance(model, bytes):
        content, where = model, "the model"
    else:
        where = str(model)
        try:
            content, folder = read_file(model), Path(model).parent
        except OSError as error:
            raise OnnxError(f"{where}: cannot be read: {error.strerror}.") from error
    try:
        proto = onnx.load_model_from_string(content)
        if proto.functions:
            proto = inliner.inline_local_functions(proto)
    except Exception as error:  # protobuf raises its own kinds
        raise OnnxError(f"{where} is no ONNX model, or is damaged ({type(error).__name__}).") from error
    if not proto.graph.node or not proto.graph.output:
        raise OnnxError(f"{where} is no ONNX model: it computes nothing.")
    if len(proto.graph.node) > _MOST_NODES:
        raise OnnxError(f"{where} has {len(proto.graph.node):,} nodes; {_MOST_NODES:,} are read at most.")
    try:
        translator = Translator(proto, folder, dict(sizes or {}), shape)
        graph = translator.graph()
        check_samples(translator.whole(), translator.build.ports, graph)
        return simplify(graph)
    except OnnxError as error:
        raise OnnxError(f"{where}: {error}") from error
