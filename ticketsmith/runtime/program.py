"""A program in the kernel library: compiled once, called from any number of threads; and sessions, which decode token by token
with programs that remember the keys and values of the tokens that came before."""

from __future__ import annotations

import ctypes
import math
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ticketsmith import native
from ticketsmith.errors import TicketSmithError
from ticketsmith.memory import require
from ticketsmith.native.abi import Isa, Status
from ticketsmith.runtime.assembly import Assembly
from ticketsmith.runtime.graph import Graph, GraphError, Port
from ticketsmith.runtime.steps import CHUNK, SessionError

_MESSAGES = {Status.BAD_TOKEN: "a token lies outside of the vocabulary.", Status.NO_MEMORY: "memory is short."}

_FEWEST_FOR_CHUNK = 4
"""New tokens from which a chunk, though partly in vain, costs less than one token after another."""


class InputError(TicketSmithError):
    """Inputs do not fit the model."""


class Program:
    """An assembly, ready to run with the instructions ``isa``. Raises GraphError where it cannot, or memory is short."""

    def __init__(self, graph: Graph, assembly: Assembly, isa: Isa) -> None:
        self.inputs, self.output_shapes = graph.inputs, graph.output_shapes()
        self._assembly = assembly  # whose operations point into its arrays
        self.memory_floats = assembly.memory_floats  # of a session, between calls
        library = native.library()
        self._run_c, self._call_c = library.ts_run, library.ts_call
        self._fast = native.fast_run()
        floats = assembly.sample_floats + assembly.batch_floats + assembly.memory_floats
        require(4 * floats, "what the model computes", "Take a smaller batch, or a shorter context.", GraphError)
        shapes = graph.shapes()
        count = len(assembly.operations)
        pointers = (ctypes.c_void_p * count)(*(ctypes.addressof(operation) for operation in assembly.operations))
        self.handle: int | None = library.ts_create(
            pointers, count, int(isa), assembly.sample_floats, assembly.batch_floats, math.prod(graph.shape),
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

    def run(self, inputs: NDArray[Any], outputs: NDArray[np.float32], threads: int) -> None:
        """One call; both arrays are contiguous, of the right shapes and dtypes. Raises InputError for unknown tokens."""
        status = -1 if self._fast is None else self._fast(self.handle or 0, inputs, outputs, threads)
        if status >= 0:
            self.settle(status)
            return
        self.settle(self._run_c(self.handle, inputs.ctypes.data, outputs.ctypes.data, len(inputs), threads))

    def call(self, inputs: Sequence[NDArray[Any]], outputs: Sequence[NDArray[np.float32]], samples: int, threads: int,
             memory: NDArray[np.float32] | None = None, position: int = 0) -> None:  # fmt: skip
        """One call with all inputs and outputs; ``memory`` is a session's, which holds ``position`` tokens."""
        ins = (ctypes.c_void_p * len(inputs))(*(array.ctypes.data for array in inputs))
        outs = (ctypes.c_void_p * len(outputs))(*(array.ctypes.data for array in outputs))
        own = None if memory is None else memory.ctypes.data
        self.settle(self._call_c(self.handle, ins, outs, samples, own, position, threads))

    @staticmethod
    def settle(status: int) -> None:
        """Raises what the status of a run says."""
        if status:
            raise InputError(_MESSAGES[Status(status)])

    def __del__(self) -> None:
        if getattr(self, "handle", None):
            self._destroy(self.handle)
            self.handle = None


class Session:
    """``session(tokens)`` continues a batch of sequences by new tokens and gives what the model says after each of them.

    ``programs`` take one token of each sequence, and ``CHUNK``. Keys and values lie in memory that is planned once. A
    session is for one caller; any number of sessions may share programs.
    """

    def __init__(self, programs: tuple[Program, Program], batch: int, capacity: int, threads: int) -> None:
        self.batch, self.capacity, self.length = batch, capacity, 0
        self._step, self._chunk = programs
        self._threads = threads
        self._memory = np.zeros(self._step.memory_floats, np.float32)
        self._port = self._step.inputs[0]
        self._outputs = [shape[1:] for shape in self._step.output_shapes]
        self._guard = threading.Lock()

    def reset(self) -> None:
        """Forgets everything."""
        with self._guard:
            self.length = 0

    def __call__(self, tokens: Any) -> Any:
        """Outputs ``[batch, new, ...]`` for ``tokens`` ``[batch, new]``; a tuple for a model of several outputs.

        Raises InputError for arrays or tokens that do not fit, SessionError when there is no room: nothing is remembered
        then.
        """
        new = as_array(tokens, self._port, self._shape_of(tokens))
        count = new.shape[1]
        with self._guard:
            if self.length + count > self.capacity:
                raise SessionError(
                    f"the session has seen {self.length} tokens and has room for {self.capacity}: {count} more do not fit. "
                    "Forget them with reset(), or begin a session with more capacity."
                )
            outputs = tuple(np.empty((self.batch, count, *shape), np.float32) for shape in self._outputs)
            begin = 0
            while begin < count:
                rest = count - begin
                size, program = (CHUNK, self._chunk) if rest >= _FEWEST_FOR_CHUNK else (1, self._step)
                end = begin + min(size, rest)
                rows = np.zeros((self.batch, size, *new.shape[2:]), new.dtype)
                rows[:, : end - begin] = new[:, begin:end]
                parts = [np.empty((self.batch, size, *shape), np.float32) for shape in self._outputs]
                program.call([rows], parts, 1, self._threads, self._memory, self.length + begin)
                for out, part in zip(outputs, parts, strict=True):
                    out[:, begin:end] = part[:, : end - begin]
                begin = end
            self.length += count
        return outputs[0] if len(outputs) == 1 else outputs

    def _shape_of(self, tokens: Any) -> tuple[int, ...]:
        shape, features = tuple(getattr(tokens, "shape", ())), self._port.shape[1:]
        if len(shape) != 2 + len(features) or shape[0] != self.batch or shape[2:] != features:
            raise InputError(f"tokens have the shape {shape}; the session takes {(self.batch, 'new', *features)}.")
        return shape


def as_array(array: Any, port: Port, shape: tuple[int, ...] | None = None) -> NDArray[Any]:
    """A caller's array as the kernels need it: contiguous, of the input's dtype and ``shape`` (any batch of samples).

    Raises InputError for what is no array on the CPU, or does not fit.
    """
    if not isinstance(array, np.ndarray):
        if not hasattr(array, "__dlpack__"):
            raise InputError(f"inputs are NumPy arrays, or have __dlpack__; not {type(array).__name__}.")
        try:
            array = np.from_dlpack(array)
        except (BufferError, RuntimeError, TypeError, ValueError) as error:
            raise InputError(f"the inputs cannot be read: {error}") from error
    dtype = np.dtype(port.dtype)
    expected = ("batch", *port.shape) if shape is None else shape
    fits = array.shape == shape if shape is not None else array.ndim > 0 and array.shape[1:] == port.shape
    if not fits:
        raise InputError(f"inputs have the shape {array.shape}; the model takes {expected}.")
    kinds = "iub" if dtype.kind == "i" else "f"
    if array.dtype != dtype and (array.dtype.kind not in kinds or array.dtype.itemsize > 8):
        raise InputError(f"inputs are {array.dtype}; the model takes {dtype}.")
    return np.ascontiguousarray(array, dtype)
