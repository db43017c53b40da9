"""The sparse runtime among the others: what a dense library does faster is handed to it, and said."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.runtime.networks import ISAS, instant
from ticketsmith.inference.measuring.lineup import Candidate
from ticketsmith.inference.measuring.measure import Contest, measure
from ticketsmith.inference.runtimes import ArrayCall
from ticketsmith.inference.runtimes.sparse import Sparse
from ticketsmith.inference.settings import BenchmarkSettings
from ticketsmith.inference.tables.table import rows, summary

pytestmark = pytest.mark.skipif(not ISAS, reason="the kernels are not built")


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 144, 10)).eval()


def test_a_benchmark_says_whose_kernels_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ticketsmith.runtime.handover.session", instant)
    dense = Candidate("dense", 0, 0, "key", 0.0, network())
    own = Sparse(handover=False)
    own.name = "own"
    found = measure(
        Contest(dense, [], lambda size: torch.randn(size, 64, 12, 12)),
        [Sparse(), own],
        BenchmarkSettings(batch_sizes=(2,), rounds=3),
    )
    handed, kept = found.timings
    assert handed.handed_to in ("onnxruntime", "openvino")
    assert kept.handed_to == ""
    assert handed.median_ms < kept.median_ms
    assert [row[3] for row in rows(found.timings)] == [f"sparse (by {handed.handed_to})", "own"]
    assert summary(found)["best"][0]["handed_to"] == handed.handed_to
    assert found.machine["handed over"] == (
        f"sparse gave whole models to {handed.handed_to} at batch size 2, since that was faster there."
    )


@pytest.mark.parametrize("options", [{"tuned": False}, {"precision": "int8"}, {"handover": False}])
def test_where_that_is_not_measured_our_kernels_compute(
    options: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ticketsmith.runtime.handover.session", instant)
    inputs = torch.randn(1, 64, 12, 12)
    call = Sparse(**options).prepare(network(), inputs)  # type: ignore[arg-type]
    assert isinstance(call, ArrayCall)
    assert call.handed_to(1) == ""
    assert torch.allclose(call(inputs), network()(inputs), atol=1e-2 if "precision" in options else 1e-5)
