"""A file is run on the splits that its gates are asked of, where the task expects a model."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ticketsmith.engines import Arrays, CannotRunError
from ticketsmith.errors import in_a_line
from ticketsmith.evidence import outcomes
from ticketsmith.evidence.results import Split, finite
from ticketsmith.tasks.task import Task
from ticketsmith.training.loop import measure, measure_final

TIME_IS_OVER = "left out: the time for the candidates was over; give more of it by --budget."


class TimeIsOverError(CannotRunError):
    """The budget is spent."""


@dataclass(frozen=True)
class Scores:
    """The task's metrics by split, None where one is no finite number; the outcomes of single examples as a file, if any."""

    validation: dict[str, float | None]
    test: dict[str, float | None]
    outcomes: bytes
    seconds: float


class _Runs(nn.Module):
    """A file where a task expects a model: ``calls`` examples a call, or as many as come where that is 0."""

    def __init__(self, arrays: Arrays, calls: int, tell: Callable[[int], None]) -> None:
        super().__init__()
        self._arrays, self._calls, self._tell, self._count = arrays, calls, tell, 0

    def forward(self, inputs: Tensor) -> Tensor:
        examples = np.ascontiguousarray(inputs.detach().cpu().numpy())
        step = self._calls or len(examples)
        outputs = []
        for begin in range(0, len(examples), step):
            part = examples[begin : begin + step]
            outputs.append(np.array(self._arrays(part), np.float32))
            if outputs[-1].shape[:1] != (len(part),):
                raise CannotRunError(f"it gives {outputs[-1].shape} for {len(part)} examples, not an output for each.")
            self._count += len(part)
            self._tell(self._count)
        return torch.from_numpy(np.concatenate(outputs))


def judge(
    task: Task, arrays: Arrays, calls: int, tell: Callable[[int], None], asked: Sequence[Split] = ("validation", "test")
) -> Scores:
    """Every metric of the task on both splits, or one, through ``arrays``. ``tell(count)`` is told how many examples were run,
    and may raise TimeIsOverError. Raises CannotRunError when the task asks more of a model than to be called, or a call fails."""
    begin, cpu = time.perf_counter(), torch.device("cpu")
    model = _Runs(arrays, calls, tell)
    try:
        ends = measure_final(task, model, cpu)
        splits = {split: measure(task, model, split, cpu) for split in asked}
    except CannotRunError:
        raise
    except Exception as error:  # a library's failures, or a task's
        raise CannotRunError(f"it cannot be judged by running it ({in_a_line(error)}).") from error
    single: Any = {"final": {split: one.outcomes for split, one in splits.items()}}
    kept = outcomes.to_bytes(single) if all(one.outcomes for one in splits.values()) else b""
    both: tuple[Split, Split] = ("validation", "test")
    validation, test = (finite({**splits[split], **ends[split]}) if split in splits else {} for split in both)
    return Scores(validation, test, kept, time.perf_counter() - begin)


def without_nan(arrays: Arrays) -> Arrays:
    """What computes no NaN, or raises CannotRunError: the largest of such outputs would be one like any other."""

    def numbers(inputs: NDArray[Any]) -> NDArray[Any]:
        outputs = arrays(inputs)
        if np.isnan(outputs).any():
            raise CannotRunError("it gives NaN.")
        return outputs

    return numbers


def count(task: Task) -> int:
    """How many examples both splits have; 0 where the task does not tell."""
    sizes = getattr(task, "split_sizes", {})
    return sum(int(size) for size in sizes.values() if math.isfinite(size))
