"""Training by native kernels is training by PyTorch, to rounding; and the same bytes however it is divided."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from benchmarks.train.networks import Residual, arrays, graph, prune
from tests.runtime.networks import ISAS
from ticketsmith.training.learner import MovingAverage
from ticketsmith.training.native.engine import Engine, Examples, Normalise, OptimizerSettings
from ticketsmith.training.native.graph import Dropout, Graph, Linear

pytestmark = pytest.mark.skipif(not ISAS, reason="the kernels are not built")

Loss = Literal["cross_entropy", "squared_error"]
SCALE, SHIFT = 1 / 80, -1.5


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(75, 67), nn.ReLU(), nn.Linear(67, 33), nn.ReLU(), nn.Linear(33, 10))


def odd_convolutions() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 14, 5, (2, 1), 2), nn.ReLU(), nn.Conv2d(14, 21, (5, 3), 2, (2, 0), groups=7), nn.ReLU(),
        nn.MaxPool2d(3, 2, 1), nn.Flatten(), nn.LazyLinear(20, bias=False), nn.ReLU(), nn.Linear(20, 10),
    )  # fmt: skip


def pools() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 12, 1), nn.AvgPool2d(2), nn.ReLU(),
        nn.Flatten(), nn.LazyLinear(10),
    )  # fmt: skip


def residual() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), Residual(16), Residual(16), nn.AvgPool2d((4, 3)),
        nn.Flatten(), nn.Linear(16, 10),
    )  # fmt: skip


NETWORKS: dict[str, tuple[Callable[[], nn.Sequential], tuple[int, int, int]]] = {
    "mlp": (mlp, (3, 5, 5)),
    "odd convolutions": (odd_convolutions, (3, 19, 11)),
    "pools": (pools, (3, 8, 8)),
    "residual": (residual, (3, 8, 6)),
}
OPTIMIZERS: dict[str, tuple[OptimizerSettings, float]] = {
    "sgd": (OptimizerSettings("sgd"), 0.1),
    "nesterov": (OptimizerSettings("sgd", 0.9, True, 1e-3), 0.01),
    "adam": (OptimizerSettings("adam", weight_decay=1e-3), 1e-3),
    "adamw": (OptimizerSettings("adamw", weight_decay=0.1), 1e-3),
}


class Case:
    """A network from its first weights on, and the examples of its steps."""

    def __init__(
        self, name: str, batch: int, steps: int, density: float = 1.0, loss: Loss = "cross_entropy", draw: int = 1
    ) -> None:
        torch.manual_seed(0)
        build, self.shape = NETWORKS[name]
        self.model = build()
        self.model(torch.zeros(2, *self.shape))
        self.masks = prune(self.model, density) if density < 1 else {}
        self.graph, self.start, self.batch, self.steps = (
            graph(self.model, self.shape, loss),
            arrays(self.model),
            batch,
            steps,
        )
        generator = np.random.default_rng(draw)
        inputs = generator.integers(0, 256, (300, *self.shape), dtype=np.uint8)
        targets = generator.integers(0, 10, 300) if loss == "cross_entropy" else generator.random((300, 10), np.float32)
        self.data = Examples(inputs, targets)
        self.indices = generator.integers(0, 300, (steps, batch))

    def engine(self, settings: OptimizerSettings, **more: Any) -> Engine:
        return Engine(
            self.graph, self.start, self.masks, set(self.masks), self.batch, settings, Normalise(SCALE, SHIFT), **more
        )

    def train(self, engine: Engine, rate: float, cuts: tuple[int, ...] = ()) -> np.ndarray[Any, Any]:
        losses = [
            engine.train(self.data, part, np.full(len(part), rate), np.arange(len(part)))
            for part in np.split(self.indices, cuts)
        ]
        return np.concatenate(losses)

    def torch(self, settings: OptimizerSettings, rate: float, dtype: torch.dtype) -> tuple[nn.Module, list[float]]:
        """The same by PyTorch, gradients masked."""
        model = copy.deepcopy(self.model).to(dtype)
        decay = settings.weight_decay
        optimizer: torch.optim.Optimizer = {
            "sgd": lambda p: torch.optim.SGD(
                p, rate, settings.momentum, weight_decay=decay, nesterov=settings.nesterov
            ),
            "adam": lambda p: torch.optim.Adam(p, rate, weight_decay=decay),
            "adamw": lambda p: torch.optim.AdamW(p, rate, weight_decay=decay),
        }[settings.kind](model.parameters())
        inputs = torch.from_numpy(self.data.inputs).to(dtype) * SCALE + SHIFT
        targets = torch.from_numpy(self.data.targets)
        masks = {name: torch.from_numpy(mask) for name, mask in self.masks.items()}
        losses = []
        for index in self.indices:
            outputs = model(inputs[index])
            loss = (
                F.mse_loss(outputs, targets[index].to(dtype))
                if targets.is_floating_point()
                else F.cross_entropy(outputs, targets[index])
            )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            for name, parameter in model.named_parameters():
                if name in masks and parameter.grad is not None:
                    parameter.grad.mul_(masks[name])
            optimizer.step()
            losses.append(float(loss.detach()))
        return model.eval(), losses


def distance(ours: dict[str, np.ndarray[Any, Any]], exact: dict[str, np.ndarray[Any, Any]]) -> float:
    """Of all weights, relative."""
    difference = sum(float(np.square(ours[name] - value).sum()) for name, value in exact.items())
    return float(np.sqrt(difference / sum(float(np.square(value).sum()) for value in exact.values())))


@pytest.mark.parametrize("density", [1.0, 0.2], ids=["dense", "sparse"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("batch", [7, 60])
def test_twenty_steps_end_where_those_of_pytorch_end(name: str, optimizer: str, density: float, batch: int) -> None:
    """To rounding: as far from a training in float64 as PyTorch's own in float32, times four at most.

    Of two draws of the data, since rounding may turn a ReLU at its kink in one.
    """
    settings, rate = OPTIMIZERS[optimizer]
    for draw in (1, 2):
        case = Case(name, batch, 20, density, draw=draw)
        engine = case.engine(settings)
        losses = case.train(engine, rate)
        single, double = (case.torch(settings, rate, dtype) for dtype in (torch.float32, torch.float64))
        ours, exact = engine.parameters(), arrays(double[0])
        if distance(ours, exact) < 4 * distance(arrays(single[0]), exact) + 1e-6:
            break
    else:
        pytest.fail(f"{distance(ours, exact)} from float64, PyTorch {distance(arrays(single[0]), exact)}")
    np.testing.assert_allclose(losses, double[1], rtol=1e-4)
    for name, mask in case.masks.items():
        assert not ours[name][~mask].any()
    with torch.no_grad():
        outputs = single[0](torch.from_numpy(case.data.inputs[:133]).float() * SCALE + SHIFT)
    np.testing.assert_allclose(engine.forward(case.data.inputs[:133]), outputs, rtol=0, atol=2e-3)


def rounded(x: torch.Tensor) -> torch.Tensor:
    """To bfloat16; its gradient passes."""
    return x + (x.bfloat16().to(x.dtype) - x).detach()


class RoundedSlope(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: torch.Tensor) -> torch.Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(context: Any, slope: torch.Tensor) -> torch.Tensor:
        return slope.bfloat16().to(slope.dtype)


class Bfloat16(TorchFunctionMode):
    """Products of what is rounded; all is rounded but the last."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function not in (F.linear, torch.conv2d):
            return function(*args, **(kwargs or {}))
        out = RoundedSlope.apply(function(rounded(args[0]), rounded(args[1]), *args[2:], **(kwargs or {})))
        return out if out.shape[1:] == (10,) else rounded(out)


@pytest.mark.parametrize("density", [1.0, 0.2], ids=["dense", "sparse"])
@pytest.mark.parametrize("name", ["mlp", "odd convolutions"])
def test_in_bfloat16_products_are_of_rounded_numbers_and_summed_in_float32(name: str, density: float) -> None:
    """A step is as near to one whose rounded numbers are multiplied in float64, as PyTorch's products in float32 are, times
    four at most; and the same on all instruction sets."""
    for isa in ISAS:
        case = Case(name, 40, 1, density)
        case.graph = replace(case.graph, bfloat16=True)
        engine = case.engine(OptimizerSettings("sgd"), isa=isa)
        case.train(engine, 0.1)
        with Bfloat16():
            single, double = (
                arrays(case.torch(OptimizerSettings("sgd"), 0.1, t)[0]) for t in (torch.float32, torch.float64)
            )
        plain = arrays(case.torch(OptimizerSettings("sgd"), 0.1, torch.float64)[0])
        assert distance(plain, double) > 20 * distance(single, double)
        assert distance(engine.parameters(), double) < 4 * distance(single, double) + 1e-6


@pytest.mark.parametrize("name", ["pools", "residual"])
def test_two_hundred_steps_in_bfloat16_go_as_those_of_autocast(name: str) -> None:
    """As far from a training in float64 as PyTorch's by autocast, times three at most; and the loss within 1 %."""
    case, settings = Case(name, 40, 200, 0.2), OptimizerSettings("sgd", 0.9)
    exact = case.torch(settings, 0.01, torch.float64)
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):  # or it would see the first weights alone
        theirs = case.torch(settings, 0.01, torch.float32)
    case.graph = replace(case.graph, bfloat16=True)
    engine = case.engine(settings)
    losses = case.train(engine, 0.01)
    assert distance(engine.parameters(), arrays(exact[0])) < 3 * distance(arrays(theirs[0]), arrays(exact[0]))
    np.testing.assert_allclose(losses[-50:].mean(), np.mean(theirs[1][-50:]), rtol=0.01)
    for weight, mask in case.masks.items():
        assert not engine.parameters()[weight][~mask].any()


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
def test_two_hundred_steps_on_every_instruction_set(isa: Any) -> None:
    """Of numbers that are no classes."""
    for name, batch in (("mlp", 17), ("odd convolutions", 3)):
        case = Case(name, batch, 200 if name == "mlp" else 20, 0.3, "squared_error")
        settings = OptimizerSettings("sgd", 0.9)
        engine = case.engine(settings, isa=isa)
        case.train(engine, 0.01)
        single, double = (arrays(case.torch(settings, 0.01, dtype)[0]) for dtype in (torch.float32, torch.float64))
        assert distance(engine.parameters(), double) < 4 * distance(single, double) + 1e-6


@pytest.mark.parametrize("density", [1.0, 0.2], ids=["dense", "sparse"])
@pytest.mark.parametrize("name", NETWORKS)
def test_bytes_do_not_depend_on_calls_threads_or_a_stop(name: str, density: float) -> None:
    case, settings = Case(name, 40, 10, density), OptimizerSettings("adam", ema=0.99)
    once = case.engine(settings)
    losses = case.train(once, 1e-3)
    parts = case.engine(settings, threads=2)
    assert case.train(parts, 1e-3, cuts=(1, 4)).tobytes() == losses.tobytes()
    before, after = case.engine(settings), case.engine(settings)
    before.train(case.data, case.indices[:4], np.full(4, 1e-3), np.zeros(4))
    after.load(before.state())
    after.train(case.data, case.indices[4:], np.full(6, 1e-3), np.zeros(6))
    for other in (parts, after):
        for averaged in (False, True):
            expected = once.parameters(averaged)
            for key, value in other.parameters(averaged).items():
                assert value.tobytes() == expected[key].tobytes(), key
        assert other.forward(case.data.inputs).tobytes() == once.forward(case.data.inputs).tobytes()
        assert {name: value.tobytes() for name, value in other.state().items()} == {
            name: value.tobytes() for name, value in once.state().items()
        }


def test_the_average_is_that_of_a_learner() -> None:
    case = Case("residual", 20, 15, 0.5)
    engine = case.engine(OptimizerSettings("sgd", 0.9, ema=0.9))
    average = MovingAverage(case.model, 0.9)
    for index in case.indices:
        engine.train(case.data, index[None], np.array([0.01]), np.zeros(1))
        case.model.load_state_dict({name: torch.from_numpy(value) for name, value in engine.parameters().items()})
        average.update(case.model)
    for name, value in arrays(average.model).items():
        np.testing.assert_allclose(engine.parameters(averaged=True)[name], value, rtol=0, atol=1e-6, err_msg=name)
    outputs = average.model.eval()(torch.from_numpy(case.data.inputs[:5]).float() * SCALE + SHIFT).detach()
    np.testing.assert_allclose(engine.forward(case.data.inputs[:5], averaged=True), outputs, rtol=0, atol=1e-4)


def test_dropout_is_drawn_anew_from_each_seed_and_absent_in_evaluation() -> None:
    """Neighbouring seeds too share no draws; as many inputs survive as its rate says."""
    drop, linear = Dropout("drop", ("input",), (200, 1, 1), 0.3), Linear("out", ("drop",), (1, 1, 1), "w", None)
    network = Graph((200, 1, 1), (drop, linear), "squared_error")
    inputs, targets = np.ones((160, 200), np.float32), np.zeros((160, 1), np.float32)
    engine = Engine(network, {"w": np.ones((1, 200), np.float32)}, {}, (), 160, OptimizerSettings("sgd"))
    losses = [engine.step(inputs, targets, 0.0, seed) for seed in (5, 6, 7, 5)]
    assert len(set(losses)) == 3
    assert losses[0] == losses[3]
    np.testing.assert_allclose(losses, 200**2 + 200 * 0.3 / 0.7, rtol=0.02)
    assert (engine.forward(inputs) == 200).all()
