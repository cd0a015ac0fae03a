"""The modules of which the transformer prior consists."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from stage2_prior.attention import causal_attention
from stage2_prior.config import TransformerConfig
from stage2_prior.dropout import Dropout
from stage2_prior.grids import GridSpec, raster_positions, split_by_grid
from stage2_prior.spec import ContextSpec, FeatureSpec


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


class Block(nn.Module):
    """Pre-norm attention and MLP, each on its own residual branch (Xiong et al. 2020)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width)
        self.attention = CausalSelfAttention(config.width, config.num_heads)
        self.mlp_norm = nn.LayerNorm(config.width)
        self.mlp_in = nn.Linear(config.width, 4 * config.width)
        self.mlp_out = nn.Linear(4 * config.width, config.width)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, prefix: int = 0) -> Tensor:
        """Maps (B, L, E) to the same shape; every position sees the first `prefix` ones."""
        x = x + self.dropout(self.attention(self.attention_norm(x), prefix))
        # SiLU does as well as GELU and costs a third of it on a CPU.
        change: Tensor = self.dropout(self.mlp_out(F.silu(self.mlp_in(self.mlp_norm(x)))))
        return x + change


class PositionEmbedding(nn.Module):
    """Embeds positions of a sequence of grids: the sum of grid, row and column embeddings."""

    positions: Tensor

    def __init__(self, grids: tuple[GridSpec, ...], width: int) -> None:
        super().__init__()
        self.grid = nn.Embedding(len(grids), width)
        self.row = nn.Embedding(max(g.height for g in grids), width)
        self.column = nn.Embedding(max(g.width for g in grids), width)
        self.register_buffer("positions", raster_positions(grids), persistent=False)  # (L, 3)

    def forward(self) -> Tensor:
        """Computes the embeddings of all positions in raster order: (L, E)."""
        grid, row, column = self.positions.unbind(dim=1)
        embedded: Tensor = self.grid(grid) + self.row(row) + self.column(column)
        return embedded


class CodeEmbedding(nn.ModuleList):
    """Embeds a sequence of codes, each grid's codes by an embedding of their own."""

    def __init__(self, grids: tuple[GridSpec, ...], width: int) -> None:
        super().__init__(nn.Embedding(grid.codebook_size, width) for grid in grids)
        self._grids = grids

    def forward(self, sequence: Tensor) -> Tensor:
        """Maps int64 (B, L) to (B, L, E)."""
        parts = split_by_grid(sequence, self._grids)
        return torch.cat([embed(part) for embed, part in zip(self, parts, strict=True)], dim=1)


class ContextEmbedding(nn.Module):
    """Embeds a context, code grids or float features, with its positions."""

    def __init__(self, spec: ContextSpec, width: int) -> None:
        super().__init__()
        if isinstance(spec, FeatureSpec):
            self.values: nn.Module = nn.Linear(spec.dim, width)
            grids: tuple[GridSpec, ...] = (GridSpec(spec.height, spec.width, 1),)
        else:
            self.values, grids = CodeEmbedding(spec, width), spec
        self.position = PositionEmbedding(grids, width)

    def forward(self, context: Tensor) -> Tensor:
        """Maps int64 (B, Lc) or float (B, Lc, D) to (B, Lc, E)."""
        embedded: Tensor = self.values(context) + self.position()
        return embedded
