"""Precision, recall, density and coverage, by nearest neighbours of features."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NUM_NEIGHBOURS = 5
"""k of all four metrics, as in the paper on density and coverage."""
_CHUNK = 1000


@dataclass(frozen=True)
class PrecisionRecall:
    """Metrics from the balls around features up to their k-th nearest neighbours."""

    precision: float
    """Part of the generated images inside any ball around a real one, in [0, 1]."""
    recall: float
    """Part of the real images inside any ball around a generated one, in [0, 1]."""
    density: float
    """Real balls that hold a generated image, per k; about 1 for equal distributions."""
    coverage: float
    """Part of the balls around real images that hold a generated one, in [0, 1]."""


def precision_recall(
    real: Tensor, generated: Tensor, k: int = NUM_NEIGHBOURS, *, real_radii: Tensor | None = None
) -> PrecisionRecall:
    """Computes improved precision and recall, density and coverage.

    Kynkaanniemi et al. 2019, equations 1 and 2; Naeem et al. 2020, equations 3 and 4. A ball
    reaches to the k-th nearest neighbour of its centre, the centre not counted. Memory grows with
    N and with M, and not with their product.

    Args:
        real: (N, D) features of real images.
        generated: (M, D) features of generated images.
        k: Which neighbour, at least 1.
        real_radii: float64 (N,), `neighbour_radii` of `real` in float64; None computes them.

    Raises:
        ValueError: A set has at most k images, or they differ in D.
    """
    if min(len(real), len(generated)) <= k or real.shape[1:] != generated.shape[1:]:
        raise ValueError(
            f"two sets of more than {k} images each with features of one kind are required, got "
            f"{tuple(real.shape)} and {tuple(generated.shape)}"
        )
    real, generated = real.double(), generated.double()
    real_radii = neighbour_radii(real, k) if real_radii is None else real_radii
    generated_radii = neighbour_radii(generated, k)
    recalled, covered = [], []
    balls = torch.zeros(len(generated), dtype=torch.int64)
    for centres, radii in zip(
        torch.split(real, _CHUNK), torch.split(real_radii, _CHUNK), strict=True
    ):
        inside = torch.zeros(len(centres), dtype=torch.bool)
        recall = torch.zeros(len(centres), dtype=torch.bool)
        for start in range(0, len(generated), _CHUNK):
            rows = slice(start, start + _CHUNK)
            distances = torch.cdist(centres, generated[rows])  # (N', M')
            held = distances < radii[:, None]
            balls[rows] += held.sum(dim=0)
            inside |= held.any(dim=1)
            recall |= (distances < generated_radii[rows]).any(dim=1)
        covered.append(inside)
        recalled.append(recall)
    return PrecisionRecall(
        precision=(balls > 0).double().mean().item(),
        recall=torch.cat(recalled).double().mean().item(),
        density=balls.double().mean().item() / k,
        coverage=torch.cat(covered).double().mean().item(),
    )


def neighbour_radii(features: Tensor, k: int) -> Tensor:
    """Computes the distance (N,) of features (N, D) to their k-th nearest neighbours."""
    radii = []
    for start in range(0, len(features), _CHUNK):
        rows = features[start : start + _CHUNK]
        nearest = torch.full((len(rows), 0), torch.inf, dtype=features.dtype)
        for others in torch.split(features, _CHUNK):
            distances = torch.cdist(rows, others)
            candidates = torch.cat([nearest, distances], dim=1)
            count = min(k + 1, candidates.shape[1])
            nearest = candidates.topk(count, dim=1, largest=False).values
        # The image itself is the nearest, at 0 or, by rounding, next to it.
        radii.append(nearest.max(dim=1).values)
    return torch.cat(radii)
