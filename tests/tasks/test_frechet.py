"""Distances between clouds of features, against cases with a known answer."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ticketsmith.tasks.frechet import frechet_distance, precision_and_recall


def cloud(count: int, seed: int = 0, size: int = 6) -> Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed))


def test_frechet_distance_of_known_gaussians() -> None:
    points = cloud(400) @ torch.randn(6, 6, generator=torch.Generator().manual_seed(9))
    assert frechet_distance(points, points) == pytest.approx(0.0, abs=1e-9)
    shift = torch.tensor([3.0, 0, 0, 4.0, 0, 0])
    assert frechet_distance(points, points + shift) == pytest.approx(25.0, rel=1e-5)
    # About the same mean, S and 4 S commute: tr(S + 4 S - 2 * 2 S) = tr(S).
    centred = points - points.mean(0)
    assert frechet_distance(centred, 2 * centred) == pytest.approx(float(torch.cov(points.T).trace()), rel=1e-5)
    assert frechet_distance(points, 2 * points) == pytest.approx(frechet_distance(2 * points, points), rel=1e-9)


def test_frechet_distance_where_a_feature_never_changes() -> None:
    flat = cloud(50) * torch.tensor([1.0, 1, 1, 1, 1, 0])
    assert frechet_distance(flat, flat + torch.tensor([0, 0, 0, 0, 0, 2.0])) == pytest.approx(4.0, rel=1e-5)


def test_precision_and_recall_tell_poor_quality_from_poor_variety() -> None:
    two_kinds = torch.cat([cloud(200), cloud(200, 1) + 50])
    assert precision_and_recall(two_kinds, two_kinds) == (1.0, 1.0)
    precision, recall = precision_and_recall(two_kinds, cloud(200, 2))  # only one of the two kinds is made
    assert precision > 0.8
    assert 0.3 < recall < 0.5
    assert precision_and_recall(two_kinds, cloud(200, 3) + 500) == (0.0, 0.0)
    precision, recall = precision_and_recall(
        cloud(200), torch.cat([cloud(200, 1), cloud(200, 2) + 50])
    )  # half is nonsense
    assert 0.3 < precision < 0.5
    assert recall > 0.8
