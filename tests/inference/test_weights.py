"""Zeros are counted in the weights that a model computes with, wherever they come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize, prune

from ticketsmith.inference.measuring import weights
from ticketsmith.inference.measuring.weights import work
from ticketsmith.inference.tables import layers
from ticketsmith.runtime.onnx.constants import Constants

KEPT = 0.1


class Mask(nn.Module):
    """A mask as a parametrization."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask


class Written(nn.Module):
    """A mask that a forward pass applies by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(32, 32))
        self.register_buffer("mask", torch.rand(32, 32) < KEPT)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, torch.where(self.mask, self.weight, 0.0))


class Steps(nn.Module):
    """A recurrent layer whose parameters hold zeros."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.layer = kind(32, 32, batch_first=True)
        with torch.no_grad():
            for parameter in self.layer.parameters():
                parameter.mul_(torch.rand_like(parameter) < KEPT)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x[:, None].expand(-1, 3, -1))[0]


def pruned(layer: nn.Module) -> nn.Module:
    prune.l1_unstructured(layer, "weight", 1 - KEPT)
    return layer


def parametrized(layer: nn.Linear) -> nn.Module:
    parametrize.register_parametrization(layer, "weight", Mask(torch.rand_like(layer.weight) < KEPT))
    return layer


def normed(layer: nn.Linear) -> nn.Module:
    with torch.no_grad():
        layer.weight.mul_(torch.rand_like(layer.weight) < KEPT)
    return parametrizations.weight_norm(layer)


def tied() -> nn.Module:
    model = nn.Sequential(pruned(nn.Linear(32, 32)), nn.ReLU(), nn.Linear(32, 32))
    model[2] = model[0]
    return model


@pytest.mark.parametrize(
    ("make", "total"),
    [
        (lambda: nn.Sequential(pruned(nn.Linear(32, 32)), nn.ReLU(), pruned(nn.Linear(32, 32))), 2 * 32 * 32),
        (lambda: nn.Sequential(nn.Unflatten(1, (2, 4, 4)), pruned(nn.ConvTranspose2d(2, 40, 5))), 2 * 40 * 25),
        (lambda: parametrized(nn.Linear(32, 32)), 32 * 32),
        (lambda: normed(nn.Linear(32, 32)), 32 * 32),
        (Written, 32 * 32),
        (tied, 32 * 32),
        (lambda: Steps(nn.LSTM), 8 * 32 * 32),
        (lambda: Steps(nn.GRU), 6 * 32 * 32),
    ],
)
def test_zeros_of_weights_as_they_are_computed_with(make: Any, total: int) -> None:
    torch.manual_seed(0)
    model = make().eval()
    found, _ = weights.of_module(model, model, torch.randn(2, 32))
    assert found.total == total
    assert found.sparsity == pytest.approx(1 - KEPT, abs=0.03)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_weights_that_are_packed_are_counted() -> None:
    model = nn.Sequential(pruned(nn.Linear(32, 32)))
    prune.remove(model[0], "weight")
    packed = torch.ao.quantization.quantize_dynamic(model, {nn.Linear})
    found, _ = weights.of_module(packed, packed, torch.randn(3, 32))
    assert found.total == 32 * 32
    assert found.sparsity == pytest.approx(1 - KEPT, abs=0.05)
    assert found.flops == 2 * 3 * found.kept


def test_the_roofline_counts_what_a_mask_leaves() -> None:
    torch.manual_seed(0)
    model, inputs = pruned(nn.Linear(32, 10)), torch.randn(3, 32)
    plain = nn.Linear(32, 10)
    with torch.no_grad():
        plain.weight.copy_(model.weight)
        plain.bias.copy_(model.bias)
    assert work(model, model, inputs) == work(plain, plain, inputs)
    assert work(model, model, inputs).flops == 2 * 3 * 32


def test_a_layer_alone_is_measured_without_its_mask() -> None:
    layer = pruned(nn.Conv2d(2, 3, 3, stride=2))
    made = layers._masked(layer, 0.5)
    with torch.no_grad():
        before = made.weight.clone()
        assert made(torch.ones(1, 2, 5, 5)).shape == (1, 3, 2, 2)
    assert torch.equal(made.weight, before)
    assert int((made.weight == 0).sum()) == 27


def file(nodes: list[onnx.NodeProto], **constants: np.ndarray) -> onnx.ModelProto:
    value = onnx.helper.make_tensor_value_info
    initializers = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = onnx.helper.make_graph(
        nodes, "g", [value("x", 1, ["b", 32])], [value("y", 1, ["b", 32])], initializers
    )  # fmt: skip
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)


def test_constants_of_onnx_are_folded_before_their_zeros_are_counted() -> None:
    chance, node = np.random.default_rng(0), onnx.helper.make_node
    weight = chance.standard_normal((32, 32)).astype(np.float32)
    mask = chance.random((32, 32)) < KEPT
    whole = np.where(mask, chance.integers(1, 9, mask.shape), 3).astype(np.int8)
    scale, point = np.array(0.1, np.float32), np.array(3, np.int8)
    end = node("MatMul", ["x", "m"], ["y"])
    masked = {"w": weight, "k": mask.astype(np.float32)}
    cases = [
        file([node("Mul", ["w", "k"], ["m"]), end], **masked),
        file([node("Where", ["c", "w", "z"], ["m"]), end], w=weight, c=mask, z=np.zeros((), np.float32)),
        file([node("Mul", ["w", "k"], ["m"]), node("Transpose", ["m"], ["t"]), node("Gemm", ["x", "t"], ["y"])], **masked),
        file([node("DequantizeLinear", ["q", "s", "o"], ["m"]), end], q=np.where(mask, whole + 9, 3).astype(np.int8),
             s=scale, o=point),
        file([node("Mul", ["w", "k"], ["m"]), node("MatMul", ["x", "m"], ["h"]), node("MatMul", ["h", "m"], ["y"])], **masked),
    ]  # fmt: skip
    for model in cases:
        found = weights.of_onnx(model, Constants(model, Path()))
        assert found.total == 32 * 32  # also where two nodes read it
        assert found.kept == mask.sum()
