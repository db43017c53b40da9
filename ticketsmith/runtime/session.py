"""Decoding token by token: a model that remembers the keys and values of the tokens that came before."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from ticketsmith.runtime.program import InputError, Program, as_array
from ticketsmith.runtime.steps import CHUNK, SessionError

_FEWEST_FOR_CHUNK = 4
"""New tokens from which a chunk, though partly in vain, costs less than one token after another."""


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
