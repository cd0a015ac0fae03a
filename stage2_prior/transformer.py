"""A decoder-only transformer over the codes in raster order, all grids in one sequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stage2_prior.attention import CausalSelfAttention, KeyValueCache
from stage2_prior.base import CodePrior
from stage2_prior.config import SamplingSettings, TransformerConfig
from stage2_prior.dropout import Dropout
from stage2_prior.grids import GridSpec, raster_positions, split_by_grid
from stage2_prior.sampling import choose, guide

# GPT-2's standard deviation of every weight at initialisation.
_INIT_STD = 0.02


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

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, L, E) to the same shape."""
        x = x + self.dropout(self.attention(self.attention_norm(x)))
        change: Tensor = self.dropout(self._mlp(x))
        return x + change

    def step(self, x: Tensor, position: int, cache: KeyValueCache) -> Tensor:
        """Maps one position (B, 1, E), given the cached ones, without dropout."""
        x = x + self.attention.step(self.attention_norm(x), position, cache)
        return x + self._mlp(x)

    def _mlp(self, x: Tensor) -> Tensor:
        # SiLU does as well as GELU and costs a third of it on a CPU.
        change: Tensor = self.mlp_out(F.silu(self.mlp_in(self.mlp_norm(x))))
        return change


class TransformerPrior(CodePrior):
    """p(codes | label) = prod_t p(c_t | c_<t, label) in raster order.

    The input at position t is the code at t - 1 (a learned start vector at 0), plus embeddings of
    the grid, row and column being predicted and of the label.
    """

    config: TransformerConfig
    positions: Tensor

    def __init__(
        self,
        config: TransformerConfig,
        grids: tuple[GridSpec, ...],
        num_classes: int | None = None,
        vqvae_hash: str | None = None,
        context_grids: tuple[GridSpec, ...] = (),
    ) -> None:
        super().__init__(config, grids, num_classes, vqvae_hash, context_grids)
        width = config.width
        self.code_embeddings = nn.ModuleList(nn.Embedding(g.codebook_size, width) for g in grids)
        self.start = nn.Parameter(torch.zeros(width))
        self.grid_embedding = nn.Embedding(len(grids), width)
        self.row_embedding = nn.Embedding(max(g.height for g in grids), width)
        self.column_embedding = nn.Embedding(max(g.width for g in grids), width)
        self.label_embedding = nn.Embedding(self.null_label + 1, width)
        self.dropout = Dropout(config.dropout)
        blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.blocks = cast(Sequence[Block], blocks)  # ModuleList forgets what it holds
        self.norm = nn.LayerNorm(width)
        self.heads = nn.ModuleList(nn.Linear(width, g.codebook_size) for g in grids)
        self.register_buffer("positions", raster_positions(grids), persistent=False)  # (L, 3)
        self._initialise()

    def forward(
        self, sequence: Tensor, labels: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Logits of every code given those before it; see `CodePrior.forward`."""
        x = self._embed_codes(sequence)[:, :-1]  # (B, L - 1, E)
        start = self.start.expand(len(sequence), 1, -1)
        x = torch.cat([start, x], dim=1) + self._conditions(labels)
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        parts = split_by_grid(x, self.grids)
        return tuple(head(part).float() for head, part in zip(self.heads, parts, strict=True))

    def draw_sequence(
        self,
        labels: Tensor,
        settings: SamplingSettings,
        uniform: Tensor,
        context: Tensor | None = None,
    ) -> Tensor:
        """Draws with one cached pass per position; guidance runs as a second half of the batch."""
        batch, length = uniform.shape
        guided = settings.guidance_scale != 1
        if guided:
            labels = torch.cat([labels, torch.full_like(labels, self.null_label)])
        conditions = self._conditions(labels)  # (B, L, E)
        caches = [block.attention.new_cache(len(labels), length) for block in self.blocks]
        sequence = torch.zeros(batch, length, dtype=torch.int64, device=labels.device)
        x = self.start.expand(len(labels), -1)  # (B, E)
        for position, grid in enumerate(self.positions[:, 0].tolist()):
            hidden = (x + conditions[:, position])[:, None]  # (B, 1, E)
            for block, cache in zip(self.blocks, caches, strict=True):
                hidden = block.step(hidden, position, cache)
            logits = self.heads[grid](self.norm(hidden[:, 0])).float()  # (B, K)
            if guided:
                logits = guide(logits[:batch], logits[batch:], settings.guidance_scale)
            drawn = choose(logits, settings, uniform[:, position])
            sequence[:, position] = drawn
            x = self.code_embeddings[grid](drawn)
            x = torch.cat([x, x]) if guided else x
        return sequence

    def _embed_codes(self, sequence: Tensor) -> Tensor:
        parts = split_by_grid(sequence, self.grids)
        embedded = [e(part) for e, part in zip(self.code_embeddings, parts, strict=True)]
        return torch.cat(embedded, dim=1)  # (B, L, E)

    def _conditions(self, labels: Tensor) -> Tensor:
        """Where each position lies and what the image shows: (B, L, E)."""
        grid, row, column = self.positions.unbind(dim=1)
        place = self.grid_embedding(grid) + self.row_embedding(row) + self.column_embedding(column)
        conditions: Tensor = place + self.label_embedding(labels)[:, None]
        return conditions

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=_INIT_STD)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        # Keeps the variance of the residual stream at one (GPT-2, section 2.3).
        scale = (2 * self.config.num_layers) ** -0.5
        for block in self.blocks:
            nn.init.normal_(block.attention.project.weight, std=_INIT_STD * scale)
            nn.init.normal_(block.mlp_out.weight, std=_INIT_STD * scale)
        nn.init.normal_(self.start, std=_INIT_STD)
