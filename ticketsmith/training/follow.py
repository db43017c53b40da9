"""What the ranks of a run beside rank 0 do: the same steps on other examples, and nothing else."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import NoReturn

import torch
from torch import Tensor

from ticketsmith.errors import StoreError
from ticketsmith.spec import Init
from ticketsmith.training.learner import TorchLearner
from ticketsmith.training.loop import Progress, train
from ticketsmith.training.produce import prepared
from ticketsmith.training.ranks import Beginning, Ranks
from ticketsmith.training.start import starting_model
from ticketsmith.training.tensors import from_bytes, masks_from_bytes


class _StopError(Exception):
    """Rank 0 was asked to stop."""


def follow(ranks: Ranks, device: torch.device) -> None:
    """Trains with rank 0, one run after another, until it has no more. Raises RankLostError when a rank has ended."""
    while (beginning := ranks.receive()) is not None:
        _follow(beginning, ranks, device)


def _follow(beginning: Beginning, ranks: Ranks, device: torch.device) -> None:
    job, spec = beginning.job, beginning.job.spec
    task, _ = prepared(json.dumps(job.task, sort_keys=True), job.base, json.dumps(spec.task, sort_keys=True))
    fresh = spec if isinstance(spec.weights, Init) else spec.model_copy(update={"weights": Init()})
    model = starting_model(fresh, task, _no_store).to(device)
    masks = masks_from_bytes(beginning.masks, "the masks of rank 0")
    learner = TorchLearner(task, model, masks, spec.training, ranks)
    learner.resume(from_bytes(beginning.tensors, "the weights of rank 0")[0], beginning.averaged)
    progress = Progress(step=beginning.step, interval_start=beginning.interval_start)

    def after_steps(progress: Progress, loss: float | Tensor) -> None:
        if ranks.stopping and not progress.diverged:
            raise _StopError

    with suppress(_StopError):
        train(learner, spec.training, spec.seed, progress, spec.end(task.train_size), after_steps)


def _no_store(key: str) -> NoReturn:
    raise StoreError(f"a rank beside rank 0 reads no store: {key[:8]}")
