"""A network that answers: arrays in, arrays out."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ticketsmith import native
from ticketsmith.errors import RecipeError
from ticketsmith.native import Isa
from ticketsmith.runtime.graph import Graph
from ticketsmith.runtime.plan import lane_nodes, plan
from ticketsmith.runtime.program import InputError, Program, output_shape

MOST_LANES = 32
"""Samples that go through the end of a network together; more would not fit the second cache."""

_FEWEST_FOR_LANES = 8
PRECISIONS = ("float32", "bfloat16", "int8")


class Model:
    """A graph, ready to serve; any number of threads may call it at once.

    Programs are made when a batch size first asks for one: ``prepare`` makes them before. ``threads`` is how many cores
    one call may use; calls that are too small to gain use one. ``precision`` is that of the weights of sparse products
    with one vector: float32, bfloat16, or int8 with a scale for each row.
    """

    def __init__(
        self,
        graph: Graph,
        choices: Mapping[str, str] | None = None,
        *,
        threads: int = 1,
        isa: Isa | None = None,
        precision: str = "float32",
    ) -> None:
        if threads < 1:
            raise RecipeError(f"a model runs on 1 thread or more, not {threads}.")
        if precision not in PRECISIONS:
            raise RecipeError(f"precision {precision!r} is not one of {', '.join(PRECISIONS)}.")
        self.graph, self.choices, self.precision = graph, dict(choices or {}), precision
        self.threads = threads
        self.isa = native.best_isa() if isa is None else isa
        if not native.has_isa(self.isa):
            raise RecipeError(f"this machine, or this build, has no {self.isa.name} instructions.")
        self.shape, self.dtype = graph.shape, np.dtype(graph.dtype)
        self.output_shape = output_shape(graph)
        self._has_lanes = bool(lane_nodes(graph))
        self._programs: dict[int, Program] = {}
        self._making = threading.Lock()
        self._fast = native.fast_run()
        self._single: int | None = None
        self._single_shape = (1, *self.output_shape)
        self._float32 = np.dtype(np.float32)

    def __call__(self, inputs: Any) -> NDArray[np.float32]:
        """Outputs ``[batch, ...]`` of inputs ``[batch, ...]``: a NumPy array, or anything with ``__dlpack__`` on the CPU.

        Raises InputError when they do not fit the model.
        """
        if self._single is not None and type(inputs) is np.ndarray and len(inputs) == 1:  # the fast way, checked in C
            outputs = np.empty(self._single_shape, self._float32)
            status = self._fast(self._single, inputs, outputs, self.threads)  # type: ignore[misc]
            if status == 0:
                return outputs
            if status > 0:
                Program.settle(status)
        return self._any(inputs)

    def prepare(self, batch_size: int = 1) -> None:
        """Makes the programs that a batch of this size needs. Raises GraphError when they would be too large."""
        for lanes in {lanes for _, _, lanes in self._chunks(batch_size)}:
            self._program(lanes)

    def _any(self, inputs: Any) -> NDArray[np.float32]:
        array = self._array(inputs)
        outputs = np.empty((len(array), *self.output_shape), np.float32)
        for begin, end, lanes in self._chunks(len(array)):
            self._program(lanes).run(array[begin:end], outputs[begin:end], self.threads)
        return outputs

    def _array(self, inputs: Any) -> NDArray[Any]:
        if not isinstance(inputs, np.ndarray):
            if not hasattr(inputs, "__dlpack__"):
                raise InputError(f"inputs are NumPy arrays, or have __dlpack__; not {type(inputs).__name__}.")
            try:
                inputs = np.from_dlpack(inputs)
            except (BufferError, RuntimeError, TypeError, ValueError) as error:
                raise InputError(f"the inputs cannot be read: {error}") from error
        if inputs.shape[1:] != self.shape or inputs.ndim != len(self.shape) + 1:
            raise InputError(f"inputs have the shape {inputs.shape}; the model takes {('batch', *self.shape)}.")
        if inputs.dtype != self.dtype and (inputs.dtype.kind != self.dtype.kind or inputs.dtype.itemsize > 8):
            raise InputError(f"inputs are {inputs.dtype}; the model takes {self.dtype}.")
        return np.ascontiguousarray(inputs, self.dtype)

    def _chunks(self, samples: int) -> list[tuple[int, int, int]]:
        """(begin, end, lanes) of the parts in which a batch is run; 0 lanes is one sample after the other."""
        if not self._has_lanes or samples < _FEWEST_FOR_LANES:
            return [(0, samples, 0)]
        starts = range(0, samples, MOST_LANES)
        parts = [(start, min(start + MOST_LANES, samples)) for start in starts]
        return [
            (begin, end, 0 if end - begin < _FEWEST_FOR_LANES else 16 if end - begin <= 16 else MOST_LANES)
            for begin, end in parts
        ]

    def _program(self, lanes: int) -> Program:
        program = self._programs.get(lanes)
        if program is not None:
            return program
        with self._making:
            if lanes not in self._programs:
                made = plan(self.graph, lanes, self.choices, self.precision)
                self._programs[lanes] = Program(self.graph, made, self.isa)
                if lanes == 0 and self._fast is not None:
                    self._single = self._programs[0].handle
            return self._programs[lanes]
