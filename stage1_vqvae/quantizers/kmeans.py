"""k-means, to start a codebook where the data is."""

from __future__ import annotations

import torch
from torch import Tensor

from stage1_vqvae.collectives import broadcast
from stage1_vqvae.quantizers.nearest import code_statistics, nearest_codes

# More points than this per cluster no longer move the centres noticeably.
_POINTS_PER_CLUSTER = 128


def kmeans_plus_plus(points: Tensor, num_clusters: int) -> Tensor:
    """Starting centres for k-means, far apart from each other.

    Each is drawn with probability proportional to its squared distance to the centres so far
    (Arthur and Vassilvitskii 2007, "k-means++: the advantages of careful seeding", section 2.2).

    Args:
        points: float32 (N, D).
        num_clusters: K; may exceed N, then points repeat.

    Returns:
        float32 (K, D).
    """
    first = torch.randint(points.shape[0], (1,), device=points.device)
    centres = [points[first]]
    squared = (points - centres[0]).square().sum(dim=1)  # (N,)
    for _ in range(num_clusters - 1):
        # All points are centres already: any choice is as good as another.
        weights = squared if squared.sum() > 0 else torch.ones_like(squared)
        # multinomial refuses more than 2^24 categories; inverse-CDF sampling has no such limit.
        cumulative = weights.cpu().double().cumsum(dim=0)  # MPS knows no float64
        threshold = torch.rand(1, dtype=torch.float64) * cumulative[-1]
        chosen = torch.searchsorted(cumulative, threshold, right=True).clamp_(max=len(points) - 1)
        centres.append(points[chosen.to(points.device)])
        squared = torch.minimum(squared, (points - centres[-1]).square().sum(dim=1))
    return torch.cat(centres)


def kmeans(points: Tensor, num_clusters: int, iterations: int = 10) -> Tensor:
    """Lloyd's algorithm from k-means++ centres; an empty cluster keeps its centre.

    Args:
        points: float32 (N, D).
        num_clusters: K.
        iterations: Rounds of assignment and averaging.

    Returns:
        Centres, float32 (K, D).
    """
    centres = kmeans_plus_plus(points, num_clusters)
    for _ in range(iterations):
        counts, sums = code_statistics(points, nearest_codes(points, centres), num_clusters)
        filled = counts > 0
        centres = torch.where(filled[:, None], sums / counts.clamp(min=1)[:, None], centres)
    return centres


def kmeans_of_batches(batches: list[Tensor], num_clusters: int) -> Tensor:
    """`kmeans` of a random part of several batches of points, the same on all processes.

    Args:
        batches: float32 (N_i, D) each.
        num_clusters: K.

    Returns:
        Centres, float32 (K, D), those of rank 0.

    Raises:
        ValueError: There are no batches.
    """
    if not batches:
        raise ValueError("at least one batch is required to initialise a codebook, got none")
    points = torch.cat(batches)
    kept = torch.randperm(len(points), device=points.device)
    points = points[kept[: _POINTS_PER_CLUSTER * num_clusters]]
    with torch.autocast(points.device.type, enabled=False):
        return broadcast(kmeans(points, num_clusters))
