"""Whether code can be compiled on this machine."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor


@cache
def can_compile(device: torch.device) -> bool:
    """Whether `torch.compile` works here: a C++ compiler is there and fit, or Triton on a GPU.

    Found out by compiling a line, which takes a second or two the first time.
    """
    if device.type not in ("cpu", "cuda"):
        return False
    compiled = torch.compile(_one_line, dynamic=False)
    try:
        compiled(torch.ones(8, device=device))
    except (RuntimeError, OSError):
        return False
    return True


def _one_line(x: Tensor) -> Tensor:
    return x.sin() + 1
