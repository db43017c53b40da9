"""What outputs are compared with: float64 where it can be had, by a name that is true; on inputs that a model can take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn.utils import prune

from ticketsmith.inference import sources
from ticketsmith.inference.measuring import exact
from ticketsmith.inference.measuring.agreement import Reference, WrongOutputError, judged
from ticketsmith.inference.measuring.lineup import line_up
from ticketsmith.inference.measuring.workload import Workload
from ticketsmith.inference.runtimes.dense_library import OnnxRuntime
from ticketsmith.runtime.onnx.probes import ranges


def test_a_runtime_that_is_nearer_to_float64_than_the_library_is_not_refused() -> None:
    truth = torch.linspace(-1, 1, 50, dtype=torch.float64)
    reference = Reference(truth.float() + 1e-3, "ONNX Runtime", truth, exact.ONNX)
    assert judged(reference, truth.float(), 1e-4, "ours") < 1e-6
    assert judged(reference, truth.float() + 1e-3, 1e-4, "the library") == pytest.approx(1e-3, rel=1e-3)
    with pytest.raises(
        WrongOutputError, match=r"other outputs than ONNX Runtime.* 0\.01, ONNX Runtime itself by 0\.001"
    ):
        judged(reference, truth.float() + 1e-2, 1e-4, "another")


def test_a_library_that_is_far_off_does_not_let_everything_pass() -> None:
    truth = torch.linspace(-1, 1, 50, dtype=torch.float64)
    reference = Reference(truth.float() + 0.5, "ONNX Runtime", truth, exact.ONNX)
    with pytest.raises(WrongOutputError):
        judged(reference, torch.zeros(50), 1e-4, "nothing")
    assert judged(reference, truth.float() + 0.5, 1e-4, "the library itself") == pytest.approx(0.5)


def test_without_float64_the_library_is_named() -> None:
    reference = Reference(torch.ones(3), "eager PyTorch")
    assert reference.name == "eager PyTorch in float32"
    with pytest.raises(WrongOutputError, match="other outputs than eager PyTorch"):
        judged(reference, torch.full((3,), float("nan")), 1e-4, "broken")


class Cancelling(nn.Module):
    """Large numbers that cancel: float32 leaves little of what is between them."""

    def forward(self, x: Tensor) -> Tensor:
        return (x + 1e4) - 1e4


def test_pytorch_in_float64_leaves_a_model_as_it_is() -> None:
    layer = nn.Linear(4, 4)
    prune.l1_unstructured(layer, "weight", 0.5)
    model, inputs = nn.Sequential(layer, nn.BatchNorm1d(4), Cancelling()).eval(), torch.randn(3, 4)
    found = exact.of_module(model, inputs)
    assert found is not None
    assert found.dtype == torch.float64
    assert 1e-6 < (found - model(inputs).double()).abs().max() < 1e-2
    assert layer.weight_orig.dtype == torch.float32

    class Own(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x @ torch.ones(4, 4, dtype=torch.float32)

    assert exact.of_module(Own(), inputs) is None

    class Norm(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * x.float().pow(2).mean(-1, keepdim=True).rsqrt().type_as(x)

    assert exact.of_module(nn.Sequential(nn.Linear(4, 4), Norm()), inputs) is None, "a part of it is float32"


def file(
    path: Path, nodes: list[Any], shape: list[Any], kind: int = 1, out: list[Any] | None = None, **weights: Any
) -> Path:
    value = onnx.helper.make_tensor_value_info
    kept = [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()]
    outputs = [value("y", 1, out or ["b", "n"])]
    graph = onnx.helper.make_graph(nodes, "g", [value("x", kind, shape)], outputs, kept)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(path))
    return path


node = onnx.helper.make_node


def test_onnx_in_float64_keeps_all_digits(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((2, 3, 3, 3)).astype(np.float32)
    nodes = [
        node("Conv", ["x", "w"], ["c"], pads=[1, 0, 1, 2], strides=[2, 1]), node("Cast", ["c"], ["k"], to=1),
        node("Add", ["k", "o"], ["a"]), node("Sub", ["a", "o"], ["s"]), node("ReduceMean", ["s"], ["y"], axes=[2, 3], keepdims=0),
    ]  # fmt: skip
    path = file(tmp_path / "net.onnx", nodes, ["b", 3, 7, 6], w=weight, o=np.array(1e4, np.float32))
    inputs = torch.randn(2, 3, 7, 6)
    found = exact.of_onnx(path, inputs, 60.0)
    padded = nn.functional.pad(inputs.double(), (0, 2, 1, 1))
    wanted = nn.functional.conv2d(padded, torch.from_numpy(weight).double(), stride=(2, 1)).mean((2, 3))
    assert found is not None
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)
    assert exact.of_onnx(path, inputs, -1.0) is None


def test_an_onnx_file_is_compared_with_what_is_named(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)
    path = file(tmp_path / "net.onnx", [node("MatMul", ["x", "w"], ["y"])], [-1, 4], w=weight)
    found, inputs = sources.of_onnx(str(path), None)
    rivals, refusals = line_up([(found, OnnxRuntime())], Workload(inputs(3), 3), lambda: inputs(3))
    assert not refusals
    assert rivals[0].compared_with == "ONNX's reference in float64"


def test_whole_numbers_come_from_the_tables_that_they_are_places_of(tmp_path: Path) -> None:
    table = np.random.default_rng(0).standard_normal((50, 3)).astype(np.float32)
    nodes = [node("Cast", ["x"], ["i"], to=7), node("Unsqueeze", ["i", "a"], ["u"]), node("Gather", ["t", "u"], ["e"]),
             node("ReduceSum", ["e", "s"], ["y"], keepdims=0)]  # fmt: skip
    path = file(tmp_path / "net.onnx", nodes, ["b", 16], 6, t=table, a=np.array([2]), s=np.array([2, 3]))
    assert ranges(onnx.load(str(path))) == {"x": 50}
    tokens = sources.of_onnx(str(path), None)[1](64)
    assert tokens.dtype == torch.int32
    assert (int(tokens.min()), int(tokens.max())) == (0, 49)
    nodes = [
        node("Cast", ["x"], ["f"], to=1),
        node("ReduceMean", ["f"], ["m"], axes=[1]),
        node("Div", ["f", "m"], ["y"]),
    ]
    masks = sources.of_onnx(str(file(tmp_path / "mask.onnx", nodes, ["b", 6], 7)), None)[1](32)
    assert set(masks.unique().tolist()) == {0, 1}
    assert (masks[:, 0] == 1).all()  # a mask of zeros alone is 0 / 0


class Words(nn.Module):
    """A model of tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places, self.head = nn.Embedding(70, 4), nn.Embedding(8, 4), nn.Linear(4, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head((self.words(tokens) + self.places(torch.arange(tokens.shape[1]))).mean(1))


def test_a_model_of_tokens_is_given_tokens() -> None:
    _, inputs = sources.of_module("tests.inference.test_references:Words", (8,))
    tokens = inputs(64)
    assert tokens.dtype == torch.int64
    assert (int(tokens.min()), int(tokens.max())) == (0, 69)
