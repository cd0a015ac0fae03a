"""Training in several processes; in a single process every function here does nothing.

Tensors are exchanged by collectives, which all processes reach at about the same time. All other
values, and all waiting for the work of one process, use an `Exchange`.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore, Store

from pipelines.files.names import one_line
from pipelines.training.exchange import Exchange, meet
from pipelines.training.launch import HAS_JOINED, num_processes
from pipelines.training.shared_directory import require_shared as require_shared_by

T = TypeVar("T")

# For a process that is alive but never reaches a collective; longer than a checkpoint takes.
_TIME_LIMIT = timedelta(minutes=30)
_RESUME = "start the same command with --resume"

_exchange: Exchange | None = None


class _ToldToStopError(BaseException):
    """SIGTERM, by which torchrun ends the other processes once one has failed."""


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Joins the processes that torchrun started, for the block.

    torchrun describes them in the environment (WORLD_SIZE, RANK, LOCAL_RANK, MASTER_ADDR and
    MASTER_PORT). Their collectives use nccl on CUDA devices and gloo elsewhere. If one of them ends
    or hangs, all others end within a minute with a RuntimeError that names it.
    """
    global _exchange
    if num_processes() == 1:
        yield
        return
    HAS_JOINED.set()
    store, rank, hosts = meet()
    exchange = Exchange(PrefixStore("run", store), rank, hosts)
    exchange.heartbeat.start()
    told_to_stop = signal.signal(signal.SIGTERM, _stop)
    try:
        exchange.agree(_software(device), "install the same on every machine")
        _join_collectives(store, exchange, device)
        _exchange = exchange
        yield
        exchange.barrier()
        with _network_errors():
            dist.barrier()  # the store, which ends with rank 0, has served all by now
        dist.destroy_process_group()
        signal.signal(signal.SIGTERM, told_to_stop)
    except BaseException as error:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends by itself, and says why
        if isinstance(error, dist.DistError | _ToldToStopError):
            raise RuntimeError(_explain(exchange, error)) from error
        reason = str(error) or type(error).__name__
        exchange.heartbeat.report(
            f"{exchange.heartbeat.describe(rank)} ended ({reason}): {_RESUME}"
        )
        raise
    finally:
        exchange.heartbeat.stop()
        _exchange = None


def world_size() -> int:
    """Returns the number of processes that train together."""
    return _exchange.size if _exchange is not None else 1


def rank() -> int:
    """Returns the number of this process in [0, world_size)."""
    return _exchange.rank if _exchange is not None else 0


def is_main() -> bool:
    """Returns whether this process writes the files and shows the progress."""
    return rank() == 0


def on_main(work: Callable[[], T]) -> T:
    """Calls `work` on rank 0 and returns its result everywhere; see `Exchange.on_main`."""
    return work() if _exchange is None else _exchange.on_main(work)


@contextmanager
def enter_on_main(context: AbstractContextManager[None]) -> Iterator[None]:
    """Enters `context` on rank 0 for the block; an error in it ends every process."""
    with ExitStack() as stack:

        def enter() -> None:
            stack.enter_context(context)

        on_main(enter)
        yield


def agree(
    record: Mapping[str, Any], advice: str = "start all of them with the same command"
) -> None:
    """Checks that all processes hold the values of rank 0; see `Exchange.agree`."""
    if _exchange is not None:
        _exchange.agree(record, advice)


def require_shared(directory: Path) -> None:
    """Checks that all processes see a directory; see `shared_directory.require_shared`."""
    if _exchange is not None:
        require_shared_by(_exchange, directory)


def mean_over_ranks(tensor: Tensor) -> Tensor:
    """Averages `tensor` (floating point, same shape everywhere) over all processes."""
    if world_size() == 1:
        return tensor
    total = tensor.clone()
    with _network_errors():
        dist.all_reduce(total)
    return total / world_size()


def mean_metrics(metrics: Mapping[str, float], device: torch.device) -> dict[str, float]:
    """Averages each metric over all processes, which must all hold the same names."""
    if world_size() == 1:
        return dict(metrics)
    values = torch.tensor(list(metrics.values()), dtype=torch.float64, device=device)
    return dict(zip(metrics, mean_over_ranks(values).tolist(), strict=True))


@torch.no_grad()
def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Replaces each parameter's gradient by its mean over all processes.

    All gradients are sent at once, after the backward pass. `DistributedDataParallel` would overlap
    the two, which gains little at a few million parameters, but wraps the objective. A parameter
    without a gradient on some processes counts as a gradient of zero there.
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
        with _network_errors():
            dist.broadcast(plain, src=0)
        tensor.copy_(plain)


@contextmanager
def _network_errors() -> Iterator[None]:
    """Turns every failure of a collective into one type: gloo raises a plain RuntimeError."""
    try:
        yield
    except RuntimeError as error:
        raise dist.DistNetworkError(str(error)) from error


def _stop(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001 - as Python calls it
    raise _ToldToStopError


def _join_collectives(store: Store, exchange: Exchange, device: torch.device) -> None:
    on_gpu = device.type == "cuda"
    with _network_errors():
        dist.init_process_group(
            "nccl" if on_gpu else "gloo",
            store=PrefixStore("collectives", store),
            rank=exchange.rank,
            world_size=exchange.size,
            timeout=_TIME_LIMIT,
            device_id=device if on_gpu else None,
        )


def _explain(exchange: Exchange, error: dist.DistError | _ToldToStopError) -> str:
    """Returns why a collective failed or the process was told to stop, as a sentence."""
    heartbeat = exchange.heartbeat
    ended = heartbeat.find_ended()
    if ended is not None:
        reason = f"{heartbeat.describe(ended)} has ended or cannot be reached"
    elif isinstance(error, _ToldToStopError):
        reason = "the run was told to stop (SIGTERM)"
    else:
        reason = f"a process of this run cannot be reached ({one_line(error)})"
    return heartbeat.report(f"{reason}: {_RESUME}")


def _software(device: torch.device) -> dict[str, Any]:
    packages = ("torchvision", "numpy", "pillow")
    return {
        "number of processes": num_processes(),
        "device": device.type,
        "torch": torch.__version__,
        **{package: version(package) for package in packages},
    }
