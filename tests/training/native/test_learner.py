"""Runs of ``kernels: native``: what PyTorch would have trained, in bytes that depend on the spec alone."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.training.native.nets import Deep, Pictures, Residual, Sums, strided
from tests.training.runs import CPU, goes_on_to_the_same_bytes, in_parts, jobs, sealed_bytes
from ticketsmith import api
from ticketsmith.config import load_recipe
from ticketsmith.errors import TicketSmithError
from ticketsmith.execute.worker import Noted
from ticketsmith.models.state import load, snapshot
from ticketsmith.pruning.masks import full, prune
from ticketsmith.pruning.weights import prunable
from ticketsmith.spec import PruneRule, RunSpec, Training, from_canonical, is_key_of
from ticketsmith.store.contract import SealedRun
from ticketsmith.store.directory import DirectoryStore
from ticketsmith.training import checkpoint
from ticketsmith.training.device import prepare
from ticketsmith.training.job import Job
from ticketsmith.training.kernels import make_learner
from ticketsmith.training.learner import TorchLearner
from ticketsmith.training.loop import Progress, measure, train
from ticketsmith.training.native import learner as native_learner
from ticketsmith.training.native.learner import NativeLearner
from ticketsmith.training.produce import Hooks, produce
from ticketsmith.training.tensors import from_bytes, masks_from_bytes

pytestmark = pytest.mark.usefixtures("undrawn")

Write = Callable[..., Path]
NATIVE = "training.kernels=native"
CHAIN = [("rewind_point", 0, 0), ("dense", 0, 0), ("ticket", 1, 0), ("ticket", 2, 0)]
OWN = ("model: {name: mlp, widths: [32, 16]}", "model: tests.training.test_training:Dropout")


@pytest.fixture(autouse=True)
def _deterministic() -> None:
    prepare("cpu")


def trained(task: Any, training: Training, fraction: float, steps: int) -> tuple[dict[str, Tensor], Progress, Any]:
    """Weights, curve and masks of a task's model after ``steps``."""
    torch.manual_seed(0)
    model = task.build_model()
    weights = prunable(model)
    masks = full(weights)
    if fraction:
        masks = prune(masks, {n: w.detach().abs() for n, w in weights.items()}, PruneRule(fraction=fraction))
    notes: list[str] = []
    learner = make_learner(task, model, masks, training, CPU, notes.append)
    assert isinstance(learner, NativeLearner) == (training.kernels == "native"), notes
    progress = Progress()
    train(learner, training, 3, progress, steps, lambda *_: None)
    return learner.state(), progress, masks


@pytest.mark.parametrize(
    ("build", "fraction", "options"),
    [
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(768, 40), nn.ReLU(), nn.Linear(40, 4)), 0.9, {"ema": 0.8}),
        (strided, 0.8, {"optimizer": "adamw", "weight_decay": 0.1}),
        (strided, 0.0, {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "nesterov": True, "schedule": "cosine"}),
        (Residual, 0.7, {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 0.01, "warmup": "9it"}),
        (Sums, 0.6, {"optimizer": "sgd", "lr": 0.02, "momentum": 0.9}),
        (Sums, 0.0, {"optimizer": "sgd", "lr": 0.02, "momentum": 0.9, "nesterov": True}),
    ],
    ids=["linear", "strided", "dense", "residual", "sums", "dense sums"],
)
def test_it_is_the_training_of_pytorch(build: Any, fraction: float, options: dict[str, Any]) -> None:
    training = Training(
        **{"optimizer": "adam", "lr": 0.003, "batch_size": 20, "duration": "40it", "evaluate_every": "7it", **options}
    )
    task = Pictures(build)
    mine, progress, masks = trained(task, training.model_copy(update={"kernels": "native"}), fraction, 40)
    theirs, other, _ = trained(task, training, fraction, 40)
    assert mine.keys() == theirs.keys()
    for name, value in theirs.items():
        assert mine[name].dtype == value.dtype
        assert torch.allclose(mine[name], value, atol=2e-3), f"{name}: {float((mine[name] - value).abs().max())}"
        if name in masks:
            assert bool((mine[name][~masks[name]] == 0).all()), f"{name} has come back"
    assert [point.step for point in progress.curve] == [7, 14, 21, 28, 35, 40]
    for one, two in zip(progress.curve, other.curve, strict=True):
        assert one.train_loss == pytest.approx(two.train_loss, abs=2e-3)
        assert one.validation["loss"] == pytest.approx(two.validation["loss"], abs=2e-3)
    assert progress.outcomes is not None
    assert other.outcomes is not None
    assert np.array_equal(progress.outcomes["accuracy"].values, other.outcomes["accuracy"].values)


def weights(store: DirectoryStore, job: Job) -> dict[str, Tensor]:
    return from_bytes(SealedRun(store, job.folder).read("model.safetensors"), "")[0]


@pytest.mark.parametrize(("own", "options"), [(OWN, ["training.ema=0.9"]), (("", ""), ["training.weight_decay=0.01"])])
def test_interrupted_or_not_and_beside_other_work_the_bytes_are_the_same(
    tmp_path: Path, recipe_file: Write, own: tuple[str, str], options: list[str]
) -> None:
    made = jobs(recipe_file(own, ("rates: {output: 0.25}", "rates: {}")), "rewind=20it", NATIVE, *options)
    whole, broken = DirectoryStore(tmp_path / "whole"), DirectoryStore(tmp_path / "broken")
    for name in CHAIN:
        produce(made[name], whole, CPU, Hooks())
    stop = threading.Event()
    matrix = np.ones((300, 300))
    other = threading.Thread(target=lambda: [matrix @ matrix for _ in iter(stop.is_set, True)])
    other.start()
    try:
        interruptions = sum(
            in_parts(made[name], broken, every) for name, every in zip(CHAIN, (1, 3, 2, 3), strict=True)
        )
    finally:
        stop.set()
        other.join()
    assert interruptions > 8
    assert sealed_bytes(tmp_path / "whole") == sealed_bytes(tmp_path / "broken")
    masks = masks_from_bytes(SealedRun(whole, made["ticket", 2, 0].folder).read("mask.safetensors"), "")
    assert all(bool((weights(whole, made["ticket", 2, 0])[name][~mask] == 0).all()) for name, mask in masks.items())
    environment = SealedRun(whole, made["dense", 0, 0].folder).read_json("environment.json")
    assert environment["kernels"] in ("portable", "neon", "avx2", "avx512")


def test_a_run_that_is_killed_goes_on_to_the_same_bytes(tmp_path: Path, recipe_file: Write) -> None:
    recipe = recipe_file(OWN, ("rates: {output: 0.25}", "rates: {}"), ("lr: 0.003", "lr: 0.003\n  kernels: native"))
    goes_on_to_the_same_bytes(recipe, tmp_path, stretches=4)


def test_a_checkpoint_by_pytorch_is_none_of_native_kernels(tmp_path: Path) -> None:
    """A run that was begun on a GPU and goes on without one."""
    task, store = Pictures(strided), DirectoryStore(tmp_path)
    training = Training(optimizer="adam", lr=0.003, batch_size=20, duration="20it", kernels="native")
    native = make_learner(task, task.build_model(), {}, training, CPU)
    torch_s = TorchLearner(task, task.build_model(), {}, training)
    for writer, reader in ((torch_s, native), (native, torch_s)):
        checkpoint.save(store, "key", writer, Progress(step=3), 1.0)
        assert checkpoint.restore(store, "key", reader) is None
        checkpoint.save(store, "key", writer, Progress(step=3), 1.0)
        assert checkpoint.restore(store, "key", writer) == (Progress(step=3), 1.0)


def test_augmented_examples_are_python_s_and_the_rest_is_not(tmp_path: Path) -> None:
    class Moved(Pictures):
        def batch(self, indices: Tensor, device: torch.device, generator: torch.Generator) -> tuple[Tensor, ...]:
            inputs, labels = super().batch(indices, device, generator)
            return inputs.roll(int(torch.randint(0, 3, (1,), generator=generator)), 3), labels

        def plain_examples(self) -> Any:
            from dataclasses import replace

            return replace(super().plain_examples(), augmented=True)

    training = Training(optimizer="adam", lr=0.003, batch_size=20, duration="20it", evaluate_every="20it")
    task = Moved(strided)
    mine, _, _ = trained(task, training.model_copy(update={"kernels": "native"}), 0.8, 20)
    theirs, _, _ = trained(task, training, 0.8, 20)
    assert all(torch.allclose(mine[name], theirs[name], atol=1e-3) for name in theirs)


def test_dropout_draws_by_seed_and_step_and_leaves_the_share_that_it_should() -> None:
    training = Training(
        optimizer="adam", lr=0.003, batch_size=20, duration="60it", evaluate_every="60it", kernels="native"
    )
    first, progress, _ = trained(Pictures(Deep), training, 0.5, 60)
    again, _, _ = trained(Pictures(Deep), training, 0.5, 60)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert progress.curve[-1].validation["accuracy"] > 60
    assert progress.curve[-1].train_loss < np.log(4)


def test_a_loss_that_is_not_finite_ends_the_run_as_diverged(tmp_path: Path, recipe_file: Write) -> None:
    job = jobs(recipe_file(("optimizer: adam", "optimizer: sgd")), "training.lr=1.0e+30", NATIVE)["dense", 0, 0]
    store = DirectoryStore(tmp_path)
    assert produce(job, store, CPU, Hooks()) == "diverged"
    assert SealedRun(store, job.folder).read_json("metrics.json")["diverged_at"] == 30


def test_the_early_stop_weights_are_those_that_were_measured() -> None:
    training = Training(
        optimizer="adam", lr=0.003, batch_size=20, duration="40it", evaluate_every="5it", kernels="native", ema=0.5
    )
    task = Pictures(strided)
    torch.manual_seed(0)
    learner = make_learner(task, task.build_model(), {}, training, CPU)
    progress = Progress()
    train(learner, training, 0, progress, 40, lambda *_: None)
    end = learner.state()
    learner.load(progress.best)
    best = next(point for point in progress.curve if point.step == progress.best_step)
    assert dict(measure(task, learner.result, "validation", CPU)) == pytest.approx(best.validation)
    module = task.build_model()
    load(module, learner.state())
    assert dict(measure(task, module, "validation", CPU)) == pytest.approx(best.validation, rel=1e-4)
    assert snapshot(module).keys() == end.keys()


def test_a_task_that_measures_by_means_of_its_own_is_given_the_module() -> None:
    class Looking(Pictures):
        def evaluate(self, model: Any, split: str, device: torch.device) -> dict[str, float]:
            assert float(model[0].weight.abs().sum()) > 0
            return super().evaluate(model, split, device)

    training = Training(optimizer="adam", lr=0.003, batch_size=20, duration="10it", kernels="native")
    mine, progress, _ = trained(Looking(strided), training, 0.5, 10)
    theirs, other, _ = trained(Pictures(strided), training, 0.5, 10)
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    assert progress.curve[-1].validation["loss"] == pytest.approx(other.curve[-1].validation["loss"], rel=1e-4)


def test_what_is_not_followed_is_trained_by_pytorch_as_ever_and_told_once(tmp_path: Path, recipe_file: Write) -> None:
    own = ("model: {name: mlp, widths: [32, 16]}", "model: tests.training.native.test_learner:Smooth")
    path = recipe_file(own, ("rates: {output: 0.25}", "rates: {}"))
    told: list[str] = []
    store = DirectoryStore(tmp_path / "both")
    plain, native = jobs(path)["dense", 0, 0], jobs(path, NATIVE)["dense", 0, 0]
    assert plain.spec.key != native.spec.key
    produce(plain, store, CPU, Hooks(note_on_all=told.append))
    assert told == []
    produce(native, store, CPU, Hooks(note_on_all=told.append))
    assert len(told) == 1
    assert "PyTorch trains it" in told[0]
    assert "silu" in told[0]
    one, two = (SealedRun(store, job.folder) for job in (plain, native))
    for name in ("model.safetensors", "curve.csv", "metrics.json"):
        assert one.read(name) == two.read(name)
    assert one.read_json("environment.json") == two.read_json("environment.json")


class Smooth(nn.Sequential):
    """With an activation that the kernels do not know."""

    def __init__(self, input_shape: tuple[int, ...], classes: int) -> None:
        super().__init__(nn.Flatten(), nn.Linear(64, 16), nn.SiLU(), nn.Linear(16, classes))


def test_calls_are_short_enough_for_progress_and_for_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a step takes: here 20 ms."""
    training = Training(
        optimizer="adam", lr=0.003, batch_size=20, duration="40it", evaluate_every="40it", kernels="native"
    )
    task = Pictures(strided)
    learner = make_learner(task, task.build_model(), {}, training, CPU)
    assert isinstance(learner, NativeLearner)
    step = learner._engine.train

    def slow(examples: Any, indices: Any, *rest: Any) -> Any:
        time.sleep(0.02 * len(indices))
        return step(examples, indices, *rest)

    monkeypatch.setattr(learner._engine, "train", slow)
    moments = [time.monotonic()]
    train(learner, training, 0, Progress(), 40, lambda *_: moments.append(time.monotonic()))
    assert max(later - earlier for earlier, later in itertools.pairwise(moments)) < 1.0
    assert 5 < len(moments) < 25


def test_without_the_library_it_ends_before_any_work(
    tmp_path: Path, recipe_file: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TICKETSMITH_ISA", "none")
    recipe = load_recipe(recipe_file(), [NATIVE, f"store={tmp_path / 'runs'}"])
    with pytest.raises(TicketSmithError, match=r"training.kernels: native: .*--set training.kernels=torch"):
        api.run(recipe, workers=1, benchmark=False, device="cpu")
    assert not (tmp_path / "runs").exists()


def test_one_worker_or_two_the_bytes_are_the_same(tmp_path: Path, recipe_file: Write) -> None:
    notes = []
    few = [NATIVE, "pruning.levels=1", "variants.random_ticket=false"]
    for workers in (1, 2):
        recipe = load_recipe(recipe_file(), [*few, f"store={tmp_path / str(workers)}"])
        made = api.train(api.prepare(recipe), workers=workers, device="cpu", on_event=notes.append)
        assert made.outcome.failed == {}
    one, two = sealed_bytes(tmp_path / "1" / "digits"), sealed_bytes(tmp_path / "2" / "digits")
    one.pop("recipe.yaml")  # it names its store
    two.pop("recipe.yaml")
    assert one == two
    assert not [event for event in notes if isinstance(event, Noted)]


def test_native_kernels_are_part_of_a_key_and_their_version_of_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    from ticketsmith import spec

    training = {"optimizer": "adam", "lr": 0.01, "batch_size": 10, "duration": "10it"}
    plain = RunSpec(task={"name": "x"}, seed=0, training=Training(**training))
    native = RunSpec(task={"name": "x"}, seed=0, training=Training(**training, kernels="native"))
    assert plain.key != native.key
    assert "kernels" not in plain.canonical["training"]
    again = from_canonical(native.canonical)
    later = spec.KERNELS_VERSION + 1
    monkeypatch.setattr(spec, "KERNELS_VERSION", later)
    assert spec.key_of(plain.canonical, kernels=later) == plain.key
    assert spec.key_of(again.canonical, kernels=later) != native.key
    assert is_key_of(native.key, again.canonical), "a run of an earlier version is not readable"


def test_the_rule_which_layers_are_sparse_is_that_of_its_version() -> None:
    """If this fails, the same spec now trains to other weights: raise KERNELS_VERSION, then renew this."""
    from ticketsmith.spec import KERNELS_VERSION
    from ticketsmith.training.native.graph import Conv, Graph, Linear
    from ticketsmith.training.native.rule import sparse_weights

    nodes = (
        Conv("conv1", ("input",), (8, 8, 8), "conv.weight", None, padding=(1, 1)),
        Linear("linear1", ("conv1",), (10, 1, 1), "fc.weight", None),
        Linear("linear2", ("linear1",), (4, 1, 1), "small.weight", None),
    )
    graph = Graph((4, 8, 8), nodes, "cross_entropy")
    shapes = {"conv.weight": (8, 4, 3, 3), "fc.weight": (10, 512), "small.weight": (4, 10)}

    def sparse(density: float) -> set[str]:
        masks = {
            name: np.arange(np.prod(shape)).reshape(shape) < density * np.prod(shape) for name, shape in shapes.items()
        }
        return set(sparse_weights(graph, masks))

    assert KERNELS_VERSION == 4
    assert [sparse(density) for density in (0.6, 0.45, 0.35, 0.02)] == [
        set(),
        {"fc.weight"},
        {"fc.weight", "conv.weight"},
        {"fc.weight", "conv.weight"},
    ]
    assert native_learner.CALL <= 0.2
