"""Single layers by kernels, in a network that PyTorch trains: the same training, from surviving weights alone."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.runtime.networks import ISAS
from tests.training.native.nets import Pictures
from tests.training.runs import CPU, goes_on_to_the_same_bytes, in_parts, jobs, sealed_bytes
from ticketsmith import uncompiled
from ticketsmith.models.gpt import angles, attended
from ticketsmith.models.state import snapshot
from ticketsmith.pruning.masks import Masks, full, prune
from ticketsmith.pruning.weights import prunable
from ticketsmith.spec import PruneRule, Training
from ticketsmith.store.contract import SealedRun
from ticketsmith.store.directory import DirectoryStore
from ticketsmith.tasks.task import Task, create
from ticketsmith.training.course import Course
from ticketsmith.training.device import prepare
from ticketsmith.training.kernels import make_learner
from ticketsmith.training.learner import Learner, TorchLearner
from ticketsmith.training.loop import measure
from ticketsmith.training.native import functions, rule
from ticketsmith.training.native.calls import Call, set_threads
from ticketsmith.training.native.functions import Functions
from ticketsmith.training.native.quick_adam import hasten
from ticketsmith.training.native.sparse_layer import SparseConv2d, SparseLinear, sparse
from ticketsmith.training.native.swap import SwapLearner
from ticketsmith.training.optimization import make_optimizer
from ticketsmith.training.produce import Hooks, produce
from ticketsmith.training.tensors import from_bytes, masks_from_bytes

pytestmark = [pytest.mark.skipif(not ISAS, reason="the kernels are not built"), pytest.mark.usefixtures("undrawn")]

Write = Callable[..., Path]
ADAM = {"optimizer": "adam", "lr": 0.002}


@pytest.fixture(autouse=True)
def _deterministic() -> None:
    prepare("cpu")


Layer = nn.Linear | nn.Conv2d


def pair(dense: Layer, density: float) -> tuple[Any, Any, Tensor]:
    """A layer, the same with surviving weights alone, and which they are."""
    mask = torch.rand(dense.weight.shape) < density
    with torch.no_grad():
        dense.weight.mul_(mask)
    swapped = copy.deepcopy(dense)
    sparse(swapped, mask)
    return dense, swapped, mask


LAYERS: list[tuple[Callable[[], Layer], tuple[int, ...], float]] = [
    (lambda: nn.Linear(5, 3), (1,), 0.5),
    (lambda: nn.Linear(75, 67, bias=False), (7,), 0.3),
    (lambda: nn.Linear(33, 20), (130,), 0.2),
    (lambda: nn.Linear(64, 192), (10, 70), 0.1),
    (lambda: nn.Linear(600, 40), (257,), 0.05),
    (lambda: nn.Linear(16, 16), (16,), 1.0),
    (lambda: nn.Linear(40, 30), (40,), 0.0),
    (lambda: nn.Conv2d(3, 5, 3, padding=1), (1, 9, 9), 0.3),
    (lambda: nn.Conv2d(8, 16, 5, stride=2, padding=2, groups=4), (37, 11, 14), 0.2),
    (lambda: nn.Conv2d(6, 4, (3, 1), stride=(1, 3), padding=(0, 1), bias=False), (16, 10, 10), 0.4),
    (lambda: nn.Conv2d(6, 40, 1), (20, 4, 3), 0.1),
    (lambda: nn.Conv2d(24, 24, 5, padding="same"), (40, 12, 12), 0.1),
    (lambda: nn.Conv2d(4, 4, 2, stride=3, padding="valid"), (17, 10, 10), 0.0),
]


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
@pytest.mark.parametrize(("build", "shape", "density"), LAYERS)
def test_its_output_and_gradients_are_those_of_the_dense_layer(
    isa: Any, build: Any, shape: tuple[int, ...], density: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As near to float64 as PyTorch, times four at most."""
    monkeypatch.setenv("TICKETSMITH_ISA", isa.name)
    torch.manual_seed(len(shape))
    dense, swapped, mask = pair(build(), density)
    inside = (*shape, dense.in_features) if isinstance(dense, nn.Linear) else (shape[0], dense.in_channels, *shape[1:])
    x = torch.randn(inside)
    slope = torch.randn_like(dense(x))

    def numbers(layer: Any, dtype: torch.dtype) -> list[Tensor]:
        inputs = x.to(dtype, copy=True).requires_grad_()
        out = layer(inputs)
        slopes = torch.autograd.grad(out, [inputs, *layer.parameters()], slope.to(dtype))
        return [out.detach(), *(one[mask] if one.shape == mask.shape else one for one in slopes)]

    double = copy.deepcopy(dense).double()
    every = numbers(swapped, torch.float32), numbers(dense, torch.float32), numbers(double, torch.float64)
    for mine, other, right in zip(*every, strict=True):
        assert mine.shape == right.shape
        allowed = 4 * float((other - right).norm()) + 1e-6 * float(right.norm())
        assert float((mine - right).norm()) <= allowed
    assert swapped.values.numel() == int(mask.sum())


@pytest.mark.parametrize(
    ("build", "shape"),
    [(lambda: nn.Linear(6, 5), (3, 6, 2)), (lambda: nn.Conv2d(4, 6, 3, 2, 1, groups=2), (2, 5, 4, 6))],
    ids=["linear", "convolution"],
)
def test_its_gradients_are_right_in_float64_and_so_are_theirs(build: Any, shape: tuple[int, ...]) -> None:
    """By finite differences; the input has another order in memory."""
    torch.manual_seed(0)
    _, layer, _ = pair(build(), 0.5)
    layer.double()
    inputs = torch.randn(shape, dtype=torch.float64).transpose(1, 2).requires_grad_()

    def product(x: Tensor, values: Tensor, bias: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"values": values, "bias": bias}, (x,))  # type: ignore[no-any-return]

    arguments = (inputs, layer.values.detach().requires_grad_(), layer.bias.detach().requires_grad_())
    assert torch.autograd.gradcheck(product, arguments)
    assert torch.autograd.gradgradcheck(product, arguments)


def test_its_bytes_depend_neither_on_threads_nor_on_the_layout_of_its_input() -> None:
    torch.manual_seed(0)
    dense, _, mask = pair(nn.Conv2d(32, 32, 3, padding=1), 0.2)
    x, ends = torch.randn(90, 32, 12, 12), []
    for threads, order in ((1, torch.contiguous_format), (2, torch.contiguous_format), (3, torch.channels_last)):
        set_threads(threads)
        layer, inputs = copy.deepcopy(dense), x.clone(memory_format=order).requires_grad_()
        sparse(layer, mask)
        out = layer(inputs)
        out.square().sum().backward()
        ends.append([out, inputs.grad, layer.values.grad, layer.bias.grad])
    set_threads(1)
    for other in ends[1:]:
        assert all(torch.equal(one, two) for one, two in zip(ends[0], other, strict=True))


def test_a_penalty_on_gradients_has_a_gradient_in_float32() -> None:
    dense, swapped, mask = pair(nn.Linear(20, 10), 0.3)
    x = torch.randn(9, 20)
    for layer in (dense, swapped):
        inputs = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(layer(inputs).square().sum(), inputs, create_graph=True)
        slope.square().sum().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(swapped.values.grad, dense.weight.grad[mask], rtol=1e-4, atol=1e-3)  # type: ignore[union-attr,index]


def test_under_autocast_of_a_users_own_it_computes_as_the_dense_layer_does() -> None:
    dense, swapped, mask = pair(nn.Linear(20, 10), 0.3)
    x, slopes = torch.randn(9, 20), []
    for layer in (dense, swapped):
        inputs = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            out = layer(torch.sigmoid(inputs))
        assert out.dtype == torch.bfloat16
        out.sum().backward()
        slopes.append(inputs.grad)
    torch.testing.assert_close(slopes[1], slopes[0], rtol=0.05, atol=0.02)
    torch.testing.assert_close(swapped.values.grad, dense.weight.grad[mask], rtol=0.05, atol=0.02)  # type: ignore[union-attr,index]


def test_activations_that_are_computed_anew_change_rounding_alone() -> None:
    task, states = language(), []
    for options in ({}, {"activation_checkpointing": True}):
        model, masks = started(task, 0.9)
        native = Training(**{"batch_size": 32, "duration": "9it", "kernels": "native", **ADAM, **options})
        learner = make_learner(task, model, masks, native, CPU)
        assert isinstance(learner, SwapLearner)
        advanced(learner, native, 0, 3)
        states.append(learner.state())
    assert distance(states[1], states[0]) < 1e-5


@pytest.mark.parametrize("build", [lambda: nn.Linear(30, 20), lambda: nn.Conv2d(4, 6, 3)])
def test_it_shows_and_takes_the_state_that_the_dense_layer_has(build: Any) -> None:
    dense, swapped, mask = pair(build(), 0.2)
    assert list(swapped.state_dict()) == list(dense.state_dict())
    assert torch.equal(swapped.weight, dense.weight)
    other = {name: torch.randn_like(value) for name, value in dense.state_dict().items()}
    swapped.load_state_dict(other)
    assert torch.equal(swapped.state_dict()["weight"], other["weight"] * mask)
    assert torch.equal(swapped.state_dict()["bias"], other["bias"])
    with pytest.raises(RuntimeError, match="Missing key"):
        swapped.load_state_dict({"bias": other["bias"]})


class Squeeze(nn.Module):
    """A block of a user's own: what passes is scaled by what the whole of it says."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, 32), nn.Linear(32, width)

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs * torch.sigmoid(self.up(F.silu(self.down(inputs))))


class Custom(nn.Sequential):
    """With SiLU, a block of one's own, batch norm, dropout, and a layer that is swapped by none."""

    def __init__(self, dropout: float = 0.0, inputs: int = 768, classes: int = 4) -> None:
        super().__init__(
            nn.Flatten(), nn.Linear(inputs, 200), nn.SiLU(), Squeeze(200), nn.Linear(200, 256), nn.BatchNorm1d(256),
            nn.SiLU(), nn.Dropout(dropout), nn.Linear(256, classes),
        )  # fmt: skip


class Gated(nn.Module):
    """A block of a user's own, of convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner, self.gate = nn.Conv2d(channels, channels, 3, padding=1), nn.Conv2d(channels, channels, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + F.silu(self.inner(inputs)) * torch.sigmoid(self.gate(inputs))


class Wavy(nn.Sequential):
    """Strided and grouped convolutions around it."""

    def __init__(self, channels: int = 3, classes: int = 4) -> None:
        super().__init__(
            nn.Conv2d(channels, 24, 5, stride=2, padding=2), nn.BatchNorm2d(24), nn.SiLU(), Gated(24),
            nn.Conv2d(24, 32, 3, padding=1, groups=4), nn.SiLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
            nn.Linear(128, classes),
        )  # fmt: skip


class Double:
    """A task in float64."""

    def __init__(self, task: Any) -> None:
        self._task = task
        self.train_size, self.metrics = task.train_size, task.metrics

    def batch(self, *arguments: Any) -> Any:
        return tuple(part.double() if part.is_floating_point() else part for part in self._task.batch(*arguments))

    def loss(self, *arguments: Any) -> Tensor:
        return self._task.loss(*arguments)  # type: ignore[no-any-return]


def started(task: Any, fraction: float) -> tuple[nn.Module, Masks]:
    torch.manual_seed(0)
    model = task.build_model()
    weights = prunable(model)
    scores = {name: weight.detach().abs() for name, weight in weights.items()}
    return model, prune(full(weights), scores, PruneRule(fraction=fraction))


def advanced(learner: Learner, training: Training, begin: int, end: int) -> None:
    course = Course(training, 3, learner.task.train_size)
    for step in range(begin, end):
        learner.advance(course, step, step + 1)


def language(width: int = 64) -> Task:
    model = {"name": "gpt", "width": width, "depth": 1, "heads": 4}
    return create({"name": "language", "data": "pydocs", "model": model, "context": 16}, Path())


def distance(ours: dict[str, Tensor], exact: dict[str, Tensor]) -> float:
    """Of all numbers, relative."""
    floats = [name for name, value in exact.items() if value.is_floating_point()]
    difference = sum(float((ours[name].double() - exact[name].double()).square().sum()) for name in floats)
    return float((difference / sum(float(exact[name].double().square().sum()) for name in floats)) ** 0.5)


@pytest.mark.parametrize(
    ("build", "batch", "options"),
    [
        (lambda: Pictures(Custom), 60, {"optimizer": "sgd", "lr": 0.02, "momentum": 0.9, "nesterov": True, "ema": 0.9}),
        (lambda: Pictures(Wavy), 60, {"optimizer": "sgd", "lr": 0.02, "momentum": 0.5, "weight_decay": 0.01}),
        (lambda: Pictures(Custom), 60, {**ADAM, "weight_decay": 0.001, "accumulate": 2, "schedule": "cosine"}),
        (language, 32, {"optimizer": "adamw", "lr": 0.002, "weight_decay": 0.1, "ema": 0.9}),
    ],
    ids=["nesterov", "convolutions", "adam", "gpt"],
)
def test_two_hundred_steps_end_where_those_of_pytorch_end(build: Any, batch: int, options: dict[str, Any]) -> None:
    """To rounding: as far from a training in float64 as PyTorch's own in float32, times four at most."""
    task = build()
    native = Training(**{"batch_size": batch, "duration": "200it", "kernels": "native", **options})
    training = native.model_copy(update={"kernels": "torch"})
    model, masks = started(task, 0.9)
    swapped = make_learner(task, copy.deepcopy(model), masks, native, CPU)
    assert isinstance(swapped, SwapLearner)
    single = TorchLearner(task, copy.deepcopy(model), masks, training)
    double = TorchLearner(Double(task), copy.deepcopy(model).double(), masks, training)  # type: ignore[arg-type]
    for learner in (swapped, single, double):
        advanced(learner, training, 0, 200)
    for raw in (True, False):
        ours, theirs, exact = (learner.state(raw) for learner in (swapped, single, double))
        assert {name: value.shape for name, value in ours.items()} == {n: value.shape for n, value in theirs.items()}
        assert list(ours) == list(theirs)
        assert distance(ours, exact) < 4 * distance(theirs, exact) + 1e-6
        for name, mask in masks.items():
            assert not bool(ours[name][~mask].any()), f"{name} has come back"


@pytest.mark.parametrize("build", [lambda: Pictures(Wavy), lambda: language(128)], ids=["convolutions", "gpt"])
def test_a_run_that_is_alone_makes_the_same_bytes_on_more_cores(build: Any) -> None:
    task, states = build(), []
    native = Training(batch_size=60, duration="9it", kernels="native", **ADAM)
    for threads in (1, 2):
        model, masks = started(task, 0.8)
        learner = make_learner(task, model, masks, native, CPU, threads=threads)
        assert isinstance(learner, SwapLearner)
        assert learner.threads == threads
        advanced(learner, native, 0, 3)
        states.append(learner.unfinished())
    set_threads(1)
    assert all(torch.equal(states[0][name], value) for name, value in states[1].items())


def test_what_the_optimizer_and_the_average_remember_is_of_surviving_weights() -> None:
    task = Pictures(Custom)
    model, masks = started(task, 0.9)
    native = Training(batch_size=60, duration="9it", kernels="native", ema=0.9, **ADAM)
    learner = make_learner(task, model, masks, native, CPU)
    assert isinstance(learner, SwapLearner)
    advanced(learner, native, 0, 3)
    large = [
        tensor for name, tensor in learner.unfinished().items() if name.startswith("optimizer/") and tensor.numel() > 1
    ]
    assert sum(tensor.numel() for tensor in large) < 0.25 * 2 * sum(mask.numel() for mask in masks.values())
    assert isinstance(model[1], SparseLinear)
    assert model[1].values.numel() == int(masks["1.weight"].sum())


@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_a_hastened_optimizer_makes_the_steps_of_pytorch_s(kind: str) -> None:
    """Bit for bit, a parameter that some steps do not reach and a state that is loaded included."""
    training = Training(optimizer=kind, lr=0.01, weight_decay=0.1, batch_size=2, duration="9it")  # type: ignore[arg-type]
    ends = []
    for quick in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(9, 7), nn.Linear(7, 5))
        optimizer = make_optimizer(model, training)
        if quick:
            hasten(optimizer)
            assert type(optimizer) is not getattr(torch.optim, {"adam": "Adam", "adamw": "AdamW"}[kind])
        for step in range(6):
            (model if step != 2 else model[0])(torch.randn(4, 9)).square().sum().backward()
            optimizer.param_groups[0]["lr"] = 0.01 / (1 + step)
            uncompiled.step(optimizer)
            optimizer.zero_grad()
            if step == 3:
                optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        ends.append([*model.parameters()])
    assert all(torch.equal(one, two) for one, two in zip(*ends, strict=True))


class Looking(Pictures):
    """Measures what it is not the package's to know."""

    def evaluate(self, model: Any, split: str, device: torch.device) -> dict[str, float]:
        assert type(model[1]) is nn.Linear
        assert [tuple(p.shape) for p in model[1].parameters()] == [(200, 768), (200,)]
        return super().evaluate(model, split, device)


def test_a_task_that_measures_by_means_of_its_own_is_given_the_module_of_pytorch() -> None:
    task = Looking(Custom)
    model, masks = started(task, 0.9)
    native = Training(batch_size=60, duration="9it", kernels="native", ema=0.5, **ADAM)
    learner = make_learner(task, model, masks, native, CPU)
    assert isinstance(learner, SwapLearner)
    first = learner.state()
    advanced(learner, native, 0, 3)
    end = learner.state()
    loss = measure(task, learner.result, "validation", CPU)["loss"]
    learner.load(first)
    assert measure(task, learner.result, "validation", CPU)["loss"] > loss
    learner.load(end)
    assert measure(task, learner.result, "validation", CPU)["loss"] == loss
    assert {name: tuple(value.shape) for name, value in snapshot(learner.result).items()} == {
        name: tuple(value.shape) for name, value in end.items()
    }


class Penalty(Pictures):
    def loss(self, model: nn.Module, batch: tuple[Tensor, ...], generator: torch.Generator) -> Tensor:
        return super().loss(model, batch, generator) + 1e-4 * model[1].weight.square().sum()  # type: ignore[index,operator]


class Walking(Pictures):
    def loss(self, model: nn.Module, batch: tuple[Tensor, ...], generator: torch.Generator) -> Tensor:
        penalty = sum(parameter.abs().sum() for parameter in model.parameters() if parameter.dim() > 1)
        return super().loss(model, batch, generator) + 1e-5 * penalty


class Many(Pictures):
    def loss(self, model: nn.Module, batch: tuple[Tensor, ...], generator: torch.Generator) -> Tensor:
        assert len(batch[0]) > 2, "a loss that compares examples"
        return super().loss(model, batch, generator)


def changed(change: Callable[[Any], Any], kind: type[nn.Module] = Custom) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        model = kind()
        change(model)
        return model

    return build


def _shared(model: Any) -> None:
    model[0].again = model[1]


@pytest.mark.parametrize(
    ("task", "options", "layers"),
    [
        (Pictures(Custom), {}, ["1", "4"]),
        (Pictures(Wavy), {}, ["0", "3.inner", "3.gate", "4"]),
        (
            Pictures(changed(lambda model: setattr(model[0], "padding_mode", "reflect"), Wavy)),
            {},
            ["3.inner", "3.gate", "4"],
        ),
        (Pictures(Custom), {"batch_size": 20}, ["1"]),
        (Pictures(Custom), {"batch_size": 60, "accumulate": 3}, ["1"]),
        (Penalty(Custom), {}, ["4"]),
        (Walking(Custom), {}, []),
        (Many(Custom), {}, []),
        (Pictures(Custom), {"dtype": "bfloat16"}, []),
        (Pictures(changed(lambda model: model[1].requires_grad_(False))), {}, ["4"]),
        (Pictures(changed(lambda model: model[4].register_forward_hook(lambda *_: None))), {}, ["1"]),
        (Pictures(changed(lambda model: nn.utils.parametrizations.weight_norm(model[1]))), {}, ["4"]),
        (Pictures(changed(_shared)), {}, ["4"]),
    ],
    ids=[
        "all",
        "convolutions",
        "reflected",
        "few rows",
        "parts",
        "penalty",
        "walking",
        "many",
        "bfloat16",
        "frozen",
        "hooked",
        "normed",
        "shared",
    ],
)
def test_layers_are_swapped_that_nobody_else_looks_into(task: Any, options: dict[str, Any], layers: list[str]) -> None:
    torch.manual_seed(0)
    model = task.build_model()
    masks = {name: torch.rand(weight.shape) < 0.1 for name, weight in prunable(model).items()}
    before = snapshot(model)
    native = Training(**{"batch_size": 60, "duration": "9it", "kernels": "native", **ADAM, **options})
    told: list[str] = []
    learner = make_learner(task, model, masks, native, CPU, told.append)
    assert [
        name for name, module in learner.model.named_modules() if isinstance(module, SparseLinear | SparseConv2d)
    ] == layers
    assert (learner.kernels == "torch") == (not layers)
    state = learner.state()
    assert all(torch.equal(state[name], before[name] * mask) for name, mask in masks.items())
    assert list(state) == list(before)
    (note,) = told
    assert note.startswith(
        "PyTorch trains it, and native kernels only" if layers else "PyTorch trains it, and no native"
    )


def test_the_rule_is_that_of_its_version() -> None:
    """If this fails, the same spec now trains to other weights: raise KERNELS_VERSION, then renew this."""
    mask = torch.arange(4096)
    cases = [
        (64, 64, 1024, 489), (64, 64, 1025, 489), (64, 64, 1024, 488),
        (64, 16, 2, 2, 1638, 62), (64, 16, 2, 2, 1639, 62), (64, 16, 2, 2, 1638, 61),
    ]  # fmt: skip
    swapped = [rule.swapped((mask < left).view(shape).numpy(), rows) for *shape, left, rows in cases]
    assert swapped == [True, False, False] * 2


class Smooth(nn.Sequential):
    """On digits."""

    def __init__(self, input_shape: tuple[int, ...], classes: int) -> None:
        super().__init__(nn.Dropout2d(0.1), Wavy(1, 32), Custom(0.2, 32, classes))


def test_interrupted_or_killed_the_bytes_are_the_same(tmp_path: Path, recipe_file: Write) -> None:
    recipe = recipe_file(
        ("model: {name: mlp, widths: [32, 16]}", "model: tests.training.native.test_swap:Smooth"),
        ("rates: {output: 0.25}", "rates: {}"),
        ("lr: 0.003", "lr: 0.003\n  kernels: native\n  ema: 0.9"),
        ("fraction: 0.5", "fraction: 0.9"),
        ("duration: 120it", "duration: 60it"),
    )
    made, name = jobs(recipe), ("ticket", 1, 0)
    for parent in ("rewind_point", "dense"):
        produce(made[parent, 0, 0], DirectoryStore(tmp_path / "whole"), CPU, Hooks())
    for folder in ("broken", "killed"):
        shutil.copytree(tmp_path / "whole", tmp_path / folder)
    goes_on_to_the_same_bytes(recipe, tmp_path, name, stretches=5)
    assert in_parts(made[name], DirectoryStore(tmp_path / "broken"), 25) == 2
    assert sealed_bytes(tmp_path / "broken") == sealed_bytes(tmp_path / "whole")
    run = SealedRun(DirectoryStore(tmp_path / "whole"), made[name].folder)
    assert run.read_json("environment.json")["kernels"] in ("portable", "neon", "avx2", "avx512")
    weights = from_bytes(run.read("model.safetensors"), "")[0]
    masks = masks_from_bytes(run.read("mask.safetensors"), "")
    assert all(not bool(weights[layer][~mask].any()) for layer, mask in masks.items())


TURN = angles(50, 30)


def _attention(inputs: Tensor) -> Tensor:
    return attended(inputs, 2, (TURN[0].to(inputs.dtype), TURN[1].to(inputs.dtype)), 0.0)


def _own_attention(causal: bool) -> Callable[[Tensor], Tensor]:
    """As a transformer of a user's own has it."""

    def function(inputs: Tensor) -> Tensor:
        query, key, value = (part.view(*part.shape[:2], 2, 30).transpose(1, 2) for part in inputs.split(60, dim=2))
        result = F.scaled_dot_product_attention(query, key, value, is_causal=causal)
        return result.transpose(1, 2).flatten(2)

    return function


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "tanh": lambda inputs: F.gelu(inputs, approximate="tanh"),
    "attention of the package": _attention,
    "attention": _own_attention(False),
    "causal attention": _own_attention(True),
}


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_those_of_pytorch_with_their_gradients(
    name: str, isa: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As near to float64 as PyTorch, times four at most; and gradients have gradients."""
    monkeypatch.setenv("TICKETSMITH_ISA", isa.name)
    calls: list[Any] = []

    def counted(kind: Any) -> Call:
        calls.append(kind)
        return Call(kind)

    monkeypatch.setattr(functions, "_call", counted)
    function = FUNCTIONS[name]
    torch.manual_seed(0)
    base = torch.randn(6, 50, 180)

    def slopes(native: bool, dtype: torch.dtype) -> list[Tensor]:
        inputs = base.to(dtype).requires_grad_()
        with Functions() if native else nullcontext():
            out = function(inputs)
        (slope,) = torch.autograd.grad(out.square().sum(), inputs, retain_graph=True)
        (again,) = torch.autograd.grad(out.square().sum(), inputs, create_graph=True)
        twice = name in ("gelu", "tanh")  # PyTorch's attention has no second derivative
        second = torch.autograd.grad(again.square().sum(), inputs) if twice else ()
        return [out.detach(), slope, again.detach(), *second]

    ours = slopes(True, torch.float32)
    assert (count := len(calls)) >= 2, "no kernel was called"
    theirs, exact = slopes(False, torch.float32), slopes(True, torch.float64)
    assert len(calls) == count
    for mine, other, right in zip(ours, theirs, exact, strict=True):
        assert float((mine - right).abs().max()) <= 4 * float((other - right).abs().max()) + 1e-6 * float(
            right.abs().max()
        )
