"""Search for the best and the nearest code of a point."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Entries of the (rows, K) score block: 4 MiB of float32 stays in a core's share of the cache.
_BLOCK_ENTRIES = 1 << 20
# On a GPU, where few kernels count and not caches: 256 MiB.
_BLOCK_ENTRIES_ON_GPU = 1 << 26


def block_entries(device: torch.device) -> int:
    """Returns how many scores of points and codes are in memory at a time on `device`."""
    return _BLOCK_ENTRIES if device.type == "cpu" else _BLOCK_ENTRIES_ON_GPU


@torch.no_grad()
def best_codes(z: Tensor, weights: Tensor, bias: Tensor) -> Tensor:
    """Returns argmax_k (w_k . z + b_k), in memory bounded for any N and K.

    In few dimensions the product is so little work that everything else counts. The bias is one
    more column of it: added to the scores, it would read and write them all once more. And torch's
    argmax takes several times as long on a CPU as two maxima: the best score, then the largest of
    K - k over the codes that have it.

    Args:
        z: float32 (N, D).
        weights: float32 (K, D).
        bias: float32 (K,).

    Returns:
        int64 (N,), the lowest index where several codes are equally good.
    """
    size = weights.shape[0]
    z = F.pad(z, (0, 1), value=1.0)  # (N, D + 1)
    weights = torch.cat([weights, bias[:, None]], dim=1).T  # (D + 1, K)
    rows = max(1, block_entries(z.device) // size)
    descending = torch.arange(size, 0, -1, dtype=z.dtype, device=z.device)  # exact below 2^24
    ranks = z.new_empty(z.shape[0])
    scores = z.new_empty(min(rows, z.shape[0]), size)
    for start in range(0, z.shape[0], rows):
        block = z[start : start + rows]
        block_scores = torch.mm(block, weights, out=scores[: len(block)])
        is_best = block_scores.sub_(block_scores.amax(dim=1, keepdim=True)).eq_(0)
        torch.amax(is_best.mul_(descending), dim=1, out=ranks[start : start + rows])
    # Scores that are no numbers have no best one: any code, and the loss will say so.
    return (size - ranks).long().clamp_(max=size - 1)


def nearest_codes(z: Tensor, codebook: Tensor) -> Tensor:
    """Returns argmin_k ||z - e_k||^2 (VQ-VAE paper, equation 1), in bounded memory.

    ||z||^2 is the same for every code and left out: argmax_k z . e_k - ||e_k||^2 / 2.

    Args:
        z: float32 (N, D).
        codebook: float32 (K, D).

    Returns:
        int64 (N,), the lowest index where several codes are equally near.
    """
    return best_codes(z, codebook, half_squared_norms(codebook).neg_())


def half_squared_norms(vectors: Tensor) -> Tensor:
    """Returns ||e_k||^2 / 2 of vectors (K, D): float32 (K,)."""
    return vectors.square().sum(dim=1) / 2


def unit_length(z: Tensor, dim: int = -1) -> Tensor:
    """Scales axis `dim` to unit Euclidean length."""
    return F.normalize(z, dim=dim)


def code_sums(z: Tensor, codes: Tensor, codebook_size: int) -> Tensor:
    """Sums the points z (N, D) that chose each code, by codes int64 (N,): float32 (K, D)."""
    return z.new_zeros(codebook_size, z.shape[1]).index_add_(0, codes, z)
