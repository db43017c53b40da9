"""Our own sparse runtime, as a rival among the others."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from ticketsmith import native
from ticketsmith.inference.runtimes import (
    ArrayDecoder,
    CannotRunError,
    Deployment,
    FromFile,
    OnnxFile,
    check_precision,
    need_cpu,
)
from ticketsmith.runtime.artifact import machine_key, save
from ticketsmith.runtime.from_onnx import OnnxError, from_onnx
from ticketsmith.runtime.from_torch import UnsupportedError, from_torch
from ticketsmith.runtime.graph import Graph, GraphError
from ticketsmith.runtime.model import PRECISIONS, Model
from ticketsmith.runtime.steps import CHUNK, SessionError, step_graph
from ticketsmith.runtime.tune import choices, tune


class Sparse(FromFile):
    """Kernels that skip zeros, in one native call an inference; where a layer has too few zeros, dense kernels.

    ``tuned`` measures the formats of each layer first; then, unless ``handover`` is False, a network in float32 is raced
    with the dense libraries that are installed, and handed to one that was faster: timings say so. ``precision`` is that of
    the weights of sparse products with one vector. Runs on as many threads as PyTorch is set to.
    """

    name = "sparse"
    dense = False
    precisions = PRECISIONS
    takes_onnx = True

    def __init__(self, tuned: bool = True, precision: str = "float32", handover: bool = True) -> None:
        self.precision = check_precision(self.name, precision, PRECISIONS)
        self.tuned, self.handover = tuned, handover

    def deploy(self, model: nn.Module | OnnxFile, example: Tensor, folder: Path) -> Deployment:
        """The model as a ``.tsk`` file, tuned for batches like ``example``.

        Raises CannotRunError without the kernel library, and for operators that are not known.
        """
        threads, path = torch.get_num_threads(), folder / "model.tsk"
        try:
            native.library()
            graph = _graph(model, example)
            batches = (len(example),) if self.handover else ()
            formats = None
            if self.tuned:
                formats = choices(tune(graph, threads=threads, precision=self.precision, batches=batches))
            save(path, graph, {machine_key(): formats} if formats is not None else None)
        except (native.NotBuiltError, UnsupportedError, GraphError) as error:
            raise CannotRunError(str(error)) from error
        options = {"precision": self.precision}
        return Deployment(path, "ticketsmith.inference.loaders:sparse", ("ticketsmith.runtime.artifact",), options)

    def decoder(self, model: nn.Module, example: Tensor) -> ArrayDecoder:
        """Sessions of the runtime's own, as a file has them. Raises CannotRunError as ``deploy`` does."""
        need_cpu(example)
        threads = torch.get_num_threads()
        try:
            native.library()
            graph = from_torch(model, example)
            formats: dict[str, str] = {}
            for tokens in (CHUNK, 1) if self.tuned else ():  # where both ask for a format, decoding decides
                step = step_graph(graph, len(example), tokens)
                formats |= choices(tune(step, threads=threads, precision=self.precision))
            return ArrayDecoder(Model(graph, formats, threads=threads, precision=self.precision))
        except (native.NotBuiltError, UnsupportedError, GraphError, SessionError) as error:
            raise CannotRunError(str(error)) from error


def _graph(model: nn.Module | OnnxFile, example: Tensor) -> Graph:
    if not isinstance(model, OnnxFile):
        return from_torch(model, example)
    try:
        return from_onnx(model.path, shape=example.shape[1:])
    except OnnxError as error:
        raise CannotRunError(str(error)) from error
