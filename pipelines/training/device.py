"""Choice of the device, and how a GPU computes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_WITHOUT_FLOAT64 = ("mps",)


def choose_device(name: str = "auto") -> torch.device:
    """Returns the device called `name`.

    `auto` is the first available of cuda, mps and cpu; the others are `cpu`, `mps`, `cuda` and
    `cuda:N`. Under torchrun `auto` and `cuda` mean the GPU that belongs to this process.

    CUDA then computes float32 in IEEE's precision, in convolutions as well, whose default is
    TensorFloat-32 with 10 bits. Quantizers compute in float32 whatever the precision of the
    training, and their codes are to be those of a CPU. bfloat16 is the way to the fast units.
    """
    if name == "auto":
        name = _best_device()
    if name == "cuda":
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda", "mps"):
        raise ValueError(f"device must be auto, cpu, cuda, cuda:N or mps, got {name!r}")
    if not _is_available(device):
        raise ValueError(
            f"device {name!r} is not available to this PyTorch on this machine: use 'auto' or 'cpu'"
        )
    if device.type == "cuda":
        # Read when cuBLAS is first used: without it, it may add in another order each time.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        # Not by `fp32_precision`: torch.compile still reads these, and refuses a mixture of both.
        torch.backends.cudnn.allow_tf32 = False
        torch.set_float32_matmul_precision("highest")
        torch.cuda.set_device(device)
    return device


@contextmanager
def deterministic_algorithms(device: torch.device) -> Iterator[None]:
    """Makes CUDA add in one order for the block, as a CPU does: same step, same bits.

    Sums over indices are sorted instead of added as they come, and cuDNN and attention take their
    deterministic kernels. An operation that has none raises a RuntimeError.
    """
    if device.type != "cuda":
        yield
        return
    settings: Any = torch.utils.deterministic
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    fills = settings.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    settings.fill_uninitialized_memory = False  # which finds faults, and takes time
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        settings.fill_uninitialized_memory = fills


def describe_device(device: torch.device) -> str:
    """Returns the type of the device, with the name of the card for CUDA."""
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return device.type


def float64_device(device: torch.device) -> torch.device:
    """Returns `device`, or the CPU if `device` has no float64."""
    return torch.device("cpu") if device.type in _WITHOUT_FLOAT64 else device


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _is_available(device: torch.device) -> bool:
    if device.type == "cuda":
        return (device.index or 0) < torch.cuda.device_count()
    return device.type == "cpu" or torch.backends.mps.is_available()
