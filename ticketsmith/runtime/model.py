"""A network that answers: arrays in, arrays out."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ticketsmith import native
from ticketsmith.errors import RecipeError
from ticketsmith.native.abi import Isa, Status
from ticketsmith.runtime import formats, groups
from ticketsmith.runtime import handover as dense_libraries
from ticketsmith.runtime.analysis import lane_nodes
from ticketsmith.runtime.compiler import compile_graph
from ticketsmith.runtime.graph import Graph, GraphError
from ticketsmith.runtime.program import InputError, Program, Session, as_array
from ticketsmith.runtime.steps import CHUNK, SessionError, step_graph

MOST_LANES = 32
"""Samples that go through the end of a network together; more would not fit the second cache."""

_FEWEST_FOR_LANES = 8
_FEWEST_FOR_DENSE_IMAGES, _DENSE = 12, 0.3
"""One by one, dense convolutions are as fast as in lanes of which a quarter is empty."""

_MOST_HANDLES = 1024
"""Batch sizes that are remembered: without lanes there is no end of them."""

PRECISIONS = ("float32", "bfloat16", "int8", "int4", "int8_dot", "int4_dot")
"""``_dot``: weights are stored so, and products compute with them and with inputs of 8 bits; otherwise in float32."""


class Model:
    """A graph, ready to serve; any number of threads may call it at once.

    Programs are made when a batch size first asks for one: ``prepare`` makes them before. ``threads`` is how many cores
    one call may use; calls that are too small to gain use one. ``precision`` is that of the weights of products with one
    vector: float32, bfloat16, int8 or int4 with a scale for each row; or int8_dot and int4_dot, which round their inputs to 8
    bits too, and multiply whole numbers; or of single ones, by the names of their tensors.

    Where ``choices`` say that a dense library is faster, and it is installed, calls in float32 are handed over to it;
    unless ``handover`` is False, or the instructions ``isa`` are asked for.
    """

    def __init__(self, graph: Graph, choices: Mapping[str, str] | None = None, *, threads: int = 1, isa: Isa | None = None,
                 precision: str | Mapping[str, str] = "float32", handover: bool = True) -> None:  # fmt: skip
        if threads < 1:
            raise RecipeError(f"a model runs on 1 thread or more, not {threads}.")
        for kind in (precision,) if isinstance(precision, str) else precision.values():
            if kind not in PRECISIONS:
                raise RecipeError(f"precision {kind!r} is not one of {', '.join(PRECISIONS)}.")
        self.graph, self.choices, self.precision = graph, dict(choices or {}), precision
        self.threads = threads
        self.isa = native.best_isa() if isa is None else isa
        if not native.has_isa(self.isa):
            raise RecipeError(f"this machine, or this build, has no {self.isa.name} instructions.")
        self.inputs = graph.inputs
        self.shape, self.dtype = graph.shape, np.dtype(graph.dtype)
        self.output_shapes = graph.output_shapes()
        self.output_shape = self.output_shapes[0]
        self._is_plain = len(self.inputs) == len(self.output_shapes) == 1
        batched = lane_nodes(graph)
        images = any(node.op == "conv2d" and node.output in batched for node in graph.nodes)
        is_dense = images and formats.density(graph) > _DENSE
        self._has_lanes = bool(batched)
        self._group = groups.group_of(graph)
        self._fewest = _FEWEST_FOR_DENSE_IMAGES if is_dense else _FEWEST_FOR_LANES
        may_hand_over = handover and isa is None and precision == "float32" and graph.step is None
        self._libraries = dense_libraries.chosen(self.choices, threads) if may_hand_over else {}
        self._calls: dict[tuple[str, int | None], dense_libraries.Call | None] = {}
        self._programs: dict[tuple[int, int], Program] = {}
        self._steps: dict[tuple[int, int, int], Program] = {}
        self._compiling = threading.Lock()
        self._fast = native.fast_run()
        self._handles: dict[int, int | None] = {}
        """Of programs that take a whole batch of this size in one call, by way of ``_fast``."""
        self._float32 = np.dtype(np.float32)

    def __call__(self, *inputs: Any) -> Any:
        """Outputs ``[batch, ...]`` of inputs ``[batch, ...]``: NumPy arrays, or anything with ``__dlpack__`` on the CPU.

        One float32 array for a model of one output, a tuple for one of several. Raises InputError when the inputs do not
        fit the model.
        """
        if self._handles and len(inputs) == 1 and type(inputs[0]) is np.ndarray and inputs[0].ndim:
            batch = len(inputs[0])
            handle = self._handles.get(batch)
            if handle is not None:
                outputs = np.empty((batch, *self.output_shape), self._float32)  # the fast way, checked in C
                status = self._fast(handle, inputs[0], outputs, self.threads)  # type: ignore[misc]
                if status == 0:
                    return outputs
                if status > 0:
                    Program.settle(status)
        results = self._any(inputs)
        return results[0] if len(results) == 1 else results

    def prepare(self, batch_size: int = 1) -> None:
        """Makes the programs that a batch of this size needs. Raises GraphError when they would be too large."""
        if self._call(batch_size) is not None:
            return
        for key in {(lanes, group) for _, _, lanes, group in self._chunks(batch_size)}:
            self._program(*key)

    def handed_to(self, batch_size: int = 1) -> str:
        """The dense library that computes batches of this size; empty for our own kernels."""
        return "" if self._call(batch_size) is None else dense_libraries.nearest(self._libraries, batch_size)

    def session(self, batch: int = 1, capacity: int | None = None) -> Session:
        """A decoder that remembers: ``batch`` sequences of up to ``capacity`` tokens (by default, as many as the model was
        made for).

        Raises SessionError for a model that does not work token by token, or has too few positions.
        """
        if capacity is None:
            capacity = self.graph.shape[0] if self.graph.shape else 0
        step, chunk = (self._step_program(batch, tokens, capacity) for tokens in (1, CHUNK))
        return Session((step, chunk), batch, capacity, self.threads)

    def _any(self, inputs: Sequence[Any]) -> tuple[NDArray[np.float32], ...]:
        if len(inputs) != len(self.inputs):
            names = ", ".join(port.name for port in self.inputs)
            raise InputError(f"the model takes {len(self.inputs)} inputs ({names}), not {len(inputs)}.")
        arrays = [as_array(value, port) for value, port in zip(inputs, self.inputs, strict=True)]
        batches = {len(array) for array in arrays}
        if len(batches) > 1:
            raise InputError(f"the inputs have different batch sizes: {[len(array) for array in arrays]}.")
        batch = batches.pop()
        library = self._call(batch)
        if library is not None:
            self._check_tokens(arrays)
            try:
                return tuple(library(arrays))
            except Exception:  # a library's own failures, of any kind: from now on our kernels answer
                self._libraries = {}
        outputs = tuple(np.empty((batch, *shape), np.float32) for shape in self.output_shapes)
        if not batch:
            return outputs
        chunks = self._chunks(batch)
        for begin, end, lanes, group in chunks:
            program, plain = self._program(lanes, group), self._is_plain and group == 1
            if len(chunks) == 1 and self._fast is not None and plain and len(self._handles) < _MOST_HANDLES:
                self._handles[batch] = program.handle
            if plain:
                program.run(arrays[0][begin:end], outputs[0][begin:end], self.threads)
            else:
                ins, outs = [array[begin:end] for array in arrays], [array[begin:end] for array in outputs]
                program.call(ins, outs, (end - begin) // group, self.threads)
        return outputs

    def _call(self, batch: int) -> dense_libraries.Call | None:
        """The dense library that batches of this size are handed to."""
        name = dense_libraries.nearest(self._libraries, batch) if self._libraries else dense_libraries.OWN
        if name == dense_libraries.OWN:
            return None
        key = name, batch if batch in self._libraries and dense_libraries.needs_size(name) else None
        if key not in self._calls:
            with self._compiling:
                if key not in self._calls:
                    self._calls[key] = dense_libraries.session(name, self.graph, self.threads, key[1])
        return self._calls[key]

    def _check_tokens(self, inputs: Sequence[NDArray[Any]]) -> None:
        """Raises InputError for tokens outside of a vocabulary: some libraries count backwards from its end."""
        for port, tokens in zip(self.inputs, inputs, strict=True):
            tables = [n for n in self.graph.nodes if n.op == "embedding" and n.inputs[0] == port.name]
            for table in tables:
                if tokens.min() < 0 or tokens.max() >= len(self.graph.parameter(table, "table")):
                    Program.settle(Status.BAD_TOKEN)

    def _chunks(self, samples: int) -> list[tuple[int, int, int, int]]:
        """(begin, end, lanes, group) of the parts in which a batch is run: sequences by groups, and what is left of them, or
        all others, with lanes; 0 lanes is one sample after the other."""
        grouped = samples // self._group * self._group if self._group > 1 else 0
        parts = [(0, grouped, 0, self._group)] if grouped else []
        step = MOST_LANES if self._has_lanes and samples - grouped >= self._fewest else max(1, samples - grouped)
        for begin in range(grouped, samples, step):
            count = min(step, samples - begin)
            lanes = 0 if not self._has_lanes or count < self._fewest else 16 if count <= 16 else MOST_LANES
            parts.append((begin, begin + count, lanes, 1))
        return parts

    def _program(self, lanes: int, group: int = 1) -> Program:
        key = lanes, group
        program = self._programs.get(key)
        if program is not None:
            return program
        with self._compiling:
            if key not in self._programs:
                graph, choices = self.graph, self.choices
                if group > 1:
                    graph, choices = groups.group_graph(graph, group), groups.group_choices(choices, group)
                assembly = compile_graph(graph, lanes, choices, self.precision)
                self._programs[key] = Program(graph, assembly, self.isa)
            return self._programs[key]

    def _step_program(self, batch: int, tokens: int, capacity: int) -> Program:
        """What a session runs; sessions of one kind share it."""
        key = batch, tokens, capacity
        with self._compiling:
            if key not in self._steps:
                try:
                    graph = step_graph(self.graph, *key)
                    assembly = compile_graph(graph, 0, self.choices, self.precision)
                    self._steps[key] = Program(graph, assembly, self.isa)
                except GraphError as error:
                    raise SessionError(f"no session of {batch} x {capacity} tokens can be made: {error}") from error
            return self._steps[key]
