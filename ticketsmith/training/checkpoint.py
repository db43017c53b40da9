"""Checkpoints of a run that is not finished: everything that the rest of its training depends on."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from ticketsmith.errors import DamagedRunError, StoreUnreachableError
from ticketsmith.evidence.results import CurvePoint
from ticketsmith.models.state import load, snapshot
from ticketsmith.store.contract import Store, checkpoint_path
from ticketsmith.training.loop import Learner, Progress
from ticketsmith.training.tensors import from_bytes, to_bytes


def save(store: Store, key: str, learner: Learner, progress: Progress, seconds: float) -> None:
    """Writes a checkpoint, whole or not at all. ``seconds`` is the time spent on the run so far. Raises StoreError."""
    tensors = {f"model/{name}": value for name, value in snapshot(learner.model).items()}
    if learner.average is not None:
        tensors |= {f"average/{name}": value for name, value in snapshot(learner.average.model).items()}
    tensors |= {f"best/{name}": value for name, value in progress.best.items()}
    for index, state in learner.optimizer.state_dict()["state"].items():
        tensors |= {
            f"optimizer/{index}/{name}": value.detach().cpu() for name, value in state.items() if value is not None
        }
    note = {
        "seconds": seconds,
        "step": progress.step,
        "interval_loss": float(progress.interval_loss),
        "interval_start": progress.interval_start,
        "best_step": progress.best_step,
        "averaged": learner.average.updates if learner.average else 0,
        "curve": [asdict(point) for point in progress.curve],
    }
    content = to_bytes(tensors, note)
    store.put(checkpoint_path(key), hashlib.sha256(content).digest() + content)


def restore(store: Store, key: str, learner: Learner) -> tuple[Progress, float] | None:
    """Puts model and optimizer back where the last checkpoint was; progress and seconds, or None to begin anew.

    A checkpoint that cannot be read is thrown away: it costs time, never a result.
    """
    try:
        stored = store.get(checkpoint_path(key))
    except DamagedRunError:
        stored = b""
    if stored is None:
        return None
    digest, content = stored[:32], stored[32:]
    if hashlib.sha256(content).digest() != digest:
        discard(store, key)
        return None
    tensors, note = from_bytes(content, checkpoint_path(key))
    parts: dict[str, dict[str, Any]] = {"model": {}, "average": {}, "best": {}, "optimizer": {}}
    for name, value in tensors.items():
        part, _, rest = name.partition("/")
        parts[part][rest] = value
    progress = _progress(note)
    progress.best = parts["best"]
    load(learner.model, parts["model"])
    if learner.average is not None:
        load(learner.average.model, parts["average"])
        learner.average.updates = note["averaged"]
    state: dict[int, dict[str, Any]] = {}
    for name, value in parts["optimizer"].items():
        index, _, field = name.partition("/")
        state.setdefault(int(index), {})[field] = value
    groups = learner.optimizer.state_dict()["param_groups"]
    learner.optimizer.load_state_dict({"state": state, "param_groups": groups})
    return progress, float(note["seconds"])


def discard(store: Store, key: str) -> None:
    """Removes the checkpoint of a run that is finished; one that cannot be reached is left."""
    with suppress(StoreUnreachableError):
        store.delete(checkpoint_path(key))


def _progress(note: Any) -> Progress:
    curve = [CurvePoint(**point) for point in note["curve"]]
    best = next((point.validation["loss"] for point in curve if point.step == note["best_step"]), float("inf"))
    return Progress(
        step=note["step"],
        interval_loss=note["interval_loss"],
        interval_start=note["interval_start"],
        curve=curve,
        best_step=note["best_step"],
        best_loss=best,
    )
