"""Files of candidates, opened as a server would: only their runtime's own library is imported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ticketsmith.engines import Arrays, engine


def engine_file(
    path: Path,
    threads: int,
    library: str,
    precision: str = "float32",
    batch: int | None = None,
    caches: Sequence[Sequence[int | None]] = (),
) -> Arrays:
    """A file of a dense library; of a step of a decoder, whose ``caches`` are its shapes, one that reads whole windows.

    Raises CannotRunError.
    """
    opened = engine(library)
    opened.check(precision)
    if caches:
        step = opened.steps(path, threads, precision)()

        def whole(tokens: NDArray[Any]) -> NDArray[Any]:
            logits: NDArray[Any] = step([tokens, *empty(caches, len(tokens))])[0]
            return logits

        return whole
    arrays: Arrays = opened.load(path, threads, precision, batch)
    return arrays


def tsk_file(path: Path, threads: int) -> Arrays:
    """A file of our runtime, in its own precision."""
    from ticketsmith.runtime import load

    return load(path, threads=threads)


def cache_shapes(path: Path) -> list[list[int | None]]:
    """The shapes of the caches of a step, an ONNX file or one of OpenVINO's own; empty for a file of one input."""
    return (_shapes_of_onnx(path) if path.suffix == ".onnx" else engine("openvino").input_shapes(path))[1:]


def empty(shapes: Sequence[Sequence[int | None]], batch: int) -> list[NDArray[Any]]:
    """Caches ``[batch, ..., 0, ...]`` of so many sequences of which nothing was read: free sizes but the batch's are 0."""
    return [np.zeros([batch, *(size or 0 for size in shape[1:])], np.float32) for shape in shapes]


def _shapes_of_onnx(path: Path) -> list[list[int | None]]:
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    constants = {tensor.name for tensor in graph.initializer}
    ports = [port.type.tensor_type.shape for port in graph.input if port.name not in constants]
    return [[size.dim_value or None for size in shape.dim] for shape in ports]
