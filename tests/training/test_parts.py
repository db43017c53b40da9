"""How a step is computed: in parts, with activations computed once more, compiled. What it computes stays the same."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ticketsmith.config import load_recipe
from ticketsmith.errors import RecipeError, TaskError
from ticketsmith.pruning.weights import prunable
from ticketsmith.spec import RunSpec, Training
from ticketsmith.tasks.task import Batch, Task, create
from ticketsmith.training.device import prepare
from ticketsmith.training.learner import Learner
from ticketsmith.training.loop import Progress, train
from ticketsmith.training.parts import parts

PLAIN: dict[str, Any] = {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "batch_size": 48, "duration": "20it"}


@pytest.fixture(autouse=True)
def _deterministic() -> None:
    prepare("cpu")


class Block(nn.Module):
    """With chance, and with a memory of the batches that it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.2))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + self.inner(inputs)


class Deep(nn.Module):
    def __init__(self, input_shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(6))
        self.output = nn.Linear(64, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        inputs = inputs.flatten(1)
        for block in self.blocks:
            inputs = block(inputs)
        logits: Tensor = self.output(inputs)
        return logits


def digits(model: Any = "mlp") -> Task:
    return create({"name": "classification", "data": "digits", "model": model, "validation": 200}, Path())


def trained(task: Task, **how: Any) -> Learner:
    """A learner after 20 steps on weights of which half are masked."""
    training = Training(**{**PLAIN, **how})
    torch.manual_seed(0)
    model = task.build_model()
    masks = {name: torch.rand(weight.shape) < 0.5 for name, weight in prunable(model).items()}
    learner, progress = Learner(task, model, masks, training), Progress()
    train(learner, training, 0, progress, 20, lambda *_: None)
    assert progress.step == 20
    assert not progress.diverged
    weights = dict(learner.model.named_parameters())
    assert all(bool((weights[name][~mask] == 0).all()) for name, mask in masks.items())
    return learner


@pytest.mark.parametrize("optimizer", [{}, {"optimizer": "adam", "lr": 0.003, "momentum": 0.0, "ema": 0.9}])
def test_accumulated_parts_train_like_the_whole_batch(optimizer: dict[str, Any]) -> None:
    task = digits()
    whole, cut = trained(task, **optimizer), trained(task, accumulate=4, **optimizer)
    for name, weight in whole.state().items():
        torch.testing.assert_close(cut.state()[name], weight, rtol=1e-4, atol=1e-5)


def test_tensors_that_are_no_examples_are_not_cut() -> None:
    batch: Batch = (torch.zeros(8, 3), torch.zeros(8), torch.tensor(1.0))
    assert [len(part[0]) for part in parts(batch[:2], 4)] == [2, 2, 2, 2]
    with pytest.raises(TaskError, match=r"shape \(8, 3\), \(8,\), \(\)"):
        parts(batch, 4)


@contextmanager
def held() -> Iterator[list[int]]:
    """Bytes of what is held for the gradient inside."""
    sizes: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel() * tensor.element_size())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield sizes


def test_activations_computed_once_more_give_the_same_bytes_from_less_memory() -> None:
    """With batch norm, whose averages must see a batch once, and dropout, which must drop the same."""
    task = digits(f"{__name__}:Deep")
    with held() as plain:
        expected = trained(task).state()
    with held() as less:
        actual = trained(task, activation_checkpointing=True).state()
    assert {name: value.tolist() for name, value in actual.items()} == {n: v.tolist() for n, v in expected.items()}
    assert sum(less) < sum(plain) / 3


def test_a_model_of_single_layers_has_nothing_to_compute_once_more() -> None:
    with pytest.raises(TaskError, match="activation_checkpointing: the model consists of single layers"):
        trained(digits(), activation_checkpointing=True)


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler on this machine")
def test_compiled_steps_train_like_plain_ones(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_CPP_CACHE_PRECOMPILE_HEADERS", "0")  # pays for many models
    task = digits({"name": "mlp", "widths": [8]})
    plain, compiled = trained(task).state(), trained(task, compile=True).state()
    for name, weight in plain.items():
        torch.testing.assert_close(compiled[name], weight, rtol=1e-3, atol=1e-5)
    again = trained(task, compile=True).state()
    assert {name: value.tolist() for name, value in again.items()} == {n: v.tolist() for n, v in compiled.items()}


def test_without_a_compiler_that_is_what_it_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from torch._inductor import config

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(config.cpp, "cxx", ("/nowhere/g++",))
    with pytest.raises(TaskError, match=r"training\.compile: the model cannot be compiled here.*C\+\+ compiler"):
        trained(digits(), compile=True)


def test_defaults_are_no_part_of_a_key() -> None:
    spec = RunSpec(task={}, training=Training(**PLAIN), seed=0)
    plain = spec.canonical["training"]
    assert not {"accumulate", "ranks", "activation_checkpointing", "compile"} & set(plain)
    for how in ({"accumulate": 2}, {"ranks": 2}, {"activation_checkpointing": True}, {"compile": True}):
        other = RunSpec(task={}, training=Training(**{**PLAIN, **how}), seed=0)
        assert other.canonical["training"] == {**plain, **how}
        assert other.key != spec.key


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (["training.accumulate=7"], "equal parts do not make a `batch_size` of 50"),
        (["training.ranks=3"], "`ranks` 3 equal parts do not make"),
        (["training.compile=true", "training.activation_checkpointing=true"], "leave out `activation_checkpointing`"),
    ],
)
def test_what_cannot_be_is_refused(recipe_file: Any, override: list[str], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        load_recipe(recipe_file(), override)
