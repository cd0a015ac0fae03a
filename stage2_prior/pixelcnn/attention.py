"""Causal attention between the layers of a PixelCNN: what a convolution cannot reach.

Chen et al. 2017, "PixelSNAIL: An Improved Autoregressive Generative Model", section 2.
"""

from __future__ import annotations

import math

import torch
from einops import rearrange
from torch import Tensor, nn

from stage2_prior.transformer.attention import causal_attention


class AttentionCache:
    """Keys and values of the places so far, in buffers that never grow.

    Args:
        batch: B.
        num_heads: Attention heads.
        places: h * w.
        head_dim: Features per head.
        like: Gives dtype and device.
    """

    def __init__(
        self, batch: int, num_heads: int, places: int, head_dim: int, like: Tensor
    ) -> None:
        self.keys = like.new_zeros(batch * num_heads, places, head_dim)
        self.values = like.new_zeros(batch * num_heads, places, head_dim)


class CausalAttentionBlock(nn.Module):
    """Multi-head attention of each place to itself and those before it in raster order.

    The features it is given know, at each place, only the codes before that place, so that a place
    may attend to itself. The paper's keys also see the code of their own place, and its mask leaves
    the place itself out; what is known afterwards is the same. As in the paper, queries and keys
    are told where they lie; here by learned embeddings of row and column.

    Args:
        width: E.
        num_heads: Attention heads; divides `width`.
        height: h, rows of the grid.
        columns: w, columns of the grid.
    """

    def __init__(self, width: int, num_heads: int, height: int, columns: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = nn.LayerNorm(width)  # over the features of one place, never over space
        self.row_embedding = nn.Embedding(height, width)
        self.column_embedding = nn.Embedding(columns, width)
        self.to_qkv = nn.Linear(width, 3 * width, bias=False)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Maps features (B, E, h, w) to what is to be added to them; fewer rows may be given."""
        height, columns = x.shape[2:]
        places = rearrange(x, "b e h w -> b (h w) e")
        inputs = self.norm(places) + self._where()[: height * columns]
        query, key, value = rearrange(
            self.to_qkv(inputs), "b l (three n d) -> three b n l d", three=3, n=self.num_heads
        )
        merged = rearrange(causal_attention(query, key, value), "b n l d -> b l (n d)")
        change: Tensor = rearrange(self.project(merged), "b (h w) e -> b e h w", h=height)
        return change

    def step(self, x: Tensor, place: int, cache: AttentionCache) -> Tensor:
        """One place of `forward`: maps (B, E) to (B, E), the places before being in `cache`."""
        row, column = divmod(place, self.column_embedding.num_embeddings)
        where = self.row_embedding.weight[row] + self.column_embedding.weight[column]
        query, key, value = rearrange(
            self.to_qkv(self.norm(x) + where),
            "b (three n d) -> three (b n) 1 d",
            three=3,
            n=self.num_heads,
        )
        cache.keys[:, place], cache.values[:, place] = key[:, 0], value[:, 0]
        keys, values = cache.keys[:, : place + 1], cache.values[:, : place + 1]
        scores = (query / math.sqrt(query.shape[2])) @ keys.transpose(1, 2)  # (B * heads, 1, l)
        merged = torch.bmm(scores.softmax(dim=-1), values)
        change: Tensor = self.project(rearrange(merged, "(b n) 1 d -> b (n d)", n=self.num_heads))
        return change

    def new_cache(self, batch: int) -> AttentionCache:
        """An empty cache for the whole grid."""
        places = self.row_embedding.num_embeddings * self.column_embedding.num_embeddings
        weight = self.project.weight
        return AttentionCache(
            batch, self.num_heads, places, weight.shape[0] // self.num_heads, weight
        )

    def _where(self) -> Tensor:
        rows, columns = self.row_embedding.weight, self.column_embedding.weight
        return rearrange(rows[:, None] + columns, "h w e -> (h w) e")
