"""Two processes that share each batch: as one process within rounding, and the same bytes however often they are stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.training import pair
from tests.training.runs import CPU, jobs, sealed_bytes
from ticketsmith.errors import TaskError
from ticketsmith.store.contract import SealedRun
from ticketsmith.store.directory import DirectoryStore
from ticketsmith.training.device import prepare
from ticketsmith.training.produce import Hooks, produce
from ticketsmith.training.tensors import from_bytes, masks_from_bytes

Write = Callable[..., Path]
ALONE = (
    ("levels: 2", "levels: 1"),
    ("replicates: 2", "replicates: 1\nvariants: {random_reinit: false, random_ticket: false}"),
)
SHORT = (*ALONE, ("evaluate_every: 30it", "evaluate_every: 30it\n  ranks: 2"))


def read(run: SealedRun) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    return from_bytes(run.read("model.safetensors"), "weights")[0], masks_from_bytes(
        run.read("mask.safetensors"), "mask"
    )


def test_two_ranks_train_like_one_process(tmp_path: Path, recipe_file: Write) -> None:
    """And seal a mask under which rank 1 has trained as well: its weights are checked against those of rank 0."""
    prepare("cpu")
    assert pair.run(recipe_file(*SHORT), tmp_path / "two") == ["", ""]
    alone = jobs(recipe_file(*ALONE, name="one.yaml"))
    both = jobs(recipe_file(*SHORT))
    dense = alone["dense", 0, 0]
    produce(dense, DirectoryStore(tmp_path / "one"), CPU, Hooks())
    one, _ = read(SealedRun(DirectoryStore(tmp_path / "one"), dense.folder))
    two, _ = read(SealedRun(DirectoryStore(tmp_path / "two"), both["dense", 0, 0].folder))
    assert dense.spec.key != both["dense", 0, 0].spec.key, "other bytes need another key"
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=1e-3, atol=1e-4)
    weights, masks = read(SealedRun(DirectoryStore(tmp_path / "two"), both["ticket", 1, 0].folder))
    assert all(bool((weights[name][~mask] == 0).all()) and not bool(mask.all()) for name, mask in masks.items())


def test_stopped_ranks_go_on_to_the_same_bytes(tmp_path: Path, recipe_file: Write) -> None:
    """Of a model that ranks could disagree about: batch norm, dropout, layers without a gradient, a moving average."""
    busy = ("{name: mlp, widths: [32, 16]}", f"{pair.__name__}:Busy"), ("lr: 0.003", "lr: 0.003\n  ema: 0.9")
    recipe = recipe_file(*busy, *SHORT)
    assert pair.run(recipe, tmp_path / "whole") == ["", ""]
    told, silence = pair.run(recipe, tmp_path / "parts", 50)
    assert told.count("interrupted") == 4, told  # twice in each run of 120 steps
    assert silence == ""
    assert sealed_bytes(tmp_path / "parts") == sealed_bytes(tmp_path / "whole")


def test_weights_that_are_not_the_same_on_all_ranks_end_the_run(tmp_path: Path, recipe_file: Write) -> None:
    model = ("{name: mlp, widths: [32, 16]}", f"{pair.__name__}:Drifting")
    recipe = recipe_file(model, ("output: 0.25", "output: 0.5"), *SHORT)
    for told in pair.run(recipe, tmp_path / "runs"):
        assert "training.ranks: at iteration 30 rank 1 has other weights than rank 0" in told
    assert not list((tmp_path / "runs").rglob("manifest.json"))


def test_one_process_does_not_make_a_run_of_two(tmp_path: Path, recipe_file: Write) -> None:
    job = jobs(recipe_file(*SHORT))["dense", 0, 0]
    with pytest.raises(TaskError, match=r"training\.ranks is 2.*leave out `--executor debug`"):
        produce(job, DirectoryStore(tmp_path), CPU, Hooks())
