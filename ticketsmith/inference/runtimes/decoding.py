"""Decoding on a dense runtime: a model's step as an ONNX file, into which the cache goes, and out of which it comes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ticketsmith.engines import Arrays, CannotRunError, Step, need
from ticketsmith.inference.onnx_file import translate
from ticketsmith.tasks.task import Decoder, Stepper

Cache = Sequence[NDArray[Any]]

_TOKENS = 1
_LENGTH = 2
"""The axes of tokens, and of tokens so far in a cache."""


def own(model: nn.Module, dtype: torch.dtype = torch.float32) -> Decoder:
    """The sessions that a module itself has. Raises CannotRunError when there are none."""
    if not isinstance(model, Decoder):
        raise CannotRunError("the model has no method `session`, by which it would be given one token after another.")
    return model if dtype == torch.float32 else copy.deepcopy(model).to(dtype)


def by_token(decoder: Decoder) -> Arrays:
    """Windows ``[b, t]`` read token after token: what a session multiplies is rounded in other ways than a whole window is."""
    sessions: dict[tuple[int, ...], Any] = {}

    def read(windows: NDArray[Any]) -> NDArray[Any]:
        batch, tokens = windows.shape
        if windows.shape not in sessions:
            sessions[windows.shape] = decoder.session(batch, tokens)
        session = sessions[windows.shape]
        session.length = 0
        return np.concatenate([np.array(session(windows[:, at : at + 1])) for at in range(tokens)], axis=1)

    return read


def write_step(model: nn.Module, example: Tensor, folder: Path) -> tuple[Path, Callable[[int], Cache]]:
    """The step of a decoder as an ONNX file in ``folder``, and its cache for a batch of which nothing was read.

    ``example`` is tokens ``[b, t]``. Batch, new tokens and tokens so far are free in the file, as exporters of decoders
    write it. Raises CannotRunError when the model tells no step, or it cannot be written.
    """
    need("onnx")
    if not hasattr(model, "stepper"):
        raise CannotRunError(
            "the model has no method `stepper`, which would give its step as a function: sessions of this runtime need one."
        )
    stepper = cast(Stepper, model.stepper())  # type: ignore[operator]
    past, new = example[:, :1], example[:, 1:3]
    with torch.inference_mode():
        _, *cache = stepper(past, *stepper.cache(len(past)))
    before, after = ([f"{what}.{index}" for index in range(len(cache))] for what in ("past", "present"))
    path = folder / "step.onnx"
    new_axes = {0: "batch", _TOKENS: "new"}
    translate(
        cast(nn.Module, stepper),
        (new, *(value.clone() for value in cache)),
        path,
        {"tokens": new_axes, **{name: {0: "batch", _LENGTH: "past"} for name in before}},
        {"logits": new_axes, **{name: {0: "batch", _LENGTH: "present"} for name in after}},
    )
    return path, lambda batch: [value.numpy() for value in stepper.cache(batch)]


@dataclass(frozen=True)
class Stepping:
    """A decoder of a runtime that computes steps: ``begin()`` gives the step of a new session."""

    begin: Callable[[], Step]
    empty: Callable[[int], Cache]

    def session(self, batch: int, capacity: int) -> SteppingSession:
        """A place for ``batch`` sequences; their cache grows with them, so that ``capacity`` is not asked for."""
        return SteppingSession(self.begin(), self.empty(batch))


class SteppingSession:
    """Sequences whose cache is what the last step gave. Going back over that step costs nothing."""

    def __init__(self, step: Step, cache: Cache) -> None:
        self._step, self._cache, self._before = step, cache, cache

    @property
    def length(self) -> int:
        """Tokens read so far. Setting it back forgets those that came after."""
        return int(self._cache[0].shape[_LENGTH])

    @length.setter
    def length(self, length: int) -> None:
        if length == self.length:
            return
        if length == self._before[0].shape[_LENGTH]:
            self._cache = self._before
        else:
            self._cache = [np.ascontiguousarray(value[:, :, :length]) for value in self._cache]
            self._before = self._cache

    def __call__(self, tokens: NDArray[Any]) -> NDArray[Any]:
        """Reads new tokens ``[b, n]`` and gives their logits ``[b, n, size]``."""
        logits, *cache = self._step([tokens, *self._cache])
        self._before, self._cache = self._cache, cache
        return logits
