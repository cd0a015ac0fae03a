"""Several processes as one run; on a single process every function here does nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pipelines.training.launch import num_processes

# torch's own 10 or 30 minutes are less than the first process may take for a dump of codes. One
# that dies is noticed by torchrun, which ends the others.
_PATIENCE = timedelta(days=1)


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Joins the processes that torchrun started, for the length of the block.

    torchrun describes them in the environment (WORLD_SIZE, RANK, LOCAL_RANK, MASTER_ADDR and
    MASTER_PORT). They talk by nccl on CUDA devices and by gloo elsewhere, and wait for each other
    as long as one of them encodes a large data set.
    """
    if num_processes() == 1:
        yield
        return
    if device.type == "cuda":
        dist.init_process_group("nccl", device_id=device, timeout=_PATIENCE)
    else:
        dist.init_process_group("gloo", timeout=_PATIENCE)
    try:
        yield
        dist.barrier()  # no process takes its connections away while another still uses them
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


@torch.no_grad()
def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Replaces each parameter's gradient by its mean over all processes.

    All gradients travel at once, after the backward pass. `DistributedDataParallel` would overlap
    the two, which gains little at a few million parameters; in exchange nothing here wraps the
    objective, and a parameter that only some processes used is no error: it counts as a gradient
    of zero on the others.
    """
    if world_size() == 1:
        return
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = mean_over_ranks(torch.cat([gradient.reshape(-1) for gradient in gradients]))
    pieces = torch.split(flat, [gradient.numel() for gradient in gradients])
    for gradient, piece in zip(gradients, pieces, strict=True):
        gradient.copy_(piece.view(gradient.shape))


@torch.no_grad()
def broadcast_from_main(tensors: Mapping[str, Tensor]) -> None:
    """Overwrites `tensors`, which have the same names and shapes everywhere, with rank 0's."""
    if world_size() == 1:
        return
    for tensor in tensors.values():
        plain = tensor.contiguous()  # a copy in other memory formats, which cannot be sent
        dist.broadcast(plain, src=0)
        tensor.copy_(plain)


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


@contextmanager
def enter_on_main(context: AbstractContextManager[None], device: torch.device) -> Iterator[None]:
    """Holds `context` on rank 0 for the length of the block; its refusal ends every process.

    Raises:
        RuntimeError: Rank 0 was refused; there the refusal itself is raised.
    """
    with ExitStack() as stack:
        refusal: Exception | None = None
        if is_main():
            try:
                stack.enter_context(context)
            except (OSError, RuntimeError) as error:
                refusal = error
        if from_main(int(refusal is not None), device):
            raise refusal or RuntimeError("rank 0 cannot begin: see what it says")
        yield
