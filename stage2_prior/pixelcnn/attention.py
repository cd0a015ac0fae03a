"""Causal attention between the layers of a PixelCNN: what a convolution cannot reach.

Chen et al. 2017, "PixelSNAIL: An Improved Autoregressive Generative Model", section 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from stage2_prior.attention import causal_attention
from stage2_prior.grids import GridSpec


@dataclass(frozen=True)
class AttentionCache:
    """Keys and values of the positions so far, in buffers for the whole grid."""

    keys: Tensor
    """(B * heads, h * w, d)."""
    values: Tensor
    """(B * heads, h * w, d)."""


class CausalAttentionBlock(nn.Module):
    """Multi-head attention of each position to itself and those before it in raster order.

    Its input features depend, at each position, only on the codes before it, so that a position may
    attend to itself. The paper's keys also see the code of their own position, and its mask leaves
    the position itself out; the outputs depend on the same codes. As in the paper, queries and keys
    know their position; here by learned embeddings of row and column.

    Args:
        width: E.
        num_heads: Attention heads; divides `width`.
        grid: Its shape is that of the features.
    """

    def __init__(self, width: int, num_heads: int, grid: GridSpec) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = nn.LayerNorm(width)  # over the features of one position, never over space
        self.row_embedding = nn.Embedding(grid.height, width)
        self.column_embedding = nn.Embedding(grid.width, width)
        self.to_qkv = nn.Linear(width, 3 * width, bias=False)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Maps features (B, E, h, w) to a residual of that shape; last rows may be left out."""
        height, columns = x.shape[2:]
        sequence = rearrange(x, "b e h w -> b (h w) e")
        inputs = self.norm(sequence) + self._positions()[: height * columns]
        query, key, value = rearrange(
            self.to_qkv(inputs), "b l (three n d) -> three b n l d", three=3, n=self.num_heads
        )
        merged = rearrange(causal_attention(query, key, value), "b n l d -> b l (n d)")
        change: Tensor = rearrange(self.project(merged), "b (h w) e -> b e h w", h=height)
        return change

    def step(self, x: Tensor, position: int, cache: AttentionCache) -> Tensor:
        """Computes `forward` at one position, (B, E) to (B, E), the earlier ones in `cache`."""
        row, column = divmod(position, self.column_embedding.num_embeddings)
        embedded = self.row_embedding.weight[row] + self.column_embedding.weight[column]
        query, key, value = rearrange(
            self.to_qkv(self.norm(x) + embedded),
            "b (three n d) -> three (b n) 1 d",
            three=3,
            n=self.num_heads,
        )
        cache.keys[:, position], cache.values[:, position] = key[:, 0], value[:, 0]
        keys, values = cache.keys[:, : position + 1], cache.values[:, : position + 1]
        scores = (query / math.sqrt(query.shape[2])) @ keys.transpose(1, 2)  # (B * heads, 1, l)
        merged = torch.bmm(scores.softmax(dim=-1), values)
        change: Tensor = self.project(rearrange(merged, "(b n) 1 d -> b (n d)", n=self.num_heads))
        return change

    def new_cache(self, batch: int) -> AttentionCache:
        """Makes an empty cache."""
        num_positions = self.row_embedding.num_embeddings * self.column_embedding.num_embeddings
        weight = self.project.weight
        shape = (batch * self.num_heads, num_positions, weight.shape[0] // self.num_heads)
        return AttentionCache(weight.new_zeros(shape), weight.new_zeros(shape))

    def _positions(self) -> Tensor:
        rows, columns = self.row_embedding.weight, self.column_embedding.weight
        return rearrange(rows[:, None] + columns, "h w e -> (h w) e")
