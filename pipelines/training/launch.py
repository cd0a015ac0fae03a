"""The environment variables of torchrun. Imports no torch."""

from __future__ import annotations

import os
import threading

HAS_JOINED = threading.Event()
"""Set once this process has joined others, whose connections live in threads of C++."""


def num_processes() -> int:
    """Returns the number of processes that train together (WORLD_SIZE); 1 if unset or empty."""
    return _number("WORLD_SIZE", default=1, least=1)


def process_rank() -> int:
    """Returns the number of this process in [0, num_processes()); 0 without WORLD_SIZE."""
    size = num_processes()
    rank = _number("RANK", default=0, least=0) if size > 1 else 0
    if rank >= size:
        raise ValueError(f"RANK must be below WORLD_SIZE, got {rank} and {size}: use torchrun")
    return rank


def _number(name: str, *, default: int, least: int) -> int:
    text = os.environ.get(name) or str(default)
    if not text.isdecimal() or int(text) < least:
        raise ValueError(
            f"{name} must be a whole number of at least {least}, got {text!r}: unset it, or use "
            "torchrun"
        )
    return int(text)
