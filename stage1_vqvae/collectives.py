"""Collectives of torch.distributed that do nothing on one process."""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor


def is_distributed() -> bool:
    """Whether more than one process trains together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Sums `tensor` over all processes, in place, and returns it."""
    if is_distributed():
        dist.all_reduce(tensor)
    return tensor


def broadcast(tensor: Tensor) -> Tensor:
    """Overwrites `tensor` with the one of rank 0, in place, and returns it."""
    if is_distributed():
        dist.broadcast(tensor, src=0)
    return tensor
