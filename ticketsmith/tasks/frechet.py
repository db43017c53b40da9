"""How far generated images are from real ones, measured between two clouds of features. Pure functions on tensors."""

from __future__ import annotations

import torch
from torch import Tensor


def frechet_distance(real: Tensor, generated: Tensor) -> float:
    """The squared Fréchet distance between the Gaussians fitted to two sets of features, each ``[n, d]``, n > 1.

    ``|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))`` (Dowson & Landau 1982); Heusel et al. (2017) call it FID when the
    features are those of Inception-v3, which these are not.
    """
    real, generated = real.double(), generated.double()
    mean = (real.mean(0) - generated.mean(0)).square().sum()
    first, second = torch.cov(real.T), torch.cov(generated.T)
    root = _root(first)
    # The eigenvalues of S1 S2 are those of the symmetric S1^(1/2) S2 S1^(1/2), which are real and not negative.
    both = torch.linalg.eigvalsh(root @ second @ root).clamp(min=0.0).sqrt().sum()
    return max(0.0, float(mean + first.trace() + second.trace() - 2.0 * both))


def precision_and_recall(real: Tensor, generated: Tensor, neighbours: int = 3) -> tuple[float, float]:
    """Improved precision and recall, 0..1 (Kynkäänniemi et al. 2019), of features ``[n, d]`` and ``[m, d]``.

    Precision: the share of generated images that lie within the reach of a real one, its distance to its k-th neighbour
    among the real ones. Recall: the same the other way round. Both sets must hold more than ``neighbours`` images.
    """
    real, generated = real.double(), generated.double()
    between = torch.cdist(real, generated)  # [n, m]
    precision = (between <= _reach(real, neighbours)[:, None]).any(0).double().mean()
    recall = (between <= _reach(generated, neighbours)[None, :]).any(1).double().mean()
    return float(precision), float(recall)


def _root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    root: Tensor = (vectors * values.clamp(min=0.0).sqrt()) @ vectors.T
    return root


def _reach(features: Tensor, neighbours: int) -> Tensor:
    """Distance of each point to its k-th nearest other point, ``[n]``; the point itself is the nearest of all."""
    reach: Tensor = torch.cdist(features, features).kthvalue(neighbours + 1, dim=1).values
    return reach
