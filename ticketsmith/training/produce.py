"""Spec and store in, sealed run out. Executors call ``produce``; it knows nothing of how or where it is called."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ticketsmith.errors import DamagedRunError, StoreError, StoreUnreachableError, TaskError
from ticketsmith.prices.ledger import cost_path, cost_paths, parse_cost, run_cost
from ticketsmith.prices.rate import Rate
from ticketsmith.pruning.masks import Masks
from ticketsmith.store.contract import (
    MANIFEST,
    RunFolder,
    SealedRun,
    Store,
    manifest_of,
    to_json,
)
from ticketsmith.store.index import Index
from ticketsmith.tasks.build import check_batch
from ticketsmith.tasks.flops import forward_flops
from ticketsmith.tasks.task import Task, create, identity
from ticketsmith.training import checkpoint
from ticketsmith.training.environment import describe
from ticketsmith.training.job import Job
from ticketsmith.training.kernels import make_learner
from ticketsmith.training.learner import Learner
from ticketsmith.training.loop import Progress, train
from ticketsmith.training.ranks import Beginning, Ranks
from ticketsmith.training.record import measured_files
from ticketsmith.training.samples import sample_files
from ticketsmith.training.start import starting_masks, starting_model
from ticketsmith.training.tensors import masks_to_bytes, to_bytes

Outcome = Literal["trained", "diverged", "reused", "busy"]


class Interrupted(Exception):
    """Training was asked to stop; its checkpoint is saved."""


@dataclass(frozen=True)
class Hooks:
    """What an executor wants to know and do while a run is trained.

    ``report(step, steps, loss)`` is called a few times a second; ``note(text)`` with what a person should know of this run,
    ``note_on_all(text)`` of all runs of its recipe. ``stop()``
    True saves a checkpoint and raises Interrupted. ``checkpoint_every`` is in seconds. ``rate`` is the price of this machine,
    which ``side_by_side`` runs share.
    """

    report: Callable[[int, int, float], None] = lambda step, steps, loss: None
    note: Callable[[str], None] = lambda text: None
    note_on_all: Callable[[str], None] = lambda text: None
    stop: Callable[[], bool] = lambda: False
    checkpoint_every: float = 30.0
    rate: Rate | None = None
    side_by_side: int = 1


def produce(job: Job, store: Store, device: torch.device, hooks: Hooks, ranks: Ranks | None = None) -> Outcome:
    """Makes one run and seals it, unless it is there already; with the other ``ranks``, if it is rank 0 of several.

    ``busy``: another process is making it. ``reused``: it was in the store, perhaps under another experiment. Resumes from a
    checkpoint when there is one. Raises Interrupted, DivergedError when a run that this one needs has diverged, and the
    errors of data, task and store.
    """
    key = job.spec.key
    with store.claim(key) as granted:
        if not granted:
            return "busy"
        if job.parents is None or job.twins is None:
            job = job.located(Index(store))
        if reuse(store, job):
            return "reused"
        task, flops = prepared(
            json.dumps(job.task, sort_keys=True), job.base, json.dumps(job.spec.task, sort_keys=True)
        )
        started = time.monotonic()
        parent = _parent(store, job.parents or {})
        model = starting_model(job.spec, task, parent)
        masks = starting_masks(job.spec, task, model, parent)
        learner = make_learner(task, model, masks, job.spec.training, device, hooks.note_on_all, ranks, job.threads)
        progress, spent = _train(job, store, learner, masks, hooks)
        files = _files(job, learner, progress, masks, flops)
        _tell(progress, hooks)
        status: Outcome = "diverged" if progress.diverged else "trained"
        # What it cost is no part of the sealed run: that is not a function of the spec.
        seconds, beside = spent + time.monotonic() - started, max(1, hooks.side_by_side // learner.threads)
        cost = run_cost(key, str(job.folder), seconds, device.type, hooks.rate, beside)
        # After the run, and only if it is ours: what another process paid for its own is not overwritten.
        if store.publish(job.folder, {**files, MANIFEST: manifest_of(key, status, files)}):
            store.put(cost_path(str(job.folder)), to_json(cost))
        checkpoint.discard(store, key)
        return status


def reuse(store: Store, job: Job) -> bool:
    """True when the run is sealed: here, or under another experiment of the store, from which it is then copied."""
    folder, key = job.folder, job.spec.key
    if store.exists(f"{folder}/{MANIFEST}"):
        return True
    for twin in job.twins or ():
        try:
            run = SealedRun(store, twin)
            if run.key != key:
                continue
            files = {name: run.read(name) for name in run.files}
        except DamagedRunError:
            continue  # not there, or theirs to mend; ours is made anew
        cost = parse_cost(next(filter(None, map(store.get, cost_paths(str(twin), key))), None), key)
        ours = store.publish(folder, {**files, MANIFEST: manifest_of(key, run.status, files)})
        if ours and cost is not None:
            store.put(cost_path(str(folder)), to_json({**cost, "run": str(folder), "copied_from": str(twin)}))
        return True
    return False


at_hand: dict[tuple[str, Path, str], tuple[Task, int]] = {}
"""What ``prepared`` gives without building it: tasks that this process has built and planned with, by its arguments."""


@lru_cache(maxsize=2)
def prepared(component: str, base: Path, planned: str) -> tuple[Task, int]:
    """The task of a component, and its forward FLOPs; kept, because a worker trains many runs on one task.

    ``component`` and the identity that was ``planned`` are JSON. Raises TaskError when data or code have changed since the
    plan was made: the key would no longer tell what was trained.
    """
    if (component, base, planned) in at_hand:
        return at_hand[component, base, planned]
    task = create(json.loads(component), base)
    now = json.dumps(identity(json.loads(component), base, task), sort_keys=True)
    if now != json.dumps(json.loads(planned), sort_keys=True):
        raise TaskError(
            "data or code of the task are not those that were planned: they were changed meanwhile, or a data function gives "
            "other data at each call (then seed it)."
        )
    return task, forward_flops(task)


def _train(job: Job, store: Store, learner: Learner, masks: Masks, hooks: Hooks) -> tuple[Progress, float]:
    """Where training ended, and the seconds that interrupted processes had spent on it before."""
    spec, task, ranks = job.spec, learner.task, learner.ranks
    stop = spec.end(task.train_size)
    check_batch(task, spec.training.batch_size)
    fresh = Progress(step=spec.begin, interval_start=spec.begin)
    progress, spent = checkpoint.restore(store, spec.key, learner) or (fresh, 0.0)
    started = saved = reported = time.monotonic()

    def after_steps(progress: Progress, loss: float | Tensor) -> None:
        nonlocal saved, reported
        _tell(progress, hooks)
        if progress.diverged:
            return  # training ends here; a checkpoint would not know why
        now = time.monotonic()
        if now - reported > 0.2:
            reported = now
            hooks.report(progress.step, stop, float(loss))
        stopping = hooks.stop() if ranks is None else ranks.stopping
        if stopping or now - saved > hooks.checkpoint_every:
            try:
                checkpoint.save(store, spec.key, learner, progress, spent + now - started)
            except StoreUnreachableError:
                if stopping:
                    raise
                # A checkpoint is a convenience: training goes on, and the next one may be saved.
            saved = time.monotonic()
        if stopping:
            raise Interrupted

    hooks.report(progress.step, stop, float("nan"))
    if ranks is not None:
        ranks.asked = hooks.stop
        ranks.begin(_beginning(job, learner, masks, progress))
    train(learner, spec.training, spec.seed, progress, stop, after_steps)
    return progress, spent


def _beginning(job: Job, learner: Learner, masks: Masks, progress: Progress) -> Beginning:
    tensors = to_bytes(learner.unfinished())
    return Beginning(job, masks_to_bytes(masks), tensors, learner.updates, progress.step, progress.interval_start)


def _tell(progress: Progress, hooks: Hooks) -> None:
    for note in progress.notes:
        hooks.note(note)
    progress.notes.clear()


def _files(job: Job, learner: Learner, progress: Progress, masks: Masks, flops: int) -> dict[str, bytes]:
    point = job.spec.stop_after is not None  # a rewind point is material: the raw weights, which nobody looks at
    weights = learner.state(raw=point)  # before measuring, which may load the early-stop weights into the model
    samples = {} if point or progress.diverged else sample_files(learner.task, learner.result, learner.device)
    files = measured_files(job.spec, learner, progress, masks, flops)
    files["mask.safetensors"] = masks_to_bytes(masks)
    if not progress.diverged:
        files |= {"model.safetensors": to_bytes(weights), **samples}
    files["environment.json"] = to_json(describe(learner.device, job.recipe_hash, learner.kernels))
    return files


def _parent(store: Store, places: Mapping[str, RunFolder]) -> Callable[[str], SealedRun]:
    def find(key: str) -> SealedRun:
        if key not in places:
            raise StoreError(f"{store.url}: the run {key[:8]} that this one needs is not sealed.")
        run = SealedRun(store, places[key])
        if run.key != key:
            raise StoreError(f"{store.url}/{run.folder} is the run {run.key[:8]}, and not {key[:8]}, which is needed.")
        return run

    return find
