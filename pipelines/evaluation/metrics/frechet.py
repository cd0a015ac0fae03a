"""How far two sets of images lie apart in a feature space: Frechet and kernel distance."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, nn

MAX_SUBSET = 1000
"""Images per subset of the kernel distance."""


@dataclass(frozen=True)
class KernelDistance:
    """The kernel distance over random subsets."""

    mean: float
    """Over the subsets; unbiased, so it may fall below 0 for equal distributions."""
    std: float
    """Standard deviation over the subsets."""
    subsets: int
    """How many there were."""


class _Given(nn.Module):
    """Stands where torchmetrics wants a network: what it is given are features already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """|m_1 - m_2|^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2)) of two sets' means and covariances.

    Heusel et al. 2017, equation 6, as torchmetrics computes it, in float64. Its
    estimate from few images is too high, by an amount that depends on their number: compare only
    metrics of equally many.

    Args:
        first: (N, D) features.
        second: (M, D) features.

    Raises:
        ValueError: A set has fewer than two images or they differ in D.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    _check(first, second)
    metric = FrechetInceptionDistance(
        feature=_Given(first.shape[1]), normalize=True, sync_on_compute=False
    )
    metric.set_dtype(torch.float64)
    metric.update(first.double(), real=True)
    metric.update(second.double(), real=False)
    distance: float = metric.compute().item()
    return max(distance, 0.0)  # the rounding of equal sets may fall on either side of 0


def kernel_distance(
    first: Tensor, second: Tensor, *, subsets: int = 50, seed: int = 0
) -> KernelDistance:
    """Squared maximum mean discrepancy under the kernel (x y / D + 1)^3, unbiased.

    Binkowski et al. 2018, equation 4, as torchmetrics computes it, in float64, over random subsets
    of up to 1,000 images. Unlike the Frechet distance its mean does not depend on their number.

    Args:
        first: (N, D) features.
        second: (M, D) features.
        subsets: How many pairs of subsets are drawn.
        seed: Of the draw; the global stream of random numbers is left as it was.

    Raises:
        ValueError: A set has fewer than two images or they differ in D.
    """
    with warnings.catch_warnings():
        # torchmetrics announces that this metric keeps its features in memory; they are there.
        warnings.filterwarnings("ignore", message="Metric `Kernel Inception Distance`")
        from torchmetrics.image.kid import KernelInceptionDistance

        _check(first, second)
        metric = KernelInceptionDistance(
            feature=_Given(first.shape[1]),
            subsets=subsets,
            subset_size=min(MAX_SUBSET, len(first), len(second)),
            normalize=True,
            sync_on_compute=False,
        )
    metric.set_dtype(torch.float64)
    metric.update(first.double(), real=True)
    metric.update(second.double(), real=False)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        mean, std = metric.compute()
    return KernelDistance(mean.item(), std.item(), subsets)


def _check(first: Tensor, second: Tensor) -> None:
    if min(len(first), len(second)) < 2 or first.shape[1:] != second.shape[1:]:
        raise ValueError(
            "a distance needs two sets of at least two images each with features of one kind, got "
            f"{tuple(first.shape)} and {tuple(second.shape)}"
        )
