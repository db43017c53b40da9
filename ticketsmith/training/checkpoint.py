"""Checkpoints of a run that is not finished: everything that the rest of its training depends on."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import torch

from ticketsmith.errors import DamagedRunError, StoreUnreachableError
from ticketsmith.evidence import outcomes
from ticketsmith.evidence.results import CurvePoint
from ticketsmith.store.contract import Store, checkpoint_path
from ticketsmith.training.learner import Learner
from ticketsmith.training.loop import Progress
from ticketsmith.training.tensors import from_bytes, to_bytes

_OUTCOMES = "outcomes"
"""The tensor of a checkpoint that holds the outcomes of validation examples; those of earlier versions have none."""


def save(store: Store, key: str, learner: Learner, progress: Progress, seconds: float) -> None:
    """Writes a checkpoint, whole or not at all. ``seconds`` is the time spent on the run so far. Raises StoreError."""
    tensors = learner.unfinished() | {f"best/{name}": value for name, value in progress.best.items()}
    if progress.outcomes is not None and progress.best_outcomes is not None:
        states: outcomes.OfStates = {
            "final": {"validation": progress.outcomes},
            "early_stop": {"validation": progress.best_outcomes},
        }
        tensors[_OUTCOMES] = torch.frombuffer(bytearray(outcomes.to_bytes(states)), dtype=torch.uint8)
    note = {
        "seconds": seconds,
        "step": progress.step,
        "interval_loss": float(progress.interval_loss),
        "interval_start": progress.interval_start,
        "best_step": progress.best_step,
        "averaged": learner.updates,
        "kernels": learner.kernels,
        "curve": [asdict(point) for point in progress.curve],
    }
    content = to_bytes(tensors, note)
    store.put(checkpoint_path(key), hashlib.sha256(content).digest() + content)


def restore(store: Store, key: str, learner: Learner) -> tuple[Progress, float] | None:
    """Puts model and optimizer back where the last checkpoint was; progress and seconds, or None to begin anew.

    A checkpoint that cannot be read is thrown away: it costs time, never a result. So is one by PyTorch of a run that native
    kernels go on with, say since it was begun on a GPU, and the other way round.
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
    if (note.get("kernels", "torch") == "torch") != (learner.kernels == "torch"):
        discard(store, key)
        return None
    progress = _progress(note)
    progress.best = {name.removeprefix("best/"): value for name, value in tensors.items() if name.startswith("best/")}
    if _OUTCOMES in tensors:
        kept = outcomes.from_bytes(tensors.pop(_OUTCOMES).numpy().tobytes(), checkpoint_path(key))
        progress.outcomes = kept.get("final", {}).get("validation", {})
        progress.best_outcomes = kept.get("early_stop", {}).get("validation", {})
    learner.resume(tensors, note["averaged"])
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
