"""What the training kernels follow, and the sentence for what they do not."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.training.native.nets import Deep, Pictures, Residual, Wrapped, strided
from ticketsmith import models
from ticketsmith.models.state import snapshot
from ticketsmith.pruning.masks import full
from ticketsmith.pruning.weights import prunable
from ticketsmith.spec import Training
from ticketsmith.training.native.graph import BatchNorm, Conv, Dropout, Graph, Linear, Pool
from ticketsmith.training.native.recognise import NotFollowedError, recognise

TRAINING = Training(optimizer="adam", lr=0.01, batch_size=8, duration="4it")


def graph_of(task: Pictures, **changes: Any) -> Graph:
    torch.manual_seed(0)
    model = task.build_model()
    before = snapshot(model)
    graph, _ = recognise(model, task, TRAINING.model_copy(update=changes), full(prunable(model)))
    after = snapshot(model)
    assert model.training
    assert all(torch.equal(before[name], after[name]) for name in before), "looking at a module has changed it"
    return graph


def kinds(graph: Graph) -> list[str]:
    return [type(node).__name__ for node in graph.nodes]


@pytest.mark.parametrize(
    ("name", "shape", "layers", "others"),
    [
        ("lenet_300_100", (1, 28, 28), 3, {"Relu"}),
        ("mnist_cnn", (1, 28, 28), 4, {"Relu"}),
        ("conv2", (3, 32, 32), 5, {"Relu", "Pool"}),
        ("conv6", (3, 32, 32), 9, {"Relu", "Pool"}),
        ("vgg16", (3, 32, 32), 14, {"Relu", "Pool", "BatchNorm"}),
        ("resnet20", (3, 32, 32), 22, {"Relu", "Pool", "BatchNorm", "Add"}),
    ],
)
def test_the_shipped_models_are_followed(name: str, shape: tuple[int, ...], layers: int, others: set[str]) -> None:
    graph = graph_of(Pictures(lambda: models.create(name, {}, shape, 4), shape, size=8))
    assert graph.input_shape == shape
    assert sum(isinstance(node, Linear | Conv) for node in graph.nodes) == layers
    assert set(kinds(graph)) - {"Linear", "Conv"} == others
    assert graph.nodes[-1].shape == (4, 1, 1)


def test_a_module_of_the_users_own_is_followed_by_what_it_does() -> None:
    deep = graph_of(Pictures(Deep))
    assert kinds(deep) == ["Linear", "Relu", "Dropout"] * 3 + ["Linear"]
    assert [node.rate for node in deep.nodes if isinstance(node, Dropout)] == [0.3, 0.2, 0.3]

    nodes = graph_of(Pictures(strided)).nodes
    first, grouped, pool, wide = nodes[0], nodes[2], nodes[4], nodes[5]
    assert isinstance(first, Conv)
    assert (first.shape, first.stride, first.padding, first.bias) == ((8, 8, 8), (2, 2), (2, 2), "0.bias")
    assert isinstance(grouped, Conv)
    assert (grouped.padding, grouped.groups, grouped.bias) == ((1, 1), 4, None)
    assert isinstance(pool, Pool)
    assert (pool.kind, pool.kernel, pool.stride, pool.padding) == ("max", (3, 3), (2, 2), (1, 1))
    assert isinstance(wide, Conv)
    assert (wide.shape, wide.stride, wide.padding) == ((8, 4, 2), (1, 2), (0, 1))

    residual = graph_of(Pictures(Residual))
    assert kinds(residual) == ["Conv", "BatchNorm", "Relu", "Conv", "BatchNorm", "Add", "Relu", "Pool", "Linear"]
    assert residual.nodes[5].inputs == ("norm2", "relu1"), "`+=` adds what stood there"
    norm = residual.nodes[1]
    assert isinstance(norm, BatchNorm)
    assert (norm.momentum, norm.num_batches_tracked) == (0.2, "norm.num_batches_tracked")


class _Double(torch.autograd.Function):
    """A gradient of its own."""

    @staticmethod
    def forward(context: Any, inputs: Tensor) -> Tensor:
        return F.relu(inputs)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gradient * 2


def _plain() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(768, 8), nn.ReLU(), nn.Linear(8, 4))


def _wrapped(forward: Callable[[Any, Tensor], Any]) -> Callable[[], nn.Module]:
    return lambda: Wrapped(_plain(), forward)


def _two_ways(self: Any, inputs: Tensor) -> Any:
    return self.inside(inputs) if random.random() < 2.0 else None


def _counting(self: Any, inputs: Tensor) -> Any:
    self.calls = getattr(self, "calls", 0) + 1
    return self.inside(inputs)


def _frozen() -> nn.Module:
    model = _plain()
    model[1].weight.requires_grad_(False)  # type: ignore[index]
    return model


def _shared() -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(768, 8), nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 4))
    model[3].weight = model[2].weight
    return model


def _hooked() -> nn.Module:
    model = _plain()
    model[1].register_forward_hook(lambda module, inputs, output: output * 2)  # type: ignore[index]
    return model


def _without_gradient(self: Any, inputs: Tensor) -> Any:
    with torch.no_grad():
        features = self.inside[:3](inputs)
    return self.inside[3](features)


def _kept_norm() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(768, 8), nn.BatchNorm1d(8, track_running_stats=False), nn.Linear(8, 4))


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(768, 8), nn.GELU(), nn.Linear(8, 4)), "gelu is none"),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3, dilation=2), nn.Flatten(), nn.Linear(576, 4)), "0.weight is dilated"),
        (_wrapped(lambda self, x: self.inside(x) if x.sum() > 0 else x), "torch.Tensor.sum is none"),
        (_wrapped(lambda self, x: self.inside(x.detach())), "detach is none"),
        (_wrapped(lambda self, x: self.inside(torch.as_tensor(x.numpy()))), "numpy is none"),
        (_wrapped(lambda self, x: self.inside[3](_Double.apply(self.inside[:2](x)))), "without a gradient"),
        (_wrapped(lambda self, x: self.inside(F.dropout(x))), "another network when it is evaluated"),
        (_wrapped(_two_ways), "draws from Python's"),
        (_wrapped(_counting), "changes the module"),
        (_wrapped(_without_gradient), "_set_grad_enabled is none"),
        (_wrapped(lambda self, x: self.inside(x + 1.0)), "neither an input nor what a layer gives"),
        (_wrapped(lambda self, x: (self.inside(x), x)), "its output is no tensor"),
        (_wrapped(lambda self, x: self.inside.nothing(x)), "cannot be followed: AttributeError"),
        (_kept_norm, "no moving averages"),
        (_frozen, "1.weight is not trained"),
        (_shared, "two layers share a weight"),
        (_hooked, "1 has a hook"),
        (lambda: _plain().double(), "in float64"),
        (lambda: nn.Sequential(*_plain(), nn.Linear(4, 5)), "takes 4 outputs"),
        (lambda: Wrapped(_plain(), lambda self, x: self.inside[3](self.inside[1](x.flatten(1)))), None),
    ],
)
def test_what_is_not_followed_is_told_in_a_sentence(build: Callable[[], nn.Module], sentence: str | None) -> None:
    if sentence is None:
        graph_of(Pictures(build))
        return
    with pytest.raises(NotFollowedError, match=sentence) as told:
        graph_of(Pictures(build))
    assert "\n" not in str(told.value)


def test_a_loss_or_a_batch_of_the_users_own_is_not_taken_for_the_plain_one() -> None:
    class Smoothed(Pictures):
        def loss(self, model: nn.Module, batch: tuple[Tensor, ...], generator: torch.Generator) -> Tensor:
            return F.cross_entropy(model(batch[0]), batch[1], label_smoothing=0.1)

    with pytest.raises(NotFollowedError, match="data or loss are not plain"):
        graph_of(Smoothed(_plain))
    task = Pictures(_plain)
    task.loss = lambda model, batch, generator: model(batch[0]).sum()  # type: ignore[method-assign]
    with pytest.raises(NotFollowedError, match="data or loss are not plain"):
        graph_of(task)


def test_bfloat16_is_followed() -> None:
    assert graph_of(Pictures(_plain), dtype="bfloat16") == replace(graph_of(Pictures(_plain)), bfloat16=True)


def test_a_pruned_bias_is_not_followed() -> None:
    task = Pictures(_plain)
    model = task.build_model()
    masks = full(prunable(model, ("1.bias",)))
    recognise(model, task, TRAINING, masks)
    masks["1.bias"][0] = False
    with pytest.raises(NotFollowedError, match=r"1\.bias is pruned"):
        recognise(model, task, TRAINING, masks)
