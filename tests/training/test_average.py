"""Moving averages of weights: what a run gives, and what tickets are rewound to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.training.runs import CPU, in_parts, jobs, sealed_bytes
from tests.training.test_training import digits
from ticketsmith.pruning.masks import full, prune
from ticketsmith.pruning.weights import prunable
from ticketsmith.spec import PruneRule, Training
from ticketsmith.store.contract import SealedRun
from ticketsmith.store.directory import DirectoryStore
from ticketsmith.training.device import prepare
from ticketsmith.training.job import Job
from ticketsmith.training.learner import TorchLearner
from ticketsmith.training.loop import Progress, measure, train
from ticketsmith.training.produce import Hooks, produce
from ticketsmith.training.tensors import from_bytes, masks_from_bytes

Write = Callable[..., Path]
EMA = "training.ema=0.9"


@pytest.fixture(autouse=True)
def _deterministic() -> None:
    prepare("cpu")


def weights(store: DirectoryStore, job: Job) -> dict[str, Tensor]:
    return from_bytes(SealedRun(store, job.folder).read("model.safetensors"), "")[0]


def test_the_average_is_that_of_every_step_and_masks_hold_in_it() -> None:
    task = digits()
    torch.manual_seed(0)
    model = task.build_model()
    parameters = prunable(model)
    masks = prune(full(parameters), {n: w.detach().abs() for n, w in parameters.items()}, PruneRule(fraction=0.9))
    training = Training(optimizer="adam", lr=0.01, batch_size=50, duration="40it", ema=0.8)
    learner = TorchLearner(task, model, masks, training)
    expected = {name: value.detach().double().clone() for name, value in model.named_parameters()}

    def follow(progress: Progress, loss: Tensor) -> None:
        decay = min(0.8, progress.step / (9 + progress.step))
        for name, value in model.named_parameters():
            expected[name] = decay * expected[name] + (1 - decay) * value.detach().double()
        for name, value in learner.result.named_parameters():
            assert torch.allclose(value.double(), expected[name], atol=1e-6), f"step {progress.step}: {name}"
            if name in masks:
                assert bool((value[~masks[name]] == 0).all()), f"step {progress.step}: {name} has come back"

    progress = Progress()
    train(learner, training, 0, progress, 40, follow)
    assert learner.result is not model
    assert progress.curve[-1].validation == measure(task, learner.result, "validation", CPU)
    assert progress.curve[-1].validation != measure(task, model, "validation", CPU)


def test_a_run_gives_its_average_and_a_rewind_point_the_raw_weights(tmp_path: Path, recipe_file: Write) -> None:
    plain, averaged = jobs(recipe_file(), "rewind=60it"), jobs(recipe_file(), "rewind=60it", EMA)
    store = DirectoryStore(tmp_path / "runs")
    point, dense = ("rewind_point", 0, 0), ("dense", 0, 0)
    for made in (plain, averaged):
        for name in (point, dense):
            produce(made[name], store, CPU, Hooks())
    points = weights(store, plain[point]), weights(store, averaged[point])
    ends = weights(store, plain[dense]), weights(store, averaged[dense])
    assert all(torch.equal(points[0][name], points[1][name]) for name in points[0])
    assert not any(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_tickets_are_pruned_by_the_average_and_begin_at_the_raw_weights(tmp_path: Path, recipe_file: Write) -> None:
    made = jobs(recipe_file(), "rewind=60it", "training.duration=90it", "training.evaluate_every=30it", EMA)
    short = jobs(recipe_file(), "rewind=89it", "training.duration=90it", "training.lr=1.0e-12", EMA)
    store = DirectoryStore(tmp_path / "runs")
    for chain in (made, short):
        for name in (("rewind_point", 0, 0), ("dense", 0, 0), ("ticket", 1, 0)):
            produce(chain[name], store, CPU, Hooks())
    dense = weights(store, made["dense", 0, 0])
    masks = masks_from_bytes(SealedRun(store, made["ticket", 1, 0].folder).read("mask.safetensors"), "")
    for name, mask in masks.items():
        assert dense[name][mask].abs().min() >= dense[name][~mask].abs().max()
    masks = masks_from_bytes(SealedRun(store, short["ticket", 1, 0].folder).read("mask.safetensors"), "")
    start, end = weights(store, short["rewind_point", 0, 0]), weights(store, short["ticket", 1, 0])
    assert all(torch.allclose(end[name], start[name] * mask, atol=1e-9) for name, mask in masks.items())


def test_an_average_is_another_run_and_none_changes_no_key(recipe_file: Write) -> None:
    plain, off, on = jobs(recipe_file()), jobs(recipe_file(), "training.ema=0.0"), jobs(recipe_file(), EMA)
    assert {job.spec.key for job in plain.values()} == {job.spec.key for job in off.values()}
    assert {job.spec.key for job in plain.values()}.isdisjoint(job.spec.key for job in on.values())


def test_interrupted_or_not_the_average_is_the_same(tmp_path: Path, recipe_file: Write) -> None:
    own = ("model: {name: mlp, widths: [32, 16]}", "model: tests.training.test_training:Dropout")
    made = jobs(recipe_file(own, ("rates: {output: 0.25}", "rates: {}")), "rewind=20it", EMA)
    whole, broken = DirectoryStore(tmp_path / "whole"), DirectoryStore(tmp_path / "broken")
    names = [("rewind_point", 0, 0), ("dense", 0, 0), ("ticket", 1, 0)]
    for name in names:
        produce(made[name], whole, CPU, Hooks())
    interruptions = sum(in_parts(made[name], broken, 13) for name in names)
    assert interruptions > 15
    assert sealed_bytes(tmp_path / "whole") == sealed_bytes(tmp_path / "broken")
