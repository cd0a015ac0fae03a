"""Frechet and kernel distance of two sets of images in a feature space."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, nn

MAX_SUBSET = 1000
"""Images per subset of the kernel distance."""
_CHUNK = 1000


@dataclass(frozen=True)
class KernelDistance:
    """The kernel distance over random subsets."""

    mean: float
    """Mean over the subsets; unbiased, so it may be below 0 for equal distributions."""
    std: float
    """Standard deviation over the subsets."""


class _Identity(nn.Module):
    """Identity in place of the network that torchmetrics expects."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """Computes |m_1 - m_2|^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2)), means m and covariances S.

    Heusel et al. 2017, equation 6, of features (N, D) and (M, D), by torchmetrics, in float64. The
    estimate is biased upwards for few images: compare only distances of equally many.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    _check(first, second)
    metric = FrechetInceptionDistance(
        feature=_Identity(first.shape[1]), normalize=True, sync_on_compute=False
    )
    metric.set_dtype(torch.float64)
    metric.update(first.double(), real=True)
    metric.update(second.double(), real=False)
    distance: float = metric.compute().item()
    return max(distance, 0.0)  # rounding of equal sets


def kernel_distance(
    first: Tensor, second: Tensor, *, subsets: int = 50, seed: int = 0
) -> KernelDistance:
    """Computes the squared maximum mean discrepancy with the kernel (x y / D + 1)^3, unbiased.

    Binkowski et al. 2018, equation 4, of features (N, D) and (M, D), by torchmetrics, in float64,
    over random pairs of subsets of up to 1,000 images. Its mean does not depend on the number of
    images. The global random state is restored.
    """
    with warnings.catch_warnings():
        # torchmetrics warns that the metric keeps all features, which are in memory anyway.
        warnings.filterwarnings("ignore", message="Metric `Kernel Inception Distance`")
        from torchmetrics.image.kid import KernelInceptionDistance

        _check(first, second)
        metric = KernelInceptionDistance(
            feature=_Identity(first.shape[1]),
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
    return KernelDistance(mean.item(), std.item())


def whole_kernel_distance(first: Tensor, second: Tensor) -> float:
    """Computes the estimate of `kernel_distance` from all pairs of images instead of subsets.

    Gretton et al. 2012, equation 3: unbiased for features (N, D) and (M, D) of any two sizes, and
    the least noisy such estimate. In float64, in memory that grows with N and M, and not with their
    product.
    """
    _check(first, second)
    first, second = first.double(), second.double()
    within = [
        (_kernel_sum(x, x) - _kernel(x.square().sum(dim=1), x.shape[1]).sum().item())
        / (len(x) * (len(x) - 1))
        for x in (first, second)
    ]
    return sum(within) - 2 * _kernel_sum(first, second) / (len(first) * len(second))


def _kernel_sum(first: Tensor, second: Tensor) -> float:
    """Sums the kernel over all pairs of features (N, D) and (M, D)."""
    rows = torch.split(first, _CHUNK)
    return math.fsum(_kernel(part @ second.T, first.shape[1]).sum().item() for part in rows)


def _kernel(products: Tensor, num_features: int) -> Tensor:
    return (products / num_features + 1) ** 3


def _check(first: Tensor, second: Tensor) -> None:
    if min(len(first), len(second)) < 2 or first.shape[1:] != second.shape[1:]:
        raise ValueError(
            "a distance needs two sets of at least two images each with features of one kind, got "
            f"{tuple(first.shape)} and {tuple(second.shape)}"
        )
