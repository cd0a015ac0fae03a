"""Choice of the device."""

from __future__ import annotations

import os

import torch

_WITHOUT_FLOAT64 = ("mps",)


def choose_device(name: str = "auto") -> torch.device:
    """Returns the device called `name`.

    `auto` is the first available of cuda, mps and cpu; the others are `cpu`, `mps`, `cuda` and
    `cuda:N`. Under torchrun `auto` and `cuda` mean the GPU that belongs to this process.
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
        torch.cuda.set_device(device)
    return device


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
