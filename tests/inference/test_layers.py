"""The break-even of layers: each kind and shape once, at every sparsity."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ticketsmith.inference.runtimes.eager import Eager
from ticketsmith.inference.tables import layers
from ticketsmith.inference.tables.layers import break_even, described


def test_layers_are_told_as_readers_know_them() -> None:
    image = torch.zeros(1, 8, 16, 16)
    assert described(nn.Linear(784, 300), torch.zeros(1, 784)) == ("linear", "300x784")
    assert described(nn.Linear(8, 4), torch.zeros(2, 5, 8)) == ("linear", "4x8 on 5 tokens")
    assert described(nn.Conv2d(8, 4, 3, padding=1), image) == ("convolution", "3x3 8->4 at 16x16")
    assert described(nn.Conv2d(8, 8, 3, stride=2, groups=8), image) == (
        "depthwise convolution",
        "3x3 8->8 at 16x16, stride 2",
    )
    assert described(nn.Conv2d(8, 4, 1, groups=2), image) == ("grouped convolution", "1x1 8->4 at 16x16, 2 groups")


def test_each_distinct_layer_is_raced_once_at_every_sparsity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "SPARSITIES", (0.0, 0.5, 0.95))
    model = nn.Sequential(
        nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1),
        nn.Flatten(), nn.Linear(64, 5),
    ).eval()  # fmt: skip
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = break_even(model, torch.zeros(1, 4, 4, 4), [Eager()], rounds=10)
    shapes = [("convolution", "3x3 4->4 at 4x4"), ("linear", "5x64")]
    assert list(dict.fromkeys((one.kind, one.shape) for one in found)) == shapes
    assert [one.sparsity for one in found] == [0.0, 0.5, 0.95] * 2
    assert all(one.speedup_low <= one.speedup <= one.speedup_high for one in found)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
