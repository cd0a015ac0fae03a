"""How much of a codebook is in use: entropy, perplexity and usage, from counts of codes."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def code_counts(codes: Tensor, codebook_size: int) -> Tensor:
    """Counts how often each code occurs: int64 (K,)."""
    # Not by bincount: on a GPU it waits for the largest code.
    counts = torch.zeros(codebook_size, dtype=torch.int64, device=codes.device)
    return counts.index_add_(
        0, codes.flatten(), torch.ones_like(codes.flatten(), dtype=torch.int64)
    )


def entropy_bits(counts: Tensor) -> float:
    """Returns the entropy of the distribution of `counts` (K,), in bits per code (order 0)."""
    p = counts.double() / counts.sum()
    return float(torch.special.entr(p).sum()) / math.log(2)


def perplexity(counts: Tensor) -> float:
    """Returns the effective number of codes, in [1, K]: exp of the entropy of `counts` (K,).

    Meaningful over a whole data set only; over a batch it is bounded by the batch.
    """
    return float(2.0 ** entropy_bits(counts))


def usage(counts: Tensor) -> float:
    """Returns the fraction of the K codes that occur at all."""
    return (counts > 0).double().mean().item()
