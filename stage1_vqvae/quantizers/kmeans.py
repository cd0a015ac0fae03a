"""k-means, which starts a codebook where z_e is."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from stage1_vqvae.collectives import broadcast
from stage1_vqvae.quantizers.search import code_sums, half_squared_norms, nearest_codes, unit_length
from stage1_vqvae.quantizers.usage import code_counts

# More points than this per cluster no longer move the centres noticeably.
_POINTS_PER_CLUSTER = 128


def kmeans_plus_plus(points: Tensor, num_clusters: int) -> Tensor:
    """Samples starting centres for k-means, far apart from each other.

    Candidates are drawn with probability proportional to their squared distance to the centres so
    far (Arthur and Vassilvitskii 2007, "k-means++: the advantages of careful seeding", section
    2.2). Of 2 + ln K candidates the one is taken that lowers the sum of these distances most
    (greedy k-means++, recommended in their conclusion and done by scikit-learn).

    Args:
        points: float32 (N, D).
        num_clusters: K; may exceed N, then points repeat.

    Returns:
        float32 (K, D).
    """
    centred = points - points.mean(dim=0)  # or the distances below would cancel more
    half_norms = half_squared_norms(centred)  # (N,)

    def half_squared_distances(rows: Tensor) -> Tensor:  # (number of rows, N)
        products = torch.addmm(half_norms, centred[rows], centred.T, alpha=-1)
        return products.add_(half_norms[rows, None]).clamp_(min=0)

    chosen = [torch.randint(len(points), (1,), device=points.device)]
    distances = half_squared_distances(chosen[0])  # of each point to its nearest centre, (1, N)
    num_candidates = 2 + int(math.log(num_clusters))
    for _ in range(num_clusters - 1):
        # All points are centres already: any choice is as good as another.
        weights = distances[0] if distances.sum() > 0 else torch.ones_like(distances[0])
        # multinomial refuses more than 2^24 categories; inverse-CDF sampling has no such limit.
        cumulative = weights.cpu().double().cumsum(dim=0)  # MPS knows no float64
        thresholds = torch.rand(num_candidates, dtype=torch.float64, device="cpu") * cumulative[-1]
        drawn = torch.searchsorted(cumulative, thresholds, right=True).clamp_(max=len(points) - 1)
        candidates = drawn.to(points.device)
        remaining = torch.minimum(distances, half_squared_distances(candidates))
        best = remaining.sum(dim=1).argmin(keepdim=True)
        chosen.append(candidates[best])
        distances = remaining[best]
    return points[torch.cat(chosen)]


def kmeans(
    points: Tensor, num_clusters: int, iterations: int = 10, *, spherical: bool = False
) -> Tensor:
    """Runs Lloyd's algorithm from k-means++ centres; an empty cluster keeps its centre.

    Args:
        points: float32 (N, D).
        num_clusters: K.
        iterations: Rounds of assignment and averaging.
        spherical: Scale the centres to unit length after each round, for points of unit length
            (Dhillon and Modha 2001, "Concept decompositions for large sparse text data using
            clustering").

    Returns:
        Centres, float32 (K, D).
    """
    centres = kmeans_plus_plus(points, num_clusters)
    for _ in range(iterations):
        codes = nearest_codes(points, centres)
        counts = code_counts(codes, num_clusters).to(points.dtype)
        sums = code_sums(points, codes, num_clusters)
        filled = counts > 0
        centres = torch.where(filled[:, None], sums / counts.clamp(min=1)[:, None], centres)
        if spherical:
            centres = unit_length(centres)
    return centres


def kmeans_of_sample(points: Tensor, num_clusters: int, *, spherical: bool = False) -> Tensor:
    """Runs `kmeans` on a random sample of the points; all processes get the centres of rank 0."""
    kept = torch.randperm(len(points), device=points.device)
    sample = points[kept[: _POINTS_PER_CLUSTER * num_clusters]]
    return broadcast(kmeans(sample, num_clusters, spherical=spherical))
