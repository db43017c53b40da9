"""A run in miniature, before any is begun: every part of a task that training, measuring and keeping will call, once."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from ticketsmith.errors import TaskError, TicketSmithError
from ticketsmith.evidence.results import CurvePoint
from ticketsmith.models.state import load
from ticketsmith.plugins import failure
from ticketsmith.pruning.weights import prunable
from ticketsmith.spec import Training
from ticketsmith.store.contract import to_json
from ticketsmith.store.directory import DirectoryStore
from ticketsmith.tasks.build import build_model, example
from ticketsmith.tasks.flops import forward_flops
from ticketsmith.tasks.task import Task, final_metrics, serving
from ticketsmith.training import checkpoint
from ticketsmith.training.course import Course
from ticketsmith.training.device import prepared
from ticketsmith.training.kernels import make_learner
from ticketsmith.training.learner import Learner
from ticketsmith.training.loop import Progress, measure, measure_final
from ticketsmith.training.samples import sample_files
from ticketsmith.training.tensors import from_bytes, to_bytes

EXAMPLES = 2
"""Of a part of a batch, and of each split of a task that can be cut (``abridged``) and measures as its class does."""

PATIENCE = 5.0
"""Seconds for each evaluation of a task that cannot be cut: then its next call of a layer ends it."""

CPU = torch.device("cpu")


def rehearse(
    task: Task,
    training: Training,
    include: tuple[str, ...] = (),
    note: Callable[[str], None] = lambda text: None,
) -> list[str]:
    """One step and one evaluation of each kind on the CPU, a checkpoint, and a run's tensors to bytes and back.

    Gives the parts that were ended after ``PATIENCE``; ``note`` hears what a run would tell. Raises TaskError, which names the
    part that fails.
    """
    task = _abridged(task)
    parts = training.parts  # all of them here, one after another
    batch = min(EXAMPLES, training.batch_size // parts) * parts
    training = training.model_copy(update={"batch_size": batch, "accumulate": parts, "ranks": 1})
    cut: list[str] = []
    with prepared("cpu"):
        with _part("building the model"):
            learner = _learner(task, training, include, note)
        with _part(f"a training step on a batch of {training.batch_size}"):
            _step(learner, training, 0)
        metrics: dict[str, float] = {}
        for split in ("validation", "test"):
            with _part(f"evaluate(..., {split!r}, ...)"), _patiently(f"evaluate on {split}", cut):
                metrics = measure(task, learner.result, split, CPU)
        if final_metrics(task):
            with _part("evaluate_final"), _patiently("evaluate_final", cut):
                measure_final(task, learner.result, CPU)
        with _part("samples"), _patiently("samples", cut):
            sample_files(task, learner.result, CPU)
        with _part("a training step after an evaluation"):
            _step(learner, training, 1)
        with _part("a checkpoint"), tempfile.TemporaryDirectory() as folder:
            _kept(learner, training, include, metrics, Path(folder))
        with _part("the weights as a file, and back"):
            weights = from_bytes(to_bytes(learner.state()), "the file of the weights")[0]
            load(build_model(task), weights)
        with _part("example, FLOPs and what is served"):
            example(task, EXAMPLES)
            forward_flops(task)
            serving(task)
    return cut


def _abridged(task: Task) -> Task:
    """With few examples, if what measures is as its class made it: a user's own measure may need more of them."""
    owner = next((base for base in type(task).__mro__ if "abridged" in vars(base)), None)
    measures = ("evaluate", "evaluate_final", "samples")
    if owner is None or any(getattr(type(task), name, None) is not getattr(owner, name, None) for name in measures):
        return task
    short: Task = task.abridged(EXAMPLES)  # type: ignore[attr-defined]
    return short


def _learner(
    task: Task, training: Training, include: tuple[str, ...], note: Callable[[str], None] = lambda text: None
) -> Learner:
    """One whose weights are pruned by half, at random."""
    torch.manual_seed(0)
    model: nn.Module = build_model(task)
    masks = {name: torch.rand(weight.shape) < 0.5 for name, weight in prunable(model, include).items()}
    return make_learner(task, model, masks, training, CPU, note)


def _step(learner: Learner, training: Training, step: int) -> None:
    learner.model.train()
    losses = learner.advance(Course(training, 0, learner.task.train_size), step, step + 1)
    float(losses[0])  # what every run reads of it: one number


def _kept(
    learner: Learner, training: Training, include: tuple[str, ...], metrics: dict[str, float], folder: Path
) -> None:
    store = DirectoryStore(folder)
    curve = [CurvePoint(2, 0.0, {**metrics, "loss": 0.0})]
    progress = Progress(step=2, curve=curve, best_step=2, best=learner.state())
    to_json({"state": sorted(progress.best)})
    checkpoint.save(store, "rehearsal", learner, progress, 0.0)
    again = _learner(learner.task, training, include)
    checkpoint.restore(store, "rehearsal", again)
    again.load(progress.best)
    _step(again, training, 2)


@contextmanager
def _part(name: str) -> Iterator[None]:
    """Names the part in the error that it ends with."""
    try:
        yield
    except TicketSmithError as error:
        raise type(error)(f"tried before training, {name} fails: {error}") from error
    except Exception as error:  # a user's task or model may fail in any way
        raise TaskError(f"tried before training, {name} fails: {failure(error)}{_mend(error)}") from error


def _mend(error: Exception) -> str:
    if "more than 1 value per channel" in str(error):
        return ". Batch norm has no spread to divide by: take a training.batch_size of 2 or more, or another norm."
    if "sparse gradients" in str(error) or "SparseTensorImpl" in str(error):  # of an optimizer, or of a mask
        return ". Sparse gradients cannot be trained with: leave out `sparse=True` of nn.Embedding."
    if "Inference tensors" in str(error):
        return ". What is kept for later must not be made under torch.inference_mode: use torch.no_grad."
    if "deterministic" in str(error):
        return ". Runs are deterministic: take another operation."
    return ""


class _EnoughError(BaseException):
    """Time is up. No Exception: a user's ``except Exception`` shall not hold it."""


@contextmanager
def _patiently(name: str, cut: list[str]) -> Iterator[None]:
    """Ends what is done inside after ``PATIENCE``, at the next call of any layer."""
    deadline = time.monotonic() + PATIENCE

    def check(module: nn.Module, inputs: Any) -> None:
        if time.monotonic() > deadline:
            raise _EnoughError

    handle = register_module_forward_pre_hook(check)
    try:
        yield
    except _EnoughError:
        cut.append(name)
    finally:
        handle.remove()
