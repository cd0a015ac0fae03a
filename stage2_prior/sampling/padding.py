"""Row padding, which makes a row's result independent of the batch size.

Products and convolutions of a few rows sum in another order than those of many, and the last bit of
a logit can decide a sample. With rows padded to a multiple of four they gave the same bits whatever
their number (x86 with AVX512, MKL and oneDNN, 1 to 16 threads).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

ROW_MULTIPLE = 4


def rows_to_pad(num_rows: int, multiple: int = ROW_MULTIPLE) -> int:
    """Computes how many rows are missing to a multiple."""
    return -num_rows % multiple


def pad_rows(x: Tensor) -> Tensor:
    """Pads (N, ...) with rows of zeros to a multiple of `ROW_MULTIPLE`."""
    missing = rows_to_pad(len(x))
    return F.pad(x, (0, 0) * (x.ndim - 1) + (0, missing)) if missing else x
