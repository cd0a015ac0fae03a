"""Causal self-attention over a whole sequence."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

# Up to this length the explicit form below beats the CPU's fused kernel, whose backward alone is a
# third of a training step; beyond it the (L, L) weights cost too much memory.
_EXPLICIT_LENGTH = 256


def causal_attention(query: Tensor, key: Tensor, value: Tensor, prefix: int = 0) -> Tensor:
    """softmax(Q K^T / sqrt(d)) V, each position seeing itself and those before it.

    Args:
        query: (B, heads, L, d).
        key: (B, heads, L, d).
        value: (B, heads, L, d).
        prefix: The first positions, which every position sees, they too.

    Returns:
        (B, heads, L, d).
    """
    length = query.shape[2]
    if query.device.type != "cpu" or length > _EXPLICIT_LENGTH:
        if not prefix:
            return F.scaled_dot_product_attention(query, key, value, is_causal=True)
        seen = ~_hidden(length, prefix, query.device)
        return F.scaled_dot_product_attention(query, key, value, attn_mask=seen)
    scores = (query / math.sqrt(query.shape[3])) @ key.transpose(2, 3)  # (B, heads, L, L)
    hidden = _hidden(length, prefix, query.device)
    weights = scores.float().masked_fill_(hidden, float("-inf")).softmax(dim=-1)
    return weights.to(value.dtype) @ value


def _hidden(length: int, prefix: int, device: torch.device) -> Tensor:
    """What the position of a row must not see: bool (L, L)."""
    hidden = torch.ones(length, length, dtype=torch.bool, device=device).triu(1)
    hidden[:, :prefix] = False
    return hidden


class CausalSelfAttention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017, section 3.2.2) with a causal mask."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.to_qkv = nn.Linear(width, 3 * width, bias=False)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor, prefix: int = 0) -> Tensor:
        """Maps (B, L, E) to the same shape; every position sees the first `prefix` ones."""
        query, key, value = rearrange(
            self.to_qkv(x), "b l (three n d) -> three b n l d", three=3, n=self.num_heads
        )
        heads = causal_attention(query, key, value, prefix)
        projected: Tensor = self.project(rearrange(heads, "b n l d -> b l (n d)"))
        return projected
