"""The training loop: masks hold, the same spec gives the same bytes, an interruption leaves no trace."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.training.runs import CPU, in_parts, jobs, sealed_bytes
from ticketsmith import api
from ticketsmith.config import load_recipe
from ticketsmith.errors import Exit
from ticketsmith.evidence.results import Metric
from ticketsmith.evidence.verdicts import Status
from ticketsmith.models.resnet import ResNet20
from ticketsmith.pruning.masks import full, prune
from ticketsmith.pruning.weights import prunable
from ticketsmith.report.sentences.verdicts import reason
from ticketsmith.spec import PruneRule, Training
from ticketsmith.store.contract import RunFolder, SealedRun
from ticketsmith.store.directory import DirectoryStore
from ticketsmith.tasks.task import Task, create
from ticketsmith.training import produce as production
from ticketsmith.training.device import prepare
from ticketsmith.training.job import Job
from ticketsmith.training.learner import TorchLearner
from ticketsmith.training.loop import Progress, train
from ticketsmith.training.optimization import learning_rate
from ticketsmith.training.order import DataOrder
from ticketsmith.training.produce import Hooks, Interrupted, produce
from ticketsmith.training.tensors import from_bytes, masks_from_bytes

pytestmark = pytest.mark.usefixtures("undrawn")

Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def _deterministic() -> None:
    prepare("cpu")


def digits(model: Any = "mlp") -> Task:
    return create({"name": "classification", "data": "digits", "model": model, "validation": 200}, Path())


OPTIMIZERS = [
    {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.01},
    {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True},
    {"optimizer": "adam", "lr": 0.01, "weight_decay": 0.01},
    {"optimizer": "adamw", "lr": 0.01, "weight_decay": 0.1},
]


@pytest.mark.parametrize("poison", [None, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("options", OPTIMIZERS, ids=lambda o: f"{o['optimizer']}-{len(o)}")
def test_masked_weights_are_zero_at_every_step_and_in_the_optimizer_too(
    options: dict[str, Any], poison: float | None
) -> None:
    """Elsewhere momentum and weight decay move pruned weights between steps (open_lth#6 and four more projects).

    Whatever their gradient is: a loss that takes the norm of a row whose weights are all masked gives NaN there.
    """
    task = digits()
    torch.manual_seed(0)
    model = task.build_model()
    weights = prunable(model)
    masks = prune(full(weights), {n: w.detach().abs() for n, w in weights.items()}, PruneRule(fraction=0.9))
    learner = TorchLearner(task, model, masks, Training(batch_size=50, duration="20it", ema=0.9, **options))
    if poison is not None:
        for name, mask in masks.items():
            model.get_parameter(name).register_hook(lambda gradient, mask=mask: gradient.masked_fill(~mask, poison))
    average = dict(learner.result.named_parameters())

    def check(progress: Progress, loss: Tensor) -> None:
        for name, parameter in model.named_parameters():
            if name not in masks:
                continue
            pruned = ~masks[name]
            assert bool((parameter[pruned] == 0).all()), f"step {progress.step}: {name} has come back"
            assert bool((average[name][pruned] == 0).all()), (
                f"step {progress.step}: the average of {name} has come back"
            )
            assert bool(parameter.isfinite().all())
            for field, state in learner.optimizer.state[parameter].items():
                if state is not None and state.shape == parameter.shape:
                    assert bool((state[pruned] == 0).all()), f"step {progress.step}: {field} of {name} moves"
                    assert bool((state[~pruned] != 0).any())

    train(learner, Training(batch_size=50, duration="20it", **options), 0, Progress(), 20, check)


def test_a_dense_mask_changes_nothing() -> None:
    def run(masks: dict[str, Tensor]) -> dict[str, Tensor]:
        task = digits()
        torch.manual_seed(0)
        model = task.build_model()
        training = Training(optimizer="adam", lr=0.01, batch_size=50, duration="10it")
        train(TorchLearner(task, model, masks, training), training, 0, Progress(), 10, lambda *_: None)
        return model.state_dict()

    torch.manual_seed(0)
    plain, masked = run({}), run(full(prunable(digits().build_model())))
    assert all(torch.equal(plain[name], masked[name]) for name in plain)


def test_every_epoch_sees_every_example_once_in_an_order_of_its_own() -> None:
    order = DataOrder(seed=0, size=103, batch_size=10)
    seen = torch.cat([order.indices(step) for step in range(31)])[:309].view(3, 103)
    for epoch in seen:
        assert torch.equal(epoch.sort().values, torch.arange(103))
    assert not torch.equal(seen[0], seen[1])
    assert torch.equal(DataOrder(0, 103, 10).indices(15), order.indices(15)), "the order depends on where one begins"
    assert not torch.equal(DataOrder(1, 103, 10).indices(15), order.indices(15))
    larger_than_the_data = torch.cat([DataOrder(0, 5, 12).indices(step) for step in range(5)])
    assert larger_than_the_data.bincount(minlength=5).tolist() == [12] * 5


def test_schedules() -> None:
    def rates(**options: Any) -> list[float]:
        rate = learning_rate(
            Training(optimizer="sgd", lr=1.0, batch_size=10, duration="10it", **options), train_size=100
        )
        return [round(rate(step), 4) for step in range(10)]

    assert rates() == [1.0] * 10
    assert rates(schedule="step", milestones=["4it", "0.8ep"]) == [1.0] * 4 + [0.1] * 4 + [0.01] * 2
    assert rates(schedule="linear") == [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
    assert rates(warmup="4it")[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    cosine = rates(schedule="cosine")
    assert cosine[0] == 1.0
    assert cosine[5] == 0.5
    assert cosine == sorted(cosine, reverse=True)


def test_pinned_weights(tmp_path: Path, recipe_file: Write) -> None:
    """If this fails, the same spec now trains to other weights: raise SCIENCE_VERSION, then pin the new sums.

    Sums, not hashes: they must hold on every processor, whose kernels add in different orders.
    """
    made = jobs(recipe_file())
    store = DirectoryStore(tmp_path / "runs")
    sums = []
    for name in (
        ("rewind_point", 0, 0),
        ("dense", 0, 0),
        ("ticket", 1, 0),
        ("random_ticket", 1, 0),
        ("random_reinit", 1, 0),
    ):
        produce(made[name], store, CPU, Hooks())
        tensors, _ = from_bytes(SealedRun(store, made[name].folder).read("model.safetensors"), "")
        sums.append(round(sum(float(tensor.abs().sum()) for tensor in tensors.values()), 1))
    assert sums == pytest.approx(PINNED_SUMS, abs=0.2)


PINNED_SUMS = [352.5, 418.5, 332.3, 267.8, 267.2]


def test_the_same_spec_gives_the_same_bytes_interrupted_at_any_step_or_not(tmp_path: Path, recipe_file: Write) -> None:
    own = ("model: {name: mlp, widths: [32, 16]}", "model: tests.training.test_training:Dropout")
    made = jobs(recipe_file(own, ("rates: {output: 0.25}", "rates: {}")))
    chain = [made[name] for name in (("rewind_point", 0, 0), ("dense", 0, 0), ("ticket", 1, 0))]
    whole, broken = DirectoryStore(tmp_path / "whole"), DirectoryStore(tmp_path / "broken")
    for job in chain:
        produce(job, whole, CPU, Hooks())
    interruptions = sum(in_parts(job, broken, every) for job, every in zip(chain, (1, 1, 13), strict=True))
    assert interruptions > 120
    assert sealed_bytes(tmp_path / "whole") == sealed_bytes(tmp_path / "broken")
    assert not list((tmp_path / "broken" / ".work").glob("*.checkpoint"))


class Dropout(torch.nn.Sequential):
    """A model with chance and state of its own: dropout and batch norm."""

    def __init__(self, input_shape: tuple[int, ...], classes: int) -> None:
        super().__init__(
            torch.nn.Flatten(),
            torch.nn.Linear(64, 32),
            torch.nn.BatchNorm1d(32),
            torch.nn.ReLU(),
            torch.nn.Dropout(0.3),
            torch.nn.Linear(32, classes),
        )


def test_a_damaged_checkpoint_costs_time_not_the_result(tmp_path: Path, recipe_file: Write) -> None:
    job = jobs(recipe_file())["dense", 0, 0]
    store, clean = DirectoryStore(tmp_path / "a"), DirectoryStore(tmp_path / "b")
    steps = itertools.count()
    with pytest.raises(Interrupted):
        produce(job, store, CPU, Hooks(stop=lambda: next(steps) > 50))
    checkpoint = next((tmp_path / "a" / ".work").glob("*.checkpoint"))
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    produce(job, store, CPU, Hooks())
    produce(job, clean, CPU, Hooks())
    assert sealed_bytes(tmp_path / "a") == sealed_bytes(tmp_path / "b")


def test_replicates_differ_and_controls_see_their_tickets_batches(tmp_path: Path, recipe_file: Write) -> None:
    made = jobs(recipe_file())
    store = DirectoryStore(tmp_path)

    def weights(name: tuple[str, int, int]) -> dict[str, Tensor]:
        for needed in (("rewind_point", 0, name[2]), ("dense", 0, name[2]), ("ticket", 1, name[2]), name):
            produce(made[needed], store, CPU, Hooks())
        return from_bytes(SealedRun(store, made[name].folder).read("model.safetensors"), "")[0]

    assert not torch.equal(weights(("rewind_point", 0, 0))["fc1.weight"], weights(("rewind_point", 0, 1))["fc1.weight"])
    ticket = made["ticket", 1, 0].spec
    control = made["random_reinit", 1, 0].spec
    assert ticket.seed == control.seed
    mask = masks_from_bytes(SealedRun(store, made["ticket", 1, 0].folder).read("mask.safetensors"), "")
    same = weights(("random_reinit", 1, 0))
    assert all(
        torch.equal(same[name] != 0, kept) or bool((same[name][~kept] == 0).all()) for name, kept in mask.items()
    )


def test_the_ticket_starts_from_the_rewind_point(tmp_path: Path, recipe_file: Write) -> None:
    """The predecessors' fault: "Due to an error, IMP did not reset the parameters between iterations" (SynFlow's repository)."""
    made = jobs(recipe_file(), "rewind=30it", "training.duration=31it", "training.lr=1.0e-12")
    store = DirectoryStore(tmp_path)
    runs = {}
    for name in (("rewind_point", 0, 0), ("dense", 0, 0), ("ticket", 1, 0), ("ticket", 2, 0)):
        produce(made[name], store, CPU, Hooks())
        runs[name] = from_bytes(SealedRun(store, made[name].folder).read("model.safetensors"), "")[0]
    for level in (1, 2):
        masks = masks_from_bytes(SealedRun(store, made["ticket", level, 0].folder).read("mask.safetensors"), "")
        for name, mask in masks.items():
            start = runs["rewind_point", 0, 0][name] * mask
            assert torch.allclose(runs["ticket", level, 0][name], start, atol=1e-9)


def test_a_late_rewind_point_is_the_dense_run_at_that_step(tmp_path: Path, recipe_file: Write) -> None:
    store = DirectoryStore(tmp_path)
    late, short = jobs(recipe_file(), "rewind=60it"), jobs(recipe_file(), "training.duration=60it")
    produce(late["rewind_point", 0, 0], store, CPU, Hooks())
    produce(short["dense", 0, 0], store, CPU, Hooks())
    states = [
        from_bytes(SealedRun(store, job.folder).read("model.safetensors"), "")[0]
        for job in (late["rewind_point", 0, 0], short["dense", 0, 0])
    ]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_early_stop_is_the_iteration_of_minimum_validation_loss(tmp_path: Path, recipe_file: Write) -> None:
    job = jobs(recipe_file(), "training.lr=0.05", "training.evaluate_every=10it")["dense", 0, 0]
    store = DirectoryStore(tmp_path)
    produce(job, store, CPU, Hooks())
    run = SealedRun(store, job.folder)
    metrics = run.read_json("metrics.json")
    rows = [line.split(",") for line in run.read("curve.csv").decode().splitlines()]
    column = rows[0].index("validation_loss")
    losses = {int(row[0]): float(row[column]) for row in rows[1:]}
    assert list(losses) == list(range(10, 121, 10))
    assert metrics["early_stop"]["step"] == min(losses, key=lambda step: losses[step])
    assert metrics["early_stop"]["validation"]["loss"] == min(losses.values())
    assert metrics["final"]["step"] == 120
    assert metrics["final"]["test"] != metrics["early_stop"]["test"]


def test_the_test_split_is_measured_once_a_state_and_never_before_the_end(
    tmp_path: Path, recipe_file: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = jobs(recipe_file(), "training.lr=0.05", "training.evaluate_every=10it")["dense", 0, 0]
    task, _ = production.prepared(*_prepared_arguments(job))
    seen: list[str] = []
    measure = task.evaluate

    def spy(model: Any, split: Any, device: Any) -> Any:
        seen.append(split)
        return measure(model, split, device)

    monkeypatch.setattr(task, "evaluate", spy)
    produce(job, DirectoryStore(tmp_path), CPU, Hooks())
    assert seen == ["validation"] * 12 + ["test"] * 2


def _prepared_arguments(job: Job) -> tuple[str, Path, str]:
    import json

    return json.dumps(job.task, sort_keys=True), job.base, json.dumps(job.spec.task, sort_keys=True)


def test_a_nan_loss_is_recorded_as_diverged_and_sealed(tmp_path: Path, recipe_file: Write) -> None:
    job = jobs(recipe_file(("optimizer: adam", "optimizer: sgd")), "training.lr=1.0e+30")["dense", 0, 0]
    store = DirectoryStore(tmp_path)
    assert produce(job, store, CPU, Hooks()) == "diverged"
    run = SealedRun(store, job.folder)
    run.verify()
    assert run.status == "diverged"
    assert run.read_json("metrics.json")["diverged_at"] == 30
    assert "model.safetensors" not in run.files


class Rare:
    """Its loss is sound. F1 is 0/0 until something is called positive: ``until`` that iteration, or on a split for good."""

    metrics = (Metric("f1", True, unit="%"), Metric("loss", False, decimals=4))
    train_size = 64

    def __init__(self, until: int = 0, never: str = "", lossless: str = "") -> None:
        self.until, self.never, self.lossless, self.steps = until, never, lossless, 0

    def build_model(self) -> torch.nn.Module:
        return torch.nn.Linear(4, 1)

    def batch(self, indices: Tensor, device: torch.device, generator: torch.Generator) -> tuple[Tensor, ...]:
        inputs = torch.randn(len(indices), 4, generator=generator)
        return inputs, inputs.sum(1, keepdim=True)

    def loss(self, model: torch.nn.Module, batch: tuple[Tensor, ...], generator: torch.Generator) -> Tensor:
        self.steps += 1
        return torch.nn.functional.mse_loss(model(batch[0]), batch[1])

    def evaluate(self, model: torch.nn.Module, split: str, device: torch.device) -> dict[str, float]:
        undefined = self.steps < self.until or split == self.never
        return {"f1": math.nan if undefined else 50.0, "loss": math.inf if split == self.lossless else 0.5}

    def example(self, batch_size: int) -> Tensor:
        return torch.ones(batch_size, 4)


def rare(folder: Path, **options: Any) -> tuple[SealedRun, list[str], DirectoryStore]:
    (folder / "rare.yaml").write_text(
        f"experiment: rare\ntask: {json.dumps({'name': 'tests.training.test_training:Rare', **options})}\n"
        "training: {optimizer: sgd, lr: 0.01, batch_size: 8, duration: 6it, evaluate_every: 2it}\n"
        "pruning: {levels: 1, fraction: 0.5}\nreplicates: 1\ngates: {metrics: {f1: {max_drop: 1.0}}}\n"
    )
    job, notes, store = jobs(folder / "rare.yaml")["dense", 0, 0], list[str](), DirectoryStore(folder / "runs")
    produce(job, store, CPU, Hooks(note=notes.append))
    return SealedRun(store, job.folder), notes, store


class Averaged(Rare):
    """Its metric has a name that a CSV file must quote."""

    metrics = (Metric('f1, "macro"', True, unit="%"), Metric("loss", False, decimals=4))

    def evaluate(self, model: torch.nn.Module, split: str, device: torch.device) -> dict[str, float]:
        return {'f1, "macro"': 50.0, "loss": 0.5}


def test_a_metric_may_have_any_name(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(
        f"experiment: averaged\nstore: {tmp_path / 'runs'}\ntask: {{name: 'tests.training.test_training:Averaged'}}\n"
        "training: {optimizer: sgd, lr: 0.01, batch_size: 8, duration: 4it, evaluate_every: 2it}\n"
        "pruning: {levels: 1, fraction: 0.5}\nreplicates: 1\nvariants: {random_reinit: false, random_ticket: false}\n"
        "gates: {metrics: {'f1, \"macro\"': {max_drop: 1.0}}}\n"
    )
    made = api.run(load_recipe(tmp_path / "recipe.yaml"), workers=1, benchmark=False)
    assert [(point.step, dict(point.validation)) for point in made.results[0].curve] == [
        (step, {'f1, "macro"': 50.0, "loss": 0.5}) for step in (2, 4)
    ]


def test_a_metric_that_is_undefined_for_a_while_is_no_divergence(tmp_path: Path) -> None:
    run, notes, _ = rare(tmp_path, until=5)
    assert run.status == "trained"
    assert notes == [
        "f1 is nan on validation at iteration 2: its curve has a gap, training goes on",
        "f1 is nan on validation at early stop (iteration 2): no gate on it there passes",
    ]
    curve = [line.split(",") for line in run.read("curve.csv").decode().splitlines()]
    assert [row[0] for row in curve] == ["step", "2", "4", "6"]
    assert [row[curve[0].index("validation_f1")] for row in curve[1:]] == ["nan", "nan", "50.0"]
    assert run.read_json("metrics.json")["final"]["test"] == {"f1": 50.0, "loss": 0.5}


def test_a_metric_that_is_undefined_at_the_end_has_no_value_and_passes_no_gate(tmp_path: Path) -> None:
    run, notes, _ = rare(tmp_path, never="test")
    assert run.status == "trained"
    assert "f1 is nan on test at the end (iteration 6): no gate on it there passes" in notes
    content = run.read("metrics.json").decode()
    assert "NaN" not in content
    assert json.loads(content)["final"]["test"] == {"f1": None, "loss": 0.5}
    made = api.run(
        load_recipe(tmp_path / "rare.yaml", [f"store={tmp_path / 'all'}"]), workers=1, benchmark=False
    )  # every file of a report, and all that reads them
    assert made.outcome.failed == {}
    tickets = [verdict for verdict in made.findings.test if verdict.variant == "ticket"]
    assert {verdict.status for verdict in tickets} == {Status.FAIL}
    assert Status.PASS not in {verdict.status for verdict in made.findings.test}
    why = reason(tickets[0], made.findings.metrics[tickets[0].gate.metric], made.findings.policy)
    assert "f1 is not a finite number for seed 0" in why
    assert made.exit_status == Exit.OK
    assert "nan" not in (tmp_path / "all/rare/report/results.csv").read_text().lower()


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_loss_that_is_not_finite_is_a_divergence_on_either_split(tmp_path: Path, split: str) -> None:
    run, notes, _ = rare(tmp_path, lossless=split)
    assert run.status == "diverged"
    step = 2 if split == "validation" else 6
    assert notes == [f"the loss is inf on {split} at iteration {step}: the run has diverged"]


@pytest.mark.parametrize("every", [1, 7])
def test_a_run_that_diverges_does_so_at_the_same_step_however_often_it_is_interrupted(
    tmp_path: Path, recipe_file: Write, every: int
) -> None:
    job = jobs(recipe_file(("optimizer: adam", "optimizer: sgd")), "training.lr=1.0e+30")["dense", 0, 0]
    produce(job, DirectoryStore(tmp_path / "whole"), CPU, Hooks())
    in_parts(job, DirectoryStore(tmp_path / "broken"), every)
    assert sealed_bytes(tmp_path / "whole") == sealed_bytes(tmp_path / "broken")


class Frozen(torch.nn.Module):
    """A layer that is not trained, and one that the forward pass does not use."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.frozen = torch.nn.Linear(64, 32)
        self.frozen.requires_grad_(False)
        self.unused = torch.nn.Linear(5, 4)
        self.output = torch.nn.Linear(32, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        output: Tensor = self.output(torch.relu(self.frozen(inputs.flatten(1))))
        return output


def test_layers_without_a_gradient(tmp_path: Path, recipe_file: Write) -> None:
    own = ("model: {name: mlp, widths: [32, 16]}", "model: tests.training.test_training:Frozen")
    made = jobs(recipe_file(own))
    store = DirectoryStore(tmp_path)
    for name in (("rewind_point", 0, 0), ("dense", 0, 0), ("ticket", 1, 0), ("ticket", 2, 0)):
        assert produce(made[name], store, CPU, Hooks()) == "trained"
    masks = masks_from_bytes(SealedRun(store, made["ticket", 2, 0].folder).read("mask.safetensors"), "")
    assert {name: int(mask.sum()) for name, mask in masks.items()} == {"unused.weight": 5, "output.weight": 180}


def test_a_run_in_another_experiment_of_the_store_is_reused(tmp_path: Path, recipe_file: Write) -> None:
    job = jobs(recipe_file())["dense", 0, 0]
    store = DirectoryStore(tmp_path)
    assert produce(job, store, CPU, Hooks()) == "trained"
    there = replace(job, folder=RunFolder("other", "dense", 0, 0, job.spec.key[:8]))
    assert produce(there, store, CPU, Hooks()) == "reused"
    assert sealed_bytes(tmp_path / "x" / "dense") == sealed_bytes(tmp_path / "other" / "dense")


def test_bfloat16_trains_a_convolutional_network_with_batch_norm() -> None:
    task = digits({"name": "resnet20", "width": 4})
    torch.manual_seed(0)
    model = task.build_model()
    assert isinstance(model, ResNet20)
    training = Training(optimizer="sgd", lr=0.05, momentum=0.9, batch_size=50, duration="60it", dtype="bfloat16")
    progress = Progress()
    train(TorchLearner(task, model, {}, training), training, 0, progress, 60, lambda *_: None)
    assert progress.curve[-1].validation["accuracy"] > 50
    assert all(value.dtype != torch.bfloat16 for value in model.state_dict().values())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_trains_prunes_and_repeats_itself(tmp_path: Path, recipe_file: Write) -> None:
    made = jobs(recipe_file())
    for place in ("a", "b"):
        store = DirectoryStore(tmp_path / place)
        for name in (("rewind_point", 0, 0), ("dense", 0, 0), ("ticket", 1, 0)):
            assert produce(made[name], store, prepare("cuda"), Hooks()) == "trained"
    assert sealed_bytes(tmp_path / "a") == sealed_bytes(tmp_path / "b")
