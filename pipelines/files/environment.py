"""Versions and machine that something was measured or written with."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

_CPU_INFO = Path("/proc/cpuinfo")


def environment(device: torch.device) -> dict[str, str]:
    """Returns names and values of versions and machine, for people."""
    packages = ("torch", "torchvision", "numpy")
    return {
        "Written": datetime.now().astimezone().strftime("%d %B %Y, %H:%M %Z"),
        "Device": _device_name(device),
        "Threads": f"{torch.get_num_threads()} of {os.cpu_count()} processors",
        "Python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "Packages": ", ".join(f"{name} {_version(name)}" for name in packages),
    }


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{device}, {torch.cuda.get_device_name(device)}"
    return f"{device}, {_processor()}"


def _processor() -> str:
    """Returns the processor's model name if the system tells it, else the architecture."""
    with suppress(OSError):
        for line in _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(unknown)"
