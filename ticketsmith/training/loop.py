"""The training loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ticketsmith.errors import TaskError
from ticketsmith.evidence.outcomes import Outcomes
from ticketsmith.evidence.results import CurvePoint, Metric
from ticketsmith.spec import Training, in_steps
from ticketsmith.tasks.task import Evaluation, Task, final_metrics
from ticketsmith.training.course import Course
from ticketsmith.training.learner import Learner


@dataclass
class Progress:
    """Where a training stands; with the model and the optimizer, all that is needed to go on.

    ``best`` holds the result's state at the early-stop iteration so far: the minimum of the validation loss. ``outcomes`` are
    those of single validation examples at the last evaluation, ``best_outcomes`` at that iteration; None: not known any more.
    ``notes`` are for a person who watches: metrics that are not finite, and why training diverged.
    ``interval_loss`` is the sum of the training losses since the last evaluation; on a GPU it stays there until it is read,
    so that no step waits for it.
    """

    step: int = 0
    interval_loss: float | Tensor = 0.0
    interval_start: int = 0
    curve: list[CurvePoint] = field(default_factory=list)
    best_step: int = -1
    best_loss: float = math.inf
    best: dict[str, Tensor] = field(default_factory=dict)
    outcomes: Mapping[str, Outcomes] | None = None
    best_outcomes: Mapping[str, Outcomes] | None = None
    diverged: bool = False
    notes: list[str] = field(default_factory=list)
    undefined: set[str] = field(default_factory=set)


def train(
    learner: Learner,
    training: Training,
    seed: int,
    progress: Progress,
    stop: int,
    after_steps: Callable[[Progress, float | Tensor], None],
) -> None:
    """Trains from ``progress.step`` to ``stop``, in place; ends early when the loss is no longer finite.

    Everything that a step draws depends on ``seed`` and the step alone, so it does not matter where training began,
    what ran before, or what runs beside it. ``after_steps`` hears the last loss after each stretch of steps, which takes less
    than a second or is one step; it may save ``progress``, show it, or raise to interrupt.
    """
    size = learner.task.train_size
    every = in_steps(training.evaluate_every, size, training.batch_size)
    course = Course(training, seed, size)
    learner.model.train()
    while progress.step < stop and not progress.diverged:
        evaluation = min(stop, (progress.step // every + 1) * every)
        losses = learner.advance(course, progress.step, evaluation)
        for loss in losses:
            progress.interval_loss = loss + progress.interval_loss
        progress.step += len(losses)
        if progress.step == evaluation:
            _evaluate_once(learner, progress)
        after_steps(progress, losses[-1])


def _evaluate_once(learner: Learner, progress: Progress) -> None:
    """Of several ranks, with the same weights on all, rank 0 evaluates: whether the run goes on is known to each."""
    ranks = learner.ranks
    if ranks is None:
        evaluate(learner, progress)
        return
    average = learner.state() if learner.updates else {}
    ranks.check({**learner.state(raw=True), **{f"average/{n}": value for n, value in average.items()}}, progress.step)
    if ranks.rank == 0:
        evaluate(learner, progress)
    else:
        progress.interval_loss, progress.interval_start = 0.0, progress.step
    diverged = torch.tensor([progress.diverged], dtype=torch.uint8)
    ranks.any_(diverged)
    progress.diverged = bool(diverged)


def evaluate(learner: Learner, progress: Progress) -> None:
    """Adds a point to the curve, and keeps the weights when the validation loss is the lowest so far.

    A loss that is not finite is a divergence. Another metric may be undefined for a while: its curve then has a gap.
    """
    train_loss = float(progress.interval_loss) / (progress.step - progress.interval_start)
    progress.interval_loss, progress.interval_start = 0.0, progress.step
    metrics = measure(learner.task, learner.result, "validation", learner.device)
    if not math.isfinite(train_loss):
        diverge(progress, f"the training loss is {train_loss} at iteration {progress.step:,}")
        return
    if not math.isfinite(metrics["loss"]):
        diverge(progress, f"the loss is {metrics['loss']} on validation at iteration {progress.step:,}")
        return
    for name, value in metrics.items():
        if not math.isfinite(value) and name not in progress.undefined:
            progress.undefined.add(name)
            progress.notes.append(
                f"{name} is {value} on validation at iteration {progress.step:,}: its curve has a gap, training goes on"
            )
    progress.curve.append(CurvePoint(progress.step, train_loss, dict(metrics)))
    progress.outcomes = metrics.outcomes
    if metrics["loss"] < progress.best_loss:
        progress.best_step, progress.best_loss = progress.step, metrics["loss"]
        progress.best, progress.best_outcomes = learner.state(), metrics.outcomes


def diverge(progress: Progress, why: str) -> None:
    """Ends the run as diverged."""
    progress.diverged = True
    progress.notes.append(f"{why}: the run has diverged")


def measure(task: Task, model: nn.Module, split: str, device: torch.device) -> Evaluation:
    """The task's metrics on ``validation`` or ``test``, the model left in training mode as it was.

    Outcomes of single examples come with them, of those metrics that are finite and have any. Raises TaskError.
    """
    with judged(model):
        metrics = task.evaluate(model, split, device)  # type: ignore[arg-type]
    plain = _checked("task.evaluate", metrics, task.metrics)
    outcomes = metrics.outcomes if isinstance(metrics, Evaluation) else {}
    for name, one in outcomes.items():
        if name not in plain:
            raise TaskError(f"task.evaluate gives outcomes of {name!r}, which is none of its metrics: {sorted(plain)}.")
        if math.isfinite(plain[name]) and (what := one.fault() or one.disagreement(plain[name])):
            raise TaskError(f"task.evaluate: the outcomes of {name!r} on {split} {what}.")
    return Evaluation(plain, {name: one for name, one in outcomes.items() if math.isfinite(plain[name])})


def measure_final(task: Task, model: nn.Module, device: torch.device) -> dict[str, dict[str, float]]:
    """The task's ``final_metrics`` on ``validation`` and ``test``, by split; empty ones when it has none."""
    promised = final_metrics(task)
    if not promised:
        return {"validation": {}, "test": {}}
    with judged(model):
        metrics = task.evaluate_final(model, device)  # type: ignore[attr-defined]
    return {split: _checked("task.evaluate_final", metrics[split], promised) for split in ("validation", "test")}


@contextmanager
def judged(model: nn.Module) -> Iterator[None]:
    """In here the model is in evaluation mode and keeps no gradients; after it, in the mode that it was in.

    Not by ``inference_mode``: a table that a model makes in here must be of use when training goes on.
    """
    was_training = model.training
    model.eval()
    with torch.no_grad():
        yield
    model.train(was_training)


def _checked(what: str, metrics: Mapping[str, float], promised: Iterable[Metric]) -> dict[str, float]:
    names = {metric.name for metric in promised}
    if set(metrics) != names:
        raise TaskError(f"{what} must give the metrics {sorted(names)}; it gives {sorted(metrics)}.")
    return {name: float(value) for name, value in metrics.items()}
