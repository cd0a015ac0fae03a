"""Causal attention, as both priors use it in training."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from stage2_prior.numerics import at_least_float32

# Up to this length the explicit form below beats the CPU's fused kernel, whose backward alone is a
# third of a training step; beyond it the (L, L) weights cost too much memory.
_EXPLICIT_LENGTH = 256


def causal_attention(query: Tensor, key: Tensor, value: Tensor, prefix: int = 0) -> Tensor:
    """Computes softmax(Q K^T / sqrt(d)) V with a causal mask; all are (B, heads, L, d).

    The first `prefix` positions are seen by all, themselves included.
    """
    length = query.shape[2]
    if query.device.type != "cpu" or length > _EXPLICIT_LENGTH:
        if not prefix:
            return F.scaled_dot_product_attention(query, key, value, is_causal=True)
        visible = ~_hidden(length, prefix, query.device)
        return F.scaled_dot_product_attention(query, key, value, attn_mask=visible)
    scores = (query / math.sqrt(query.shape[3])) @ key.transpose(2, 3)  # (B, heads, L, L)
    hidden = _hidden(length, prefix, query.device)
    weights = at_least_float32(scores).masked_fill_(hidden, float("-inf")).softmax(dim=-1)
    return weights.to(value.dtype) @ value


def _hidden(length: int, prefix: int, device: torch.device) -> Tensor:
    """Returns bool (L, L): True where the position of a row must not see that of a column."""
    hidden = torch.ones(length, length, dtype=torch.bool, device=device).triu(1)
    hidden[:, :prefix] = False
    return hidden
