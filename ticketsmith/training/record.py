"""The files of a finished run: what was measured, in bytes that depend on the spec alone."""

from __future__ import annotations

import csv
import io
import math
from typing import Any

from ticketsmith.evidence.results import CurvePoint
from ticketsmith.pruning.masks import Masks
from ticketsmith.spec import RunSpec
from ticketsmith.store.contract import to_json
from ticketsmith.tasks.task import Task
from ticketsmith.training.loop import Learner, Progress, measure


def measured_files(
    spec: RunSpec, learner: Learner, progress: Progress, masks: Masks, forward_flops: int
) -> dict[str, bytes]:
    """``spec.json``, ``metrics.json`` and ``curve.csv``. The test split is measured here, once for each state reported.

    A run whose test metrics are not finite has diverged, and is marked so.
    """
    task = learner.task
    states = None if progress.diverged or spec.stop_after is not None else _both_states(task, learner, progress)
    if states and not all(
        math.isfinite(value) for state in states for part in ("validation", "test") for value in state[part].values()
    ):
        progress.diverged, states = True, None
    trained = progress.step - (spec.weights.step if spec.weights.kind == "rewind" else 0)
    layers = {name: {"total": mask.numel(), "kept": int(mask.sum())} for name, mask in masks.items()}
    metrics: dict[str, Any] = {
        "status": "diverged" if progress.diverged else "trained",
        "steps": progress.step,
        "weights": {part: sum(layer[part] for layer in layers.values()) for part in ("total", "kept")},
        "layers": layers,
        "parameters": sum(parameter.numel() for parameter in learner.model.parameters()),
        "metrics": [
            {"name": m.name, "higher_is_better": m.higher_is_better, "unit": m.unit, "decimals": m.decimals}
            for m in task.metrics
        ],
        "flops": {"forward": forward_flops, "training": 3 * forward_flops * spec.training.batch_size * trained},
    }
    if progress.diverged:
        metrics["diverged_at"] = progress.step
    elif states:
        metrics["final"], metrics["early_stop"] = states
    return {
        "spec.json": to_json(spec.canonical),
        "metrics.json": to_json(metrics),
        "curve.csv": curve_csv(progress.curve, [metric.name for metric in task.metrics]),
    }


def _both_states(task: Task, learner: Learner, progress: Progress) -> tuple[dict[str, Any], dict[str, Any]]:
    if not progress.curve:  # nothing was trained
        validation = measure(task, learner.model, "validation", learner.device)
    else:
        validation = dict(progress.curve[-1].validation)
    final = {
        "step": progress.step,
        "validation": validation,
        "test": measure(task, learner.model, "test", learner.device),
    }
    if not progress.curve or progress.best_step == progress.step:
        return final, final
    learner.model.load_state_dict(progress.best)
    best = next(point for point in progress.curve if point.step == progress.best_step)
    early = {
        "step": progress.best_step,
        "validation": dict(best.validation),
        "test": measure(task, learner.model, "test", learner.device),
    }
    return final, early


def curve_csv(curve: list[CurvePoint], metrics: list[str]) -> bytes:
    """One row an evaluation: step, mean training loss since the row before, validation metrics."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", "train_loss", *(f"validation_{name}" for name in metrics)])
    for point in curve:
        writer.writerow([point.step, repr(point.train_loss), *(repr(point.validation[name]) for name in metrics)])
    return text.getvalue().encode()
