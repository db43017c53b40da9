"""Where a run's time goes: the parts add up to it, and what sparsity could save follows from the model."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.training.runs import CPU, jobs
from ticketsmith import api
from ticketsmith.config import load_recipe
from ticketsmith.errors import RecipeError
from ticketsmith.store.directory import DirectoryStore
from ticketsmith.training.device import prepare
from ticketsmith.training.produce import Hooks, produce
from ticketsmith.training.profile import Profile

Write = Callable[..., Path]

NETS = """
import torch
from torch import nn

class Dear(nn.Module):
    '''Its time is in what nothing prunes.'''
    def __init__(self, classes):
        super().__init__()
        self.body, self.output = nn.Linear(64, 512), nn.Linear(512, classes)

    def forward(self, images):
        hidden = self.body(images.flatten(1)).repeat(1, 8)
        for _ in range(4):
            hidden = torch.special.ndtri(torch.sigmoid(hidden))
        return self.output(hidden[:, :512])
"""


def profiled(recipe: Path, *changes: str, **how: Any) -> Profile:
    return api.profile(api.prepare(load_recipe(recipe, changes)), device="cpu", **how)


def test_the_parts_of_a_run_add_up_to_what_it_takes(recipe_file: Write, tmp_path: Path) -> None:
    changes = (
        "training.duration=60it",
        "training.evaluate_every=20it",
        'task.model={"name": "mlp", "widths": [512, 256]}',
    )
    told = profiled(recipe_file(), *changes, steps=50)
    assert set(told.step) == {"data", "forward", "backward", "masks", "optimizer", "loop"}
    assert told.evaluations == 3
    prepare("cpu")
    seconds = []
    for seed in range(2):
        job = jobs(recipe_file(), *changes)["dense", 0, seed]
        before = time.process_time()
        assert produce(job, DirectoryStore(tmp_path), CPU, Hooks()) == "trained"
        seconds.append(time.process_time() - before)
    work = told.seconds - told.parts["waiting"]
    assert min(seconds) / 2 < work < 2 * min(seconds)


def test_sparsity_can_save_what_pruned_layers_take_and_no_more(recipe_file: Write, tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(NETS)
    changes = ("training.batch_size=200", "training.duration=20it")
    wide = profiled(recipe_file(), *changes, 'task.model={"name": "mlp", "widths": [1500, 1500]}', steps=10)
    dear = profiled(recipe_file(), *changes, 'task.model="nets:Dear"', steps=10)
    assert wide.bound is not None
    assert dear.bound is not None
    assert wide.bound.layers == ("fc1.weight", "fc2.weight", "output.weight")
    assert wide.bound.share > 0.6
    assert dear.bound.share < 0.3
    assert 1.0 < wide.bound.speedup(density=0.5) < wide.bound.speedup()
    assert wide.of_peak > dear.of_peak


def test_native_kernels_tell_what_sparsity_saves_already(recipe_file: Write) -> None:
    changes = ("training.batch_size=200", 'task.model={"name": "mlp", "widths": [700, 700]}', "training.kernels=native")
    told = profiled(recipe_file(), *changes, sparsity=0.98, steps=25)
    assert list(told.step) == ["data", "forward", "backward", "weights", "loop"]
    assert min(told.step.values()) > 0
    assert told.bound is not None
    assert told.step_seconds < told.dense / 2
    assert told.bound.share > 0.5
    assert not told.notes


def test_the_work_of_several_ranks_is_that_of_one_process(recipe_file: Write) -> None:
    told = profiled(recipe_file(), "training.ranks=2", steps=1, sparsity=0.0)
    assert [note.partition(",")[0] for note in told.notes] == ["training.ranks is 2"]
    assert told.batch_size == 50


def test_what_cannot_be_profiled_is_one_sentence(recipe_file: Write) -> None:
    with pytest.raises(RecipeError, match=r"^--sparsity 0.99999: .* layer 'fc1' without any weight. Choose less"):
        profiled(recipe_file(), sparsity=0.99999)
    with pytest.raises(RecipeError, match=r"^training.duration: nothing is trained"):
        profiled(recipe_file(), "training.duration=0it", "variants={ticket: false, post_training: {}}")
