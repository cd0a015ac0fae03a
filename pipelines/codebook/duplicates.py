"""Detection of duplicate codes."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Entries of a block of distances between codes: 8 MiB of float64.
_BLOCK_ENTRIES = 1 << 20
# Duplicates: exchanging them must not raise the squared error of a position by more than this part,
_DUPLICATE_ERROR = 0.1
# and their distance must be below this part of the used codes' rms distance from their mean.
_DUPLICATE_RADIUS = 0.05
# Squared distances in units of the vectors' own squares, below which float32 vectors are equal.
_ROUNDING = 1e-13


def find_duplicates(
    vectors: Tensor, counts: Tensor, error: float
) -> tuple[NDArray[np.int64], float | None]:
    """Finds codes that duplicate a more frequent one, and the distance between used codes.

    Two codes c, c' are duplicates if both hold:

        ||c - c'||^2 <= 0.1 error     giving c' for c raises the expected squared error of those
                                      positions by ||c - c'||^2 where c is the mean of its z_e, so
                                      that the choice between the two is lost in the error anyway;
        ||c - c'|| <= 0.05 r          r is the rms distance of the used codes from their mean, so
                                      that a huge error (z_e elsewhere) does not make all codes one.

    Distances are computed in blocks of bounded size; all K^2 take seconds for K = 16,384.

    Args:
        vectors: float64 (K, D).
        counts: int64 (K,), number of positions of each code.
        error: E||t - z_q||^2 of the grid.

    Returns:
        int64 (K,), for each code the most frequent duplicate before it in the order of decreasing
        frequency (the lower index first among equals), or -1; and the median distance of a used
        code to the nearest other used one, or None.
    """
    order = torch.argsort(counts, descending=True, stable=True)
    used = int((counts > 0).sum())
    sorted_vectors = vectors[order] - vectors[counts > 0].mean(dim=0)
    squares = sorted_vectors.square().sum(dim=1)  # (K,)
    radius = float(sorted_vectors[:used].var(dim=0, correction=0).sum())
    limit = min(_DUPLICATE_ERROR * error, _DUPLICATE_RADIUS**2 * radius)
    found = torch.full((len(counts),), -1)
    nearest = torch.full((used,), math.inf, dtype=torch.float64)
    rows = max(1, _BLOCK_ENTRIES // len(counts))
    for start in range(0, len(counts), rows):
        stop = min(start + rows, len(counts))
        columns = max(used, stop)
        sizes = squares[start:stop, None] + squares[:columns]
        distances = sizes.addmm(sorted_vectors[start:stop], sorted_vectors[:columns].T, alpha=-2)
        same = distances <= sizes.mul_(_ROUNDING).clamp_(min=limit)
        same = same[:, :stop].tril(diagonal=start - 1)  # columns before the row's own
        first = same.int().argmax(dim=1)
        found[order[start:stop]] = torch.where(same.any(dim=1), order[first], -1)
        if start < used:
            distances.diagonal(start).fill_(math.inf)
            nearest[start:stop] = distances[: used - start, :used].amin(dim=1)
    median = float(np.median(nearest.clamp(min=0).sqrt().numpy())) if used > 1 else None
    return found.numpy(), median
