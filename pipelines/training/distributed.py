"""Several processes as one run; on a single process every function here does nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Joins the processes that torchrun started, for the length of the block.

    torchrun describes them in the environment (WORLD_SIZE, RANK, LOCAL_RANK, MASTER_ADDR and
    MASTER_PORT). They talk by nccl on CUDA devices and by gloo elsewhere.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    if device.type == "cuda":
        dist.init_process_group("nccl", device_id=device)
    else:
        dist.init_process_group("gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def world_size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this process in [0, world_size)."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_main() -> bool:
    """Whether this process writes the files and shows the progress."""
    return rank() == 0


def mean_over_ranks(tensor: Tensor) -> Tensor:
    """The mean of `tensor` (floating point, same shape everywhere) over all processes."""
    if world_size() == 1:
        return tensor
    total = tensor.clone()
    dist.all_reduce(total)
    return total / world_size()


def mean_figures(figures: Mapping[str, float], device: torch.device) -> dict[str, float]:
    """Each figure's mean over all processes, which must all hold the same names."""
    if world_size() == 1:
        return dict(figures)
    values = torch.tensor(list(figures.values()), dtype=torch.float64, device=device)
    return dict(zip(figures, mean_over_ranks(values).tolist(), strict=True))


def from_main(number: int, device: torch.device) -> int:
    """The `number` that rank 0 holds."""
    if world_size() == 1:
        return number
    tensor = torch.tensor(number, dtype=torch.int64, device=device)
    dist.broadcast(tensor, src=0)
    return int(tensor)


def barrier() -> None:
    """Waits until every process has come this far."""
    if world_size() > 1:
        dist.barrier()
