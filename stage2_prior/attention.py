"""Causal self-attention over a whole sequence, or over one more position of a cached one."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

# Up to this length the explicit form below beats the CPU's fused kernel, whose backward alone is a
# third of a training step; beyond it the (L, L) weights cost too much memory.
_EXPLICIT_LENGTH = 256


class KeyValueCache:
    """Keys and values of the positions so far, in buffers that never grow.

    Args:
        batch: B.
        num_heads: Attention heads.
        length: L, the most positions it will hold.
        head_dim: Features per head.
        like: Gives dtype and device.
    """

    def __init__(
        self, batch: int, num_heads: int, length: int, head_dim: int, like: Tensor
    ) -> None:
        self.keys = like.new_zeros(batch, num_heads, length, head_dim)
        self.values = like.new_zeros(batch, num_heads, length, head_dim)

    def append(self, position: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Stores (B, heads, 1, head_dim) at `position`; gives all up to and including it."""
        self.keys[:, :, position] = key[:, :, 0]
        self.values[:, :, position] = value[:, :, 0]
        return self.keys[:, :, : position + 1], self.values[:, :, : position + 1]


def causal_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(Q K^T / sqrt(d)) V, each position seeing itself and those before it.

    Args:
        query: (B, heads, L, d).
        key: (B, heads, L, d).
        value: (B, heads, L, d).

    Returns:
        (B, heads, L, d).
    """
    length = query.shape[2]
    if query.device.type != "cpu" or length > _EXPLICIT_LENGTH:
        return F.scaled_dot_product_attention(query, key, value, is_causal=True)
    scores = (query / math.sqrt(query.shape[3])) @ key.transpose(2, 3)  # (B, heads, L, L)
    future = torch.ones(length, length, dtype=torch.bool, device=query.device).triu(1)
    weights = scores.float().masked_fill_(future, float("-inf")).softmax(dim=-1)
    return weights.to(value.dtype) @ value


class CausalSelfAttention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017, section 3.2.2) with a causal mask."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.to_qkv = nn.Linear(width, 3 * width, bias=False)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, L, E) to the same shape."""
        return self._merge(causal_attention(*self._heads(x)))

    def step(self, x: Tensor, position: int, cache: KeyValueCache) -> Tensor:
        """The last row of `forward` for x (B, 1, E) at `position`, the rest being in `cache`."""
        query, key, value = self._heads(x)
        keys, values = cache.append(position, key, value)
        scores = (query / math.sqrt(query.shape[3])) @ keys.transpose(2, 3)  # (B, heads, 1, L)
        return self._merge(scores.softmax(dim=-1) @ values)

    def new_cache(self, batch: int, length: int) -> KeyValueCache:
        """An empty cache for `length` positions."""
        weight = self.project.weight
        return KeyValueCache(
            batch, self.num_heads, length, weight.shape[0] // self.num_heads, weight
        )

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = rearrange(
            self.to_qkv(x), "b l (three n d) -> three b n l d", three=3, n=self.num_heads
        )
        return query, key, value

    def _merge(self, heads: Tensor) -> Tensor:
        projected: Tensor = self.project(rearrange(heads, "b n l d -> b l (n d)"))
        return projected
