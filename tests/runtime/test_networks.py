"""Networks as people write them: read from PyTorch and from ONNX, they give what PyTorch gives."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.runtime.networks import ISAS
from tests.runtime.zoo import ZOO, network, noise
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


class OverBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0, keepdim=True)


class InPlace(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x = x * 2.0
        x[:, :2].add_(1.0)
        return x


class Rounding(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.to(torch.int64).float()


@pytest.mark.parametrize("module", [OverBatch(), InPlace(), Rounding()], ids=lambda one: type(one).__name__)
def test_what_cannot_be_computed_for_one_sample_alone_is_refused(module: nn.Module) -> None:
    with pytest.raises(UnsupportedError, match="dense runtime"):
        from_torch(module, noise(3, 6))


def test_values_that_are_changed_in_place_are_the_new_ones() -> None:
    class Added(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x * 2.0
            y.add_(1.0)
            return torch.relu_(y) + y

    assert_answers(from_torch(Added(), noise(1, 6)), Added(), (noise(2, 6),))


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
