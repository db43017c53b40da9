"""A program in the kernel library: made once, called from any number of threads."""

from __future__ import annotations

import ctypes
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ticketsmith import native
from ticketsmith.errors import TicketSmithError
from ticketsmith.native import Isa, abi
from ticketsmith.runtime.graph import Graph, GraphError, Shape
from ticketsmith.runtime.plan import Plan

_MESSAGES = {1: "a token lies outside of the vocabulary.", 2: "memory is short."}


class InputError(TicketSmithError):
    """Inputs do not fit the model."""


class Program:
    """A plan, ready to run. ``shape`` and ``dtype`` are those of one input sample."""

    def __init__(self, graph: Graph, plan: Plan, isa: Isa) -> None:
        abi.check()
        self._plan = plan  # the operations point into its arrays
        library = native.library()
        self._run_c = library.ts_run
        out_shape = graph.shapes()[graph.output]
        count = len(plan.operations)
        pointers = (ctypes.c_void_p * count)(*(ctypes.addressof(operation) for operation in plan.operations))
        self.handle: int | None = library.ts_create(
            pointers, count, int(isa), plan.sample_floats, plan.batch_floats, math.prod(graph.shape),
            math.prod(out_shape), np.dtype(graph.dtype).itemsize,
        )  # fmt: skip
        if not self.handle:
            raise GraphError(
                f"no program could be made for {isa.name}: this machine lacks the instructions, or memory."
            )
        sizes = np.array(graph.shape, np.int64)
        library.ts_set_shape(self.handle, sizes.ctypes.data, len(sizes))
        self._destroy = library.ts_destroy

    def run(self, inputs: NDArray[Any], outputs: NDArray[np.float32], threads: int) -> None:
        """One call; both arrays are contiguous, of the right shapes and dtypes. Raises InputError for unknown tokens."""
        self.settle(self._run_c(self.handle, inputs.ctypes.data, outputs.ctypes.data, len(inputs), threads))

    @staticmethod
    def settle(status: int) -> None:
        """Raises what the status of a run says."""
        if status:
            raise InputError(_MESSAGES.get(status, f"the kernels returned {status}."))

    def __del__(self) -> None:
        if getattr(self, "handle", None):
            self._destroy(self.handle)
            self.handle = None


def output_shape(graph: Graph) -> Shape:
    """The shape of one sample's output."""
    return graph.shapes()[graph.output]
