"""The files of a finished run: what was measured, in bytes that depend on the spec alone."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ticketsmith.evidence import outcomes
from ticketsmith.evidence.outcomes import OfStates, Outcomes
from ticketsmith.evidence.results import CurvePoint, Split, finite
from ticketsmith.pruning import layout
from ticketsmith.pruning.masks import Masks
from ticketsmith.pruning.weights import layouts
from ticketsmith.spec import RunSpec
from ticketsmith.store.contract import to_json
from ticketsmith.tasks.task import Task, final_metrics
from ticketsmith.training.learner import Learner
from ticketsmith.training.loop import Progress, diverge, measure, measure_final


def measured_files(
    spec: RunSpec, learner: Learner, progress: Progress, masks: Masks, forward_flops: int
) -> dict[str, bytes]:
    """``spec.json``, ``metrics.json`` and ``curve.csv``, and where the task gives them, outcomes of single examples.

    The test split is measured here, once for each state reported.
    A run whose loss is not finite has diverged, and is marked so. Another metric that is not finite has no value (null): it
    is told in ``progress.notes``, and no gate on it passes.
    """
    task = learner.task
    states: tuple[dict[str, Any], dict[str, Any]] | None = None
    kept: OfStates = {}
    if not progress.diverged and spec.stop_after is None:
        states, kept = _both_states(task, learner, progress)
    for state in states or ():
        for split in ("validation", "test"):
            if not progress.diverged and not math.isfinite(loss := state[split]["loss"]):
                diverge(progress, f"the loss is {loss} on {split} at iteration {state['step']:,}")
    trained = progress.step - spec.begin
    parts = layout.split(masks, layouts(learner.model))
    layers = {name: {"total": mask.numel(), "kept": int(mask.sum())} for name, mask in parts.items()}
    metrics: dict[str, Any] = {
        "status": "diverged" if progress.diverged else "trained",
        "steps": progress.step,
        "weights": {part: sum(layer[part] for layer in layers.values()) for part in ("total", "kept")},
        "layers": layers,
        "parameters": sum(parameter.numel() for parameter in learner.model.parameters()),
        "metrics": [
            {name: value for name, value in asdict(metric).items() if name != "about" or value}
            for metric in (*task.metrics, *final_metrics(task))
        ],
        **({"examples": dict(task.split_sizes)} if hasattr(task, "split_sizes") else {}),
        "flops": {"forward": forward_flops, "training": 3 * forward_flops * spec.training.batch_size * trained},
    }
    if progress.diverged:
        metrics["diverged_at"] = progress.step
    elif states:
        metrics["final"], metrics["early_stop"] = (
            _defined(state, when, progress) for state, when in zip(states, ("the end", "early stop"), strict=True)
        )
    files = {
        "spec.json": to_json(spec.canonical),
        "metrics.json": to_json(metrics),
        "curve.csv": curve_csv(progress.curve, [metric.name for metric in task.metrics]),
    }
    if not progress.diverged and any(by_metric for splits in kept.values() for by_metric in splits.values()):
        files[outcomes.FILE] = outcomes.to_bytes(kept)
    return files


_State = tuple[dict[str, Any], dict[Split, Mapping[str, Outcomes]]]
"""What some weights come to: for ``metrics.json``, and the outcomes of single examples by split and metric."""


def _both_states(
    task: Task, learner: Learner, progress: Progress
) -> tuple[tuple[dict[str, Any], dict[str, Any]], OfStates]:
    if progress.curve:
        last, known = progress.curve[-1], progress.outcomes
    else:  # nothing was trained: the weights are measured as they came
        here = measure(task, learner.result, "validation", learner.device)
        last, known = CurvePoint(progress.step, math.nan, here), here.outcomes
    final = best = _state(task, learner, last, known)
    if progress.curve and progress.best_step != progress.step:
        learner.load(progress.best)
        point = next(point for point in progress.curve if point.step == progress.best_step)
        best = _state(task, learner, point, progress.best_outcomes)
    return (final[0], best[0]), {"final": final[1], "early_stop": best[1]}


def _state(task: Task, learner: Learner, point: CurvePoint, known: Mapping[str, Outcomes] | None) -> _State:
    """What the weights of ``point``, which are loaded, come to: the curve's metrics, and those measured only now.

    ``known`` are the outcomes behind the curve's; after a checkpoint of an earlier version, which did not keep them, they
    are measured again.
    """
    model, device = learner.result, learner.device
    if known is None:
        known = measure(task, model, "validation", device).outcomes
    last = measure_final(task, model, device)
    test = measure(task, model, "test", device)
    metrics = {
        "step": point.step,
        "validation": {**point.validation, **last["validation"]},
        "test": {**test, **last["test"]},
    }
    return metrics, {"validation": known, "test": test.outcomes}


def _defined(state: dict[str, Any], when: str, progress: Progress) -> dict[str, Any]:
    """For JSON: null where a metric is not finite."""
    for split in ("validation", "test"):
        for name, value in state[split].items():
            if not math.isfinite(value):
                progress.notes.append(
                    f"{name} is {value} on {split} at {when} (iteration {state['step']:,}): no gate on it there passes"
                )
    return {**state, "validation": finite(state["validation"]), "test": finite(state["test"])}


def curve_csv(curve: list[CurvePoint], metrics: list[str]) -> bytes:
    """One row an evaluation: step, mean training loss since the row before, validation metrics (``nan`` is a gap)."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", "train_loss", *(f"validation_{name}" for name in metrics)])
    for point in curve:
        writer.writerow([point.step, repr(point.train_loss), *(repr(point.validation[name]) for name in metrics)])
    return text.getvalue().encode()
