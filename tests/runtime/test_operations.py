"""Every operation, format and instruction set gives what PyTorch gives, for shapes that nobody chose."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from tests.runtime.networks import ISAS, Block, assert_same, sparse
from ticketsmith.runtime import formats
from ticketsmith.runtime.calibrate import calibrated
from ticketsmith.runtime.from_torch import from_torch
from ticketsmith.runtime.model import Model
from ticketsmith.runtime.tune import tune

pytestmark = pytest.mark.skipif(not ISAS, reason="the kernels are not built")
SOME = settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
FEW = settings(SOME, max_examples=6)
DENSITIES = st.sampled_from([0.0, 0.05, 0.3, 1.0])

POOLS = [
    nn.MaxPool2d(2),
    nn.AvgPool2d(2),
    nn.MaxPool2d(3, 2, 1),
    nn.AvgPool2d(3, 2, 1),
    nn.AvgPool2d(3, 1, 1, count_include_pad=False),
    nn.MaxPool2d((1, 3), (2, 1)),
    nn.AdaptiveAvgPool2d(1),
    nn.AdaptiveMaxPool2d(1),
    nn.AdaptiveAvgPool2d((4, 11)),
]
LAYERS = [
    nn.ConvTranspose2d(3, 4, 3, 2, 1, 1),
    nn.ConvTranspose2d(3, 6, (2, 5), groups=3, dilation=2),
    nn.MaxPool2d(2, ceil_mode=True),
    nn.Softmax(1),
    nn.LayerNorm((3, 9, 11)),
    nn.GroupNorm(3, 3),
    nn.InstanceNorm2d(3, affine=True),
    nn.Upsample(scale_factor=(2, 3)),
    nn.Upsample(scale_factor=2, mode="bilinear"),
    nn.Hardswish(),
    nn.Softplus(),
    nn.Softplus(beta=2),
    nn.ReflectionPad2d(1),
    nn.AvgPool2d(2, 2, 1, ceil_mode=True, count_include_pad=False),
    nn.Mish(),
    nn.SELU(),
    nn.LogSoftmax(3),
    nn.ZeroPad2d((1, -2, 3, 0)),
]


def images(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def each(kind: str, *outputs: str) -> list[dict[str, str]]:
    """Every format of a kind of product in turn, as the choice for these values."""
    return [dict.fromkeys((f"{kind}:{output}" for output in outputs), name) for name in formats.candidates(kind)]


@SOME
@given(inputs=st.integers(1, 200), outputs=st.integers(1, 70), density=DENSITIES, bias=st.booleans())
def test_products_with_a_vector(inputs: int, outputs: int, density: float, bias: bool) -> None:
    torch.manual_seed(inputs)
    layer = sparse(nn.Linear(inputs, outputs, bias=bias), density or 1e-9)
    assert_same(nn.Sequential(layer, nn.ReLU()), images(3, inputs), ISAS, each("vector", "relu"))


def test_products_of_more_weights_than_a_cache_holds() -> None:
    torch.manual_seed(0)
    assert_same(sparse(nn.Linear(1101, 301), 0.5), images(2, 1101), ISAS, each("vector", "linear"))


@SOME
@given(inputs=st.integers(1, 90), outputs=st.integers(1, 40), density=DENSITIES, batch=st.integers(8, 70))
def test_products_with_a_batch(inputs: int, outputs: int, density: float, batch: int) -> None:
    torch.manual_seed(inputs)
    layer = sparse(nn.Linear(inputs, outputs), density or 1e-9)
    model = nn.Sequential(layer, nn.Tanh(), nn.Linear(outputs, 5))
    assert_same(model, images(batch, inputs), ISAS, each("lanes", "tanh", "linear_1"))


@SOME
@given(
    data=st.data(),
    channels=st.integers(1, 9),
    outputs=st.integers(1, 9),
    size=st.tuples(st.integers(1, 20), st.integers(1, 36)),
    density=DENSITIES,
)
def test_convolutions(data: st.DataObject, channels: int, outputs: int, size: tuple[int, int], density: float) -> None:
    kernel = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    stride = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    padding = data.draw(st.tuples(st.integers(0, 4), st.integers(0, 4)))
    dilation = data.draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    spans = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    if any(n + 2 * p < s for n, p, s in zip(size, padding, spans, strict=True)):
        return
    torch.manual_seed(channels)
    layer = nn.Conv2d(channels, outputs, kernel, stride, padding, dilation)
    assert_same(sparse(layer, density or 1e-9), images(2, channels, *size), ISAS, each("planes", "conv2d"))


class Small(nn.Module):
    """Small images: what reads them where they are, with strides and in groups, pools, a residual, and vectors at the end."""

    def __init__(self, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, kernel, stride, padding)
        self.same, self.depthwise = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8)
        self.pools = nn.ModuleList([nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(2, 2, 1, count_include_pad=False)])
        self.last = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.sigmoid(self.first(x))  # of padding it is not zero: what follows shows whether padding was kept
        x = F.relu(self.same(x) + x) * self.depthwise(x)
        for pool in self.pools:
            x = pool(x)
        return self.last(x.mean((2, 3)))


@FEW
@given(
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    size=st.tuples(st.integers(5, 14), st.integers(5, 14)),
    density=DENSITIES,
    batch=st.integers(12, 40),
)
def test_small_images_of_a_batch(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    size: tuple[int, int],
    density: float,
    batch: int,
) -> None:
    torch.manual_seed(batch)
    model = sparse(Small(kernel, stride, padding), density or 1e-9)
    inputs = images(batch, 3, *size)
    graph = from_torch(model, inputs)
    assert_same(model, inputs, ISAS, each("lanes", *(node.output for node in graph.nodes)), graph=graph)


@pytest.mark.parametrize("padding", [0, 1])
def test_small_images_of_a_batch_are_given_and_flattened(padding: int) -> None:
    convolution = sparse(nn.Conv2d(4, 6, 3, padding=padding), 0.5)
    assert_same(convolution, images(20, 4, 7, 9), ISAS)
    flat = 6 * (5 + 2 * padding) * (7 + 2 * padding)
    assert_same(nn.Sequential(convolution, nn.Flatten(), nn.Linear(flat, 3)), images(33, 4, 7, 9), ISAS)
    wide = nn.Conv2d(4, 4, 3, padding=padding)  # too large for lanes
    assert_same(nn.Sequential(wide, nn.MaxPool2d(4), convolution), images(20, 4, 36, 40), ISAS)


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (7, 1), (3, 2)])
@pytest.mark.parametrize("cols", [63, 100, 260])
def test_convolutions_of_rows_longer_than_a_tile(kernel: int, stride: int, cols: int) -> None:
    layer = nn.Conv2d(3, 4, kernel, stride, padding=kernel // 2)
    assert_same(sparse(layer, 0.4), images(1, 3, 5, cols), ISAS, each("planes", "conv2d"))


@pytest.mark.parametrize("size", [(32, 32), (7, 7), (30, 4)])
def test_convolutions_of_more_planes_than_the_first_cache_holds(size: tuple[int, int]) -> None:
    module = nn.Sequential(nn.Conv2d(150, 11, 3, padding=1), nn.GELU(), nn.Conv2d(11, 3, 3, padding=1))
    assert_same(sparse(module, 0.1), images(1, 150, *size), ISAS, each("planes", "gelu"))


class Down(nn.Module):
    """Convolutions of two sizes which read the same image with a stride."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.first, self.stride = nn.Conv2d(3, 6, 3, padding=1), stride
        self.wide, self.narrow = nn.Conv2d(6, 8, 5, stride, padding=2), nn.Conv2d(6, 8, 1, stride)
        self.last = nn.Conv2d(8, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        return self.last(torch.relu(self.wide(x) + self.narrow(x)))


@pytest.mark.parametrize("stride", [2, 3])
@pytest.mark.parametrize("size", [(16, 16), (31, 28), (9, 45)])
def test_what_several_convolutions_read_with_a_stride(stride: int, size: tuple[int, int]) -> None:
    assert_same(sparse(Down(stride), 0.3), images(2, 3, *size), ISAS)


@pytest.mark.parametrize(("groups", "stride"), [(2, 1), (6, 1), (6, 2), (3, 3)])
@pytest.mark.parametrize("size", [(17, 19), (16, 16), (8, 8), (7, 30), (64, 32)])
def test_grouped_and_depthwise_convolutions(groups: int, stride: int, size: tuple[int, int]) -> None:
    first, layer = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 12, 3, stride, padding=1, groups=groups)
    # a sigmoid of padding is not zero: what follows shows whether padding was kept
    model = nn.Sequential(first, nn.Sigmoid(), layer, nn.Sigmoid(), nn.Conv2d(12, 5, 3, padding=1))
    assert_same(sparse(model, 0.3), images(2, 6, *size), ISAS)


class Residual(nn.Module):
    """Two images of one size, made in different ways, meet."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(4, 8, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 5, padding=2),
        )
        self.shortcut = nn.Conv2d(4, 8, 1, stride)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.body(x) + self.shortcut(x))
        # a sigmoid of padding is not zero: what follows shows whether padding was kept
        return self.body[3](torch.sigmoid(self.norm(x) * 2.0 - 0.5)) * x


@pytest.mark.parametrize("stride", [1, 2])
def test_residuals_activations_and_norms_leave_padding_alone(stride: int) -> None:
    assert_same(sparse(Residual(stride), 0.4), images(3, 4, 15, 18), ISAS)


@pytest.mark.parametrize("pool", POOLS, ids=str)
def test_pools(pool: nn.Module) -> None:
    before = nn.Conv2d(2, 5, 3, padding=1)
    assert_same(nn.Sequential(before, pool), images(2, 2, 16, 33), ISAS)
    assert_same(nn.Sequential(before, pool, nn.Flatten()), images(9, 2, 16, 33), ISAS)
    if pool(before(images(1, 2, 16, 33))).numel() > 5:
        assert_same(nn.Sequential(before, pool, nn.Conv2d(5, 3, 3, padding=1)), images(2, 2, 16, 33), ISAS)


@pytest.mark.parametrize(
    "activation",
    [nn.ReLU(), nn.GELU(), nn.GELU("tanh"), nn.SiLU(), nn.Sigmoid(), nn.Tanh(), nn.ReLU6(), nn.Softmax(-1)],
    ids=str,
)
@pytest.mark.parametrize("batch", [1, 20])
def test_activations(activation: nn.Module, batch: int) -> None:
    inputs = 12 * images(batch, 37)
    assert_same(nn.Sequential(nn.Linear(37, 37), activation, nn.Linear(37, 3)), inputs, ISAS)
    assert_same(nn.Sequential(activation, nn.Linear(37, 3)), inputs, ISAS)


@pytest.mark.parametrize("tokens", [1, 7, 16, 70])
@pytest.mark.parametrize("causal", [True, False])
def test_transformer_blocks(tokens: int, causal: bool) -> None:
    torch.manual_seed(0)
    assert_same(sparse(Block(48, 3, causal), 0.3), images(2, tokens, 48), ISAS)


@pytest.mark.parametrize("batch", [1, 20])
def test_vectors_are_normalised(batch: int) -> None:
    model = nn.Sequential(nn.LayerNorm(37), nn.Linear(37, 21), nn.LayerNorm(21), nn.Linear(21, 4), nn.Softmax(-1))
    assert_same(model, images(batch, 37), ISAS)


@pytest.mark.parametrize(("precision", "tolerance"), [("bfloat16", 1e-2), ("int8", 3e-2)])
def test_low_precision_weights_are_near(precision: str, tolerance: float) -> None:
    torch.manual_seed(0)
    model = sparse(nn.Sequential(nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 30)), 0.2)
    choices = each("vector", "relu", "linear_1")
    assert_same(model, images(1, 300), ISAS, choices, tolerance=tolerance, precision=precision)


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(30, 50), nn.Linear(50, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(F.gelu(self.first(x)))


@pytest.mark.parametrize(
    ("layers", "shape"),
    [
        ([nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 9, 3, padding=1)], (8, 6, 7)),
        ([nn.Conv2d(4, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 8, 5, padding=2)], (4, 9, 28)),
        ([nn.Conv2d(4, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, 9, 3)], (4, 5, 70)),
        ([nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(12, 8, 1, stride=2)], (8, 33, 33)),
        ([nn.Conv2d(8, 16, 3, padding=1, groups=2), nn.ReLU(), nn.Conv2d(16, 6, 3, 2, groups=2)], (8, 12, 12)),
        ([nn.Linear(45, 70), nn.ReLU(), nn.Linear(70, 10)], (45,)),
        ([Tokens()], (19, 30)),
        ([nn.Conv2d(4, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(288, 9)], (4, 14, 14)),
        ([nn.Conv2d(4, 9, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(2754, 9), nn.ReLU()], (4, 17, 18)),
    ],
    ids=[
        "small",
        "rows of two vectors",
        "longer rows",
        "strides",
        "groups",
        "features",
        "tokens",
        "pooled",
        "flattened",
    ],
)
def test_planes_of_whole_numbers_are_near(layers: list[nn.Module], shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model = sparse(nn.Sequential(*layers), 0.5)
    graph = from_torch(model, images(1, *shape))
    choices = [
        {f"{mode}:{node.output}": name for node in graph.nodes for mode in ("planes", "lanes")}
        for name in formats.WHOLE_FORMATS
    ]
    for batch in (1, 20):
        inputs = images(batch, *shape)
        known = calibrated(graph, [inputs.numpy()])
        assert_same(model, inputs, ISAS, choices, (1, 2), 3e-2, "int8_dot", known)
        last = assert_same(model, inputs, ISAS, choices, (1, 2), 3e-2, "int8_dot", graph)
        answers = last(inputs)
        others = 100 * inputs
        others[-1] = inputs[-1]
        assert (last(others)[-1] == answers[-1]).all()  # what else is in a batch changes nothing
        assert (answers != Model(graph)(inputs)).any()  # it was rounded


@pytest.mark.parametrize("causal", [False, True])
def test_attention_of_whole_numbers_is_near_and_hides_nothing_that_is_not_finite(causal: bool) -> None:
    torch.manual_seed(0)
    model, inputs = sparse(Block(48, 3, causal), 0.5), torch.randn(2, 37, 48)
    graph = from_torch(model, inputs)
    (choice,) = [one.key for one in tune(graph, precision="int8_dot", rounds=1) if one.key.startswith("attention:")]
    last = assert_same(model, inputs, ISAS, [{choice: "attention_dot"}], (1, 2), 3e-2, "int8_dot", graph)
    assert (last(inputs) != Model(graph, precision="int8_dot")(inputs)).any()
    inputs[0, 30, 5] = torch.inf
    answers = last(inputs)
    assert np.isnan(answers[0, 30:]).any(-1).all()
    assert np.isfinite(answers[1]).all()


@pytest.mark.parametrize("module", LAYERS, ids=str)
def test_other_layers(module: nn.Module) -> None:
    inputs = images(2, 3, 9, 11)
    assert_same(module.eval(), inputs, ISAS)
    wide = module(inputs).shape[1]
    assert_same(nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), module, nn.Conv2d(wide, 2, 3)).eval(), inputs, ISAS)


class Arrays(nn.Module):
    """Permutes, joins, broadcasts and products of values, for shapes that nobody chose."""

    def forward(self, x: Tensor) -> Tensor:
        batch, a, _, _ = x.shape
        turned = x.permute(0, 3, 1, 2)
        joined = torch.cat([turned, turned[:, :, :, :1] - x.amax((1, 2), keepdim=True).permute(0, 3, 1, 2)], 3)
        square = joined @ joined.transpose(2, 3) / (1 + joined.abs().sum((2, 3), keepdim=True))
        picked = torch.where(square > square.mean(-1, keepdim=True), square, -square[:, :1])
        return (
            (picked.reshape(batch, a, -1) * torch.linspace(0, 1, a)[:, None]).flatten(1)[:, ::2].unflatten(1, (-1, 1))
        )


@FEW
@given(shape=st.tuples(st.integers(1, 5), st.integers(1, 20), st.integers(1, 20)))
def test_arrays_of_any_shape(shape: tuple[int, int, int]) -> None:
    assert_same(Arrays(), images(2, *shape), ISAS)


def test_not_a_number_is_not_hidden() -> None:
    inputs = images(1, 64)
    inputs[0, 3] = float("nan")
    model = assert_same(nn.Sequential(nn.Linear(64, 16), nn.ReLU()), images(1, 64))
    assert torch.isnan(torch.from_numpy(model(inputs.numpy()))).all()
