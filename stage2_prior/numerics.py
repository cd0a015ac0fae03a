"""Number formats."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """Casts half-precision tensors to float32 and leaves float32 and float64 as they are."""
    return x if x.dtype == torch.float64 else x.float()
