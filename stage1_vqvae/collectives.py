"""Collectives of torch.distributed, which do nothing on one process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist
from torch import Tensor


def is_distributed() -> bool:
    """Returns whether more than one process trains together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Sums `tensor` over all processes, in place, and returns it."""
    if is_distributed():
        with _network_errors():
            dist.all_reduce(tensor)
    return tensor


def broadcast(tensor: Tensor) -> Tensor:
    """Overwrites `tensor` with the one of rank 0, in place, and returns it."""
    if is_distributed():
        with _network_errors():
            dist.broadcast(tensor, src=0)
    return tensor


@contextmanager
def _network_errors() -> Iterator[None]:
    """Raises `DistNetworkError` where a process is lost: gloo raises a plain RuntimeError."""
    try:
        yield
    except RuntimeError as error:
        raise dist.DistNetworkError(str(error)) from error
