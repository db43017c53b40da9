"""The sparse runtime hands a network to a dense library that is faster, when it is asked to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.runtime.networks import ISAS
from ticketsmith.inference import loaders
from ticketsmith.inference.sparse import Sparse

pytestmark = pytest.mark.skipif(not ISAS, reason="the kernels are not built")


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5)).eval()


def slowed(load: Callable[..., loaders.Arrays]) -> Callable[..., loaders.Arrays]:
    """A loader whose models also multiply large matrices, which takes a hundred times as long."""

    def loaded(*given: Any, **options: Any) -> loaders.Arrays:
        call, busy = load(*given, **options), torch.ones(400, 400)

        def slow(inputs: Any) -> Any:
            torch.mm(busy, busy)
            return call(inputs)

        return slow

    return loaded


@pytest.mark.parametrize(("slow", "served"), [("sparse", ".onnx"), ("onnx_runtime", ".tsk")])
def test_asked_to_hand_over_it_takes_the_faster_one(
    slow: str, served: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loaders, slow, slowed(getattr(loaders, slow)))
    model, inputs = network(), torch.randn(3, 2, 6, 6)
    runtime = Sparse(tuned=False, handover=True)
    assert runtime.deploy(model, inputs, tmp_path).path.suffix == served
    assert torch.allclose(runtime.prepare(model, inputs)(inputs), model(inputs), atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"handover": True, "precision": "int8"}])
def test_else_it_is_measured_as_a_file_would_be_served(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loaders, "sparse", slowed(loaders.sparse))
    runtime = Sparse(tuned=False, **options)
    assert runtime.deploy(network(), torch.randn(1, 2, 6, 6), tmp_path).path.suffix == ".tsk"
