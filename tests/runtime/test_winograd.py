"""Convolutions by Winograd's minimal filtering give what PyTorch gives, wherever tiles end."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.runtime.networks import ISAS, assert_same, sparse
from ticketsmith.native import abi
from ticketsmith.runtime.compiler import compile_graph
from ticketsmith.runtime.from_torch import from_torch
from ticketsmith.runtime.graph import Graph
from ticketsmith.runtime.model import Model
from ticketsmith.runtime.tune import tune

pytestmark = pytest.mark.skipif(not ISAS, reason="the kernels are not built")
SOME = settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
ACTIVATIONS = {"conv2d": nn.Identity(), "relu": nn.ReLU(), "relu6": nn.ReLU6(), "gelu": nn.GELU()}
TOLERANCE = 1e-5


def images(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def everywhere(graph: Graph) -> dict[str, str]:
    """The choice of it for all products."""
    return {f"planes:{node.output}": "winograd" for node in graph.nodes}


def uses(graph: Graph) -> int:
    """How many operations of it there are when it is asked for everywhere."""
    made = compile_graph(graph, choices=everywhere(graph))
    return sum(isinstance(operation, abi.Winograd) for operation in made.operations)


def assert_exact(module: nn.Module, inputs: Tensor, graph: Graph, threads: int = 1) -> None:
    assert_same(module, inputs, ISAS, [everywhere(graph)], [threads], TOLERANCE, graph=graph)


@SOME
@given(
    channels=st.integers(1, 40),
    outputs=st.integers(1, 90),
    size=st.tuples(st.integers(1, 36), st.integers(1, 36)),
    padding=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    bias=st.booleans(),
    activation=st.sampled_from(sorted(ACTIVATIONS)),
    batch=st.integers(1, 3),
    threads=st.integers(1, 3),
)
def test_any_size_and_padding(
    channels: int,
    outputs: int,
    size: tuple[int, int],
    padding: tuple[int, int],
    bias: bool,
    activation: str,
    batch: int,
    threads: int,
) -> None:
    if any(n + 2 * p < 3 for n, p in zip(size, padding, strict=True)):
        return
    torch.manual_seed(channels)
    layer = nn.Conv2d(channels, outputs, 3, padding=padding, bias=bias)
    model = nn.Sequential(layer, ACTIVATIONS[activation]).eval()
    inputs = images(batch, channels, *size)
    graph = from_torch(model, inputs)
    assert uses(graph)
    assert_exact(model, inputs, graph, threads)


@pytest.mark.parametrize(("size", "threads"), [((50, 70), 2), ((9, 1000), 1)])
def test_images_of_several_parts(threads: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    layer, inputs = nn.Conv2d(48, 17, 3, padding=1).eval(), images(1, 48, *size)
    graph = from_torch(layer, inputs)
    assert uses(graph) > 2
    assert_exact(layer, inputs, graph, threads)


class Residual(nn.Module):
    """Values that are not zero where padding is, a residual, padding on one side only, and a vector at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(5, 20, 3, padding=1), nn.Conv2d(20, 20, 3, padding=1)
        self.wide, self.inner = nn.Conv2d(20, 6, 5, padding=2), nn.Conv2d(6, 7, 3)
        self.last = nn.LazyLinear(3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.sigmoid(self.first(x))
        x = torch.relu(self.second(x) + x)
        x = self.inner(nn.functional.pad(torch.sigmoid(self.wide(x)), (2, 0, 0, 1)))
        return self.last(x.flatten(1))


@pytest.mark.parametrize("size", [(32, 32), (13, 18), (8, 8), (6, 5)])
@pytest.mark.parametrize("batch", [1, 9])
def test_what_lies_between_others(size: tuple[int, int], batch: int) -> None:
    torch.manual_seed(0)
    inputs, model = images(batch, 5, *size), Residual()
    model(inputs)  # the size of the last layer
    model = sparse(model, 0.7)
    graph = from_torch(model, inputs)
    assert_same(model, inputs, ISAS, [{}, everywhere(graph)], graph=graph)


@pytest.mark.parametrize("size", [(30, 33), (7, 7), (9, 12)])
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_not_a_number_reaches_what_reads_it_and_is_gone_with_the_next_call(size: tuple[int, int], padding: int) -> None:
    torch.manual_seed(0)
    layer, good = nn.Conv2d(18, 21, 3, padding=padding).eval(), images(1, 18, *size)
    bad = good.clone()
    bad[0, 3, 2, 4] = float("nan")
    graph = from_torch(layer, good)
    with torch.inference_mode():
        expected, spoilt = layer(good).numpy(), layer(bad).numpy()
    for isa in ISAS:
        model = Model(graph, everywhere(graph), isa=isa)
        found = model(bad.numpy())
        assert np.isnan(found)[np.isnan(spoilt)].all(), isa
        row, column = np.nonzero(np.isnan(found).any(axis=(0, 1)))
        for where, place in ((row, 2), (column, 4)):  # no farther than the tiles that read it
            assert np.abs(where - (place + padding - 1)).max() <= 5, isa
        model(np.full_like(good.numpy(), np.nan))
        np.testing.assert_allclose(model(good.numpy()), expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 8, 3, 2, padding=1),
        nn.Conv2d(4, 8, 3, padding=2, dilation=2),
        nn.Conv2d(4, 8, 3, padding=1, groups=2),
        nn.Conv2d(4, 8, (3, 5), padding=(1, 2)),
        nn.Conv2d(4, 8, (3, 1)),
    ],
)
def test_other_convolutions_are_computed_in_other_formats(layer: nn.Module) -> None:
    inputs = images(2, 4, 20, 20)
    graph = from_torch(layer, inputs)
    assert not uses(graph)
    assert_same(layer, inputs, choices=[everywhere(graph)], graph=graph)


def test_rows_of_too_many_tiles_are_computed_in_other_formats() -> None:
    layer, inputs = nn.Conv2d(1, 2, 3, padding=1), images(1, 1, 3, 1100)
    graph = from_torch(layer, inputs)
    assert not uses(graph)
    assert_same(layer, inputs, choices=[everywhere(graph)], graph=graph)


def test_it_is_measured_where_it_can_be_used() -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, 2)).eval()
    first, second = tune(from_torch(model, images(1, 4, 20, 20)), rounds=1, batches=())
    assert "winograd" in first.seconds
    assert "winograd" not in second.seconds
