"""Networks as people write them: read from PyTorch and from ONNX, they give what PyTorch gives."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.runtime.networks import ISAS
from tests.runtime.zoo import ZOO, network, noise, tokens
from ticketsmith.native import Isa
from ticketsmith.runtime.from_onnx import from_onnx
from ticketsmith.runtime.from_torch import UnsupportedError, from_torch
from ticketsmith.runtime.graph import Graph
from ticketsmith.runtime.model import Model

pytestmark = pytest.mark.skipif(not ISAS, reason="the kernels are not built")


def assert_answers(
    graph: Graph, module: nn.Module, inputs: tuple[Tensor, ...], isa: Isa | None = None, threads: int = 1
):
    with torch.inference_mode():
        expected = module(*inputs)
    wanted = expected if isinstance(expected, tuple) else (expected,)
    model = Model(graph, isa=isa, threads=threads)
    for _ in range(2):  # scratch memory is used again
        given = model(*(one.numpy() for one in inputs))
        for got, want in zip(given if isinstance(given, tuple) else (given,), wanted, strict=True):
            assert got.shape == want.shape
            np.testing.assert_allclose(got, want.numpy(), rtol=0, atol=1e-4 * max(1e-3, float(want.abs().max())))


@pytest.mark.parametrize("name", ZOO)
def test_read_from_pytorch(name: str) -> None:
    module, inputs = network(name), ZOO[name][1](3)
    graph = from_torch(module, inputs)
    assert_answers(graph, module, inputs, threads=2)
    assert_answers(graph, module, tuple(one[:1] for one in inputs), Isa.PORTABLE)


def exported(module: nn.Module, inputs: tuple[Tensor, ...], path: Path, dynamo: bool) -> Path:
    options = {} if dynamo else {"opset_version": 17}
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # the exporter does not know its operator
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(module, inputs, str(path), dynamo=dynamo, verbose=False, **options)  # type: ignore[arg-type]
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return path


@pytest.mark.parametrize("name", [name for name in ZOO if not name.startswith("rotary")])
def test_read_from_onnx(name: str, tmp_path: Path) -> None:
    module, inputs = network(name), ZOO[name][1](3)
    path = exported(module, tuple(one[:1] for one in inputs), tmp_path / "model.onnx", dynamo=False)
    assert_answers(from_onnx(path), module, inputs)


@pytest.mark.parametrize("name", ["rotary_shared"])
def test_read_from_the_newer_exporter_with_weights_beside_the_model(name: str, tmp_path: Path) -> None:
    module, inputs = network(name), ZOO[name][1](2)
    path = exported(module, tuple(one[:1] for one in inputs), tmp_path / "model.onnx", dynamo=True)
    graph = from_onnx(path)
    assert_answers(graph, module, inputs)
    assert len(graph.nodes) <= len(from_torch(module, inputs).nodes) + 4


def operators(graph: Graph) -> set[str]:
    return {node.op for node in graph.nodes}


def test_a_decoder_is_products_and_what_lies_between_them() -> None:
    graph = from_torch(network("rotary_shared"), ZOO["rotary_shared"][1](1))
    assert operators(graph) == {"embedding", "rms_norm", "linear", "rotary", "attention", "mul"}


@pytest.mark.parametrize(
    "formula",
    [
        lambda x: x * 0.5 * (1.0 + torch.erf(x / 2**0.5)),
        lambda x: 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3))),
        lambda x: x * torch.sigmoid(x),
        lambda x: x * torch.clamp(x + 3, 0, 6) / 6,
    ],
    ids=["gelu", "gelu_tanh", "silu", "hard_swish"],
)
def test_activations_written_as_formulas_become_part_of_the_product_before(formula) -> None:
    class Written(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.last = nn.Linear(9, 20), nn.Linear(20, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(formula(self.layer(x)))

    module = Written().eval()
    graph = from_torch(module, noise(1, 9))
    assert [node.op for node in graph.nodes] == ["linear", "linear"]
    assert_answers(graph, module, (4 * noise(2, 9),))


@pytest.mark.parametrize(
    "formula",
    [
        lambda x: x.clamp(0, 20),
        lambda x: F.silu(x.clamp(-10, 10)),
        lambda x: torch.maximum(x, 1e-5 * x),
    ],
    ids=["clamp", "clamped_silu", "slight_slope"],
)
def test_what_is_an_activation_only_near_zero_is_none(formula) -> None:
    class Written(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return formula(x)

    inputs = torch.tensor([[-1e4, -30.0, -9.5, 0.5, 9.5, 25.0, 1e4]])
    assert_answers(from_torch(Written(), inputs), Written(), (inputs,))


class OverBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0, keepdim=True)


class OverFlattenedBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.reshape(-1).mean()


class SoftmaxOverBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(-1).softmax(0).reshape(-1, 6)


class LinearOverBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(-1) @ torch.ones(6, 6)


class Rounding(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.to(torch.int64).float()


REFUSED = (OverBatch, OverFlattenedBatch, SoftmaxOverBatch, LinearOverBatch, Rounding)


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_computed_for_one_sample_alone_is_refused(kind: type[nn.Module]) -> None:
    with pytest.raises(UnsupportedError, match="dense runtime"):
        from_torch(kind(), noise(3, 6))


def test_values_that_are_changed_in_place_are_the_new_ones() -> None:
    class Added(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x * 2.0
            same = y.view(-1, 2, 3)
            y.add_(1.0)
            y[:, :2] *= 3.0
            y[:, 4] = 7.0
            return torch.relu_(y) + same.sum(2).repeat_interleave(3, 1)

    assert_answers(from_torch(Added(), noise(1, 6)), Added(), (noise(2, 6),))


class Parts(nn.Module):
    """Parts of features, of tokens and of channels, each seen as something flat."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.conv = nn.Linear(5, 7), nn.Conv2d(2, 6, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        tokens = self.layer(x)
        planes = self.conv(tokens.unflatten(1, (2, -1)))
        steps = tokens.transpose(0, 1).unbind(0)
        return (
            tokens[..., 3:4].flatten(1),
            planes[:, 4].flatten(1) + planes[:, 1:2, :, :].flatten(1),
            steps[2] * steps[5],
        )


def test_a_part_that_is_flattened_is_that_part() -> None:
    torch.manual_seed(0)
    module = Parts().eval()
    assert_answers(from_torch(module, noise(1, 6, 5)), module, (noise(3, 6, 5),))


class Recurrent(nn.Module):
    """PyTorch's own recurrent layers, both ways and one upon the other."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.gru = nn.LSTM(5, 4, 2, batch_first=True, bidirectional=True), nn.GRU(8, 6)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.lstm(x)[0]
        made, last = self.gru(y.transpose(0, 1))
        return made.transpose(0, 1), last[-1]


class Towers(nn.Module):
    """A recommender: a table for each column of one input, bags of items, and one number as the answer."""

    def __init__(self) -> None:
        super().__init__()
        self.tables, self.bag = nn.ModuleList(nn.Embedding(30, 4) for _ in range(3)), nn.EmbeddingBag(30, 6)
        self.user, self.item = nn.Linear(14, 5), nn.Linear(6, 5)

    def forward(self, columns: Tensor, items: Tensor, numbers: Tensor) -> Tensor:
        known = [table(columns[:, place]) for place, table in enumerate(self.tables)]
        user, item = self.user(torch.cat([*known, numbers], 1)), self.item(self.bag(items))
        return F.cosine_similarity(user, item)


class Resized(nn.Module):
    """Sizes that do not divide each other, edges that are continued, neighbouring channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 6, 3, padding=1, padding_mode="circular"), nn.LocalResponseNorm(3)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.norm(F.pad(F.relu_(self.conv(x)), (1, 2, 3, 1), mode="reflect"))
        return (
            F.adaptive_avg_pool2d(x, (3, 5)),
            F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False),
            F.interpolate(x, scale_factor=1.5),
            F.interpolate(x, size=(7, 11), mode="bilinear", align_corners=True),
            F.interpolate(x, scale_factor=0.7, mode="bicubic"),
            x.std((2, 3)) + x.flip(2).cumsum(3).amin((2, 3)),
        )


@pytest.mark.parametrize(
    ("kind", "inputs"),
    [
        (Recurrent, (noise(2, 6, 5),)),
        (Towers, (tokens(3, 3), tokens(3, 7), noise(3, 2))),
        (Resized, (noise(2, 2, 9, 13),)),
    ],
)
def test_operators_that_pytorch_takes_apart(kind: type[nn.Module], inputs: tuple[Tensor, ...]) -> None:
    torch.manual_seed(0)
    module = kind().eval()
    assert_answers(from_torch(module, inputs), module, inputs)


class Options(nn.Module):
    """Arguments that are seldom given."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(
            [
                torch.ops.aten.elu(x, 1.3, 1.1, 0.4), F.celu(x, 2.5), torch.rsub(x, x * x, alpha=0.5),
                F.softplus(x, 2, threshold=1.0), F.leaky_relu(x, 0.3), F.hardtanh(x, -0.5, 2.0), F.threshold(x, 0.2, -1.0),
                F.gelu(x, approximate="tanh"), torch.add(x, x * x, alpha=2), F.dropout(x, 0.5, training=False),
            ],
            1,
        )  # fmt: skip


def test_arguments_are_not_ignored() -> None:
    x = 3 * noise(3, 9)
    assert_answers(from_torch(Options(), x), Options(), (x,))


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (lambda x: F.dropout(x, 0.5, training=True), "dropout in training mode"),
        (lambda x: x.type_as(torch.zeros(1, dtype=torch.int64)) * 2, "rounding to torch.int64"),
        (lambda x: x.sum(-1, dtype=torch.int64), "rounding to torch.int64"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(function, told: str) -> None:
    class Called(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return function(x)

    with pytest.raises(UnsupportedError, match=told):
        from_torch(Called(), noise(2, 4))


def test_a_place_that_a_table_does_not_have_is_not_a_number() -> None:
    """Where places are a part of an input, the tokens are not checked before."""
    model = Model(from_torch(Towers().eval(), (tokens(1, 3), tokens(1, 7), noise(1, 2))))
    assert np.isnan(model(np.full((1, 3), 30), np.zeros((1, 7), np.int64), np.zeros((1, 2), np.float32))).all()


def test_pretrained_kinds_of_models_from_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    small = {
        "vocab_size": 40,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
    }
    tokens = torch.randint(0, 40, (2, 12))
    mask = torch.ones_like(tokens)
    mask[1, 7:] = 0
    gpt = transformers.GPT2Config(vocab_size=40, n_positions=16, n_embd=32, n_layer=2, n_head=4, use_cache=False)
    for module, inputs in (
        (transformers.GPT2LMHeadModel(gpt), {"input_ids": tokens}),
        (
            transformers.LlamaForCausalLM(transformers.LlamaConfig(**small, num_key_value_heads=2, use_cache=False)),
            {"input_ids": tokens},
        ),
        (transformers.BertModel(transformers.BertConfig(**small)), {"input_ids": tokens, "attention_mask": mask}),
    ):
        model = Model(from_torch(module.eval(), inputs))
        with torch.inference_mode():
            expected = module(**inputs)[0].numpy()
        given = model(*(one.numpy() for one in inputs.values()))
        first = given[0] if isinstance(given, tuple) else given
        np.testing.assert_allclose(first, expected, rtol=0, atol=1e-4 * float(np.abs(expected).max()))
        if len(inputs) == 1:
            session = model.session(batch=2)
            parts = [session(tokens[:, :5].numpy()), session(tokens[:, 5:].numpy())]
            np.testing.assert_allclose(np.concatenate(parts, 1), first, atol=1e-4)
