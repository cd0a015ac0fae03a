"""Which codes are dead, and where they begin again."""

from __future__ import annotations

import torch
from torch import Tensor


def dead_codes(usage: Tensor, threshold: float) -> Tensor:
    """Codes used less than `threshold` times the mean: bool (K,) from usage float32 (K,)."""
    return usage < threshold * usage.mean()


def random_points(z: Tensor, count: int) -> Tensor:
    """`count` of the points z (N, D), all different ones where there are as many."""
    if count <= len(z):
        return z[torch.randperm(len(z), device=z.device)[:count]]
    return z[torch.randint(len(z), (count,), device=z.device)]
