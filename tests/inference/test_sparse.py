"""The sparse runtime hands a network to a dense library that is faster, and says so."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.runtime.networks import ISAS, sparse
from ticketsmith.inference import handover as door
from ticketsmith.inference.sparse import Sparse

pytestmark = pytest.mark.skipif(not ISAS, reason="the kernels are not built")


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5)).eval()


@pytest.mark.parametrize("library_wins", [True, False])
def test_the_faster_one_serves_a_dense_network(library_wins: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(door, "_is_faster", lambda *_: library_wins)
    model, inputs = network(), torch.randn(3, 2, 6, 6)
    runtime = Sparse(tuned=False)
    call = runtime.prepare(model, inputs)
    assert runtime.served_by == ("onnxruntime" if library_wins else "own kernels")
    assert torch.allclose(call(inputs), model(inputs), atol=1e-5)


@pytest.mark.parametrize(
    ("density", "options"), [(0.2, {"handover": False}), (1.0, {"handover": False}), (1.0, {"precision": "int8"})]
)
def test_nothing_else_is_raced(density: float, options: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "_is_faster", lambda *_: pytest.fail("raced"))
    runtime = Sparse(tuned=False, **options)  # type: ignore[arg-type]
    runtime.prepare(sparse(network(), density), torch.randn(1, 2, 6, 6))
    assert runtime.served_by == "own kernels"
