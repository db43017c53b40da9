"""A program in the kernel library: made once, called from any number of threads."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ticketsmith import native
from ticketsmith.errors import TicketSmithError
from ticketsmith.memory import require
from ticketsmith.native import Isa
from ticketsmith.runtime.graph import Graph, GraphError
from ticketsmith.runtime.plan import Plan

UNKNOWN_TOKEN = 1
_MESSAGES = {UNKNOWN_TOKEN: "a token lies outside of the vocabulary.", 2: "memory is short."}


class InputError(TicketSmithError):
    """Inputs do not fit the model."""


class Program:
    """A plan, ready to run."""

    def __init__(self, graph: Graph, plan: Plan, isa: Isa) -> None:
        self._plan = plan  # the operations point into its arrays
        library = native.library()
        self._run_c, self._call_c = library.ts_run, library.ts_call
        self._fast = native.fast_run()
        floats = plan.sample_floats + plan.batch_floats + plan.memory_floats
        require(4 * floats, "what the model computes", "Take a smaller batch, or a shorter context.", GraphError)
        shapes = graph.shapes()
        count = len(plan.operations)
        pointers = (ctypes.c_void_p * count)(*(ctypes.addressof(operation) for operation in plan.operations))
        self.handle: int | None = library.ts_create(
            pointers, count, int(isa), plan.sample_floats, plan.batch_floats, math.prod(graph.shape),
            math.prod(shapes[graph.output]), np.dtype(graph.dtype).itemsize,
        )  # fmt: skip
        if not self.handle:
            raise GraphError(
                f"no program could be made for {isa.name}: this machine lacks the instructions, or memory."
            )
        sizes = np.array(graph.shape, np.int64)
        library.ts_set_shape(self.handle, sizes.ctypes.data, len(sizes))
        more_in = [math.prod(port.shape) * np.dtype(port.dtype).itemsize for port in graph.more_inputs]
        more_out = [math.prod(shapes[name]) for name in graph.more_outputs]
        ins, outs = np.array(more_in, np.int64), np.array(more_out, np.int64)
        library.ts_set_more(self.handle, ins.ctypes.data, len(ins), outs.ctypes.data, len(outs))
        self._destroy = library.ts_destroy

    @property
    def memory_floats(self) -> int:
        """What a session remembers between calls."""
        return self._plan.memory_floats

    def run(self, inputs: NDArray[Any], outputs: NDArray[np.float32], threads: int) -> None:
        """One call; both arrays are contiguous, of the right shapes and dtypes. Raises InputError for unknown tokens."""
        status = -1 if self._fast is None else self._fast(self.handle or 0, inputs, outputs, threads)
        if status >= 0:
            self.settle(status)
            return
        self.settle(self._run_c(self.handle, inputs.ctypes.data, outputs.ctypes.data, len(inputs), threads))

    def call(
        self,
        inputs: Sequence[NDArray[Any]],
        outputs: Sequence[NDArray[np.float32]],
        samples: int,
        threads: int,
        memory: NDArray[np.float32] | None = None,
        position: int = 0,
    ) -> None:
        """One call with all inputs and outputs; ``memory`` is a session's, which has seen ``position`` tokens."""
        ins = (ctypes.c_void_p * len(inputs))(*(array.ctypes.data for array in inputs))
        outs = (ctypes.c_void_p * len(outputs))(*(array.ctypes.data for array in outputs))
        kept = None if memory is None else memory.ctypes.data
        self.settle(self._call_c(self.handle, ins, outs, samples, kept, position, threads))

    @staticmethod
    def settle(status: int) -> None:
        """Raises what the status of a run says."""
        if status:
            raise InputError(_MESSAGES.get(status, f"the kernels returned {status}."))

    def __del__(self) -> None:
        if getattr(self, "handle", None):
            self._destroy(self.handle)
            self.handle = None
