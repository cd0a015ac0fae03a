"""A decoder-only transformer over the codes, all grids in one sequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stage2_prior.base import CodePrior
from stage2_prior.config import SamplingSettings, TransformerConfig
from stage2_prior.dropout import Dropout
from stage2_prior.grids import GridSpec, raster_positions, split_by_grid
from stage2_prior.sampling.noise import AddressedNoise
from stage2_prior.sampling.ordering import inverse_order, step_sizes
from stage2_prior.transformer.attention import CausalSelfAttention
from stage2_prior.transformer.decoding_order import Drawing, draw_by_confidence, draw_in_order
from stage2_prior.transformer.key_value_cache import CacheMemory
from stage2_prior.transformer.prepared_weights import PreparedWeights, WeightsSeen, prepare_weights
from stage2_prior.transformer.sampler import TransformerSampler

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

    def forward(self, x: Tensor, prefix: int = 0) -> Tensor:
        """Maps (B, L, E) to the same shape; every position sees the first `prefix` ones."""
        x = x + self.dropout(self.attention(self.attention_norm(x), prefix))
        change: Tensor = self.dropout(self._mlp(x))
        return x + change

    def _mlp(self, x: Tensor) -> Tensor:
        # SiLU does as well as GELU and costs a third of it on a CPU.
        change: Tensor = self.mlp_out(F.silu(self.mlp_in(self.mlp_norm(x))))
        return change


class PlaceEmbedding(nn.Module):
    """Where a code lies, as the sum of embeddings of its grid, row and column."""

    def __init__(self, grids: tuple[GridSpec, ...], width: int) -> None:
        super().__init__()
        self.grid = nn.Embedding(len(grids), width)
        self.row = nn.Embedding(max(g.height for g in grids), width)
        self.column = nn.Embedding(max(g.width for g in grids), width)

    def forward(self, positions: Tensor) -> Tensor:
        """Maps int64 (L, 3), grid, row and column, to (L, E)."""
        grid, row, column = positions.unbind(dim=1)
        place: Tensor = self.grid(grid) + self.row(row) + self.column(column)
        return place


class TransformerPrior(CodePrior):
    """p(codes | label, context) = prod_t p(c_o(t) | c_o(<t), label, context) in an order o.

    The input at step t is the code at o(t - 1) (a learned start vector at 0), plus embeddings of
    the grid, row and column being predicted and of the label. A prior of any order also adds an
    embedding of the place of that code, without which it could not tell where the codes so far lie
    (Pannatier et al. 2024, "sigma-GPTs", section 2; Yu et al. 2024, "RAR", section 3.2). Other
    priors know the raster order only, grid after grid.

    Context codes come before the start, as inputs that all see each other and are seen by all. So
    context grids may have any shape, and go through the network once however many codes are drawn.
    """

    config: TransformerConfig
    positions: Tensor
    context_positions: Tensor

    def __init__(
        self,
        config: TransformerConfig,
        grids: tuple[GridSpec, ...],
        num_classes: int | None = None,
        vqvae_hash: str | None = None,
        context_grids: tuple[GridSpec, ...] = (),
        num_views: int = 1,
    ) -> None:
        super().__init__(config, grids, num_classes, vqvae_hash, context_grids, num_views)
        width = config.width
        self.code_embeddings = nn.ModuleList(nn.Embedding(g.codebook_size, width) for g in grids)
        self.start = nn.Parameter(torch.zeros(width))
        self.grid_embedding = nn.Embedding(len(grids), width)
        self.row_embedding = nn.Embedding(max(g.height for g in grids), width)
        self.column_embedding = nn.Embedding(max(g.width for g in grids), width)
        self.label_embedding = nn.Embedding(self.num_conditions, width)
        self.dropout = Dropout(config.dropout)
        blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.blocks = cast(Sequence[Block], blocks)  # ModuleList forgets what it holds
        self.norm = nn.LayerNorm(width)
        self.heads = nn.ModuleList(nn.Linear(width, g.codebook_size) for g in grids)
        self.outer_layers = (self.heads,)
        if config.any_order:
            self.source_place = PlaceEmbedding(grids, width)
        self.register_buffer("positions", raster_positions(grids), persistent=False)  # (L, 3)
        if context_grids:
            self.context_embeddings = nn.ModuleList(
                nn.Embedding(g.codebook_size, width) for g in context_grids
            )
            self.context_place = PlaceEmbedding(context_grids, width)
            places = raster_positions(context_grids)
            self.register_buffer("context_positions", places, persistent=False)  # (Lc, 3)
        self._prepared: dict[torch.dtype, tuple[WeightsSeen, PreparedWeights]] = {}
        self.cache_memory = CacheMemory()
        self._initialise()

    @property
    def any_order(self) -> bool:
        """Whether codes can be predicted in other orders than the raster's."""
        return self.config.any_order

    @property
    def has_sampler_options(self) -> bool:
        """Whether `SamplingSettings.precision` and `compile` may be chosen."""
        return True

    @property
    def fills_rows(self) -> bool:
        """The sampler fills up what it multiplies, not the batch: that is little for few images."""
        return True

    def forward(
        self,
        sequence: Tensor,
        labels: Tensor,
        context: Tensor | None = None,
        order: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Logits of every code given those before it; see `CodePrior.forward`.

        `order` is int64 (B, L), the positions in the order in which they are predicted, or None
        for the raster order. The logits lie in raster order all the same.
        """
        assert order is None or self.any_order
        x = _embed(self.code_embeddings, sequence, self.grids)  # (B, L, E)
        place = self._target_place()  # (L, E)
        if self.any_order:
            x = x + self.source_place(self.positions)
        if order is not None:
            x, place = _pick(x, order), place[order]
        start = self.start.expand(len(x), 1, -1)
        x = torch.cat([start, x[:, :-1]], dim=1) + place + self.label_embedding(labels)[:, None]
        prefix = 0
        if context is not None:
            before = self.embed_context(context) + self.label_embedding(labels)[:, None]
            prefix = before.shape[1]
            x = torch.cat([before, x], dim=1)
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x, prefix)
        x = self.norm(x[:, prefix:])
        if order is not None:
            x = _pick(x, inverse_order(order))
        parts = split_by_grid(x, self.grids)
        return tuple(head(part).float() for head, part in zip(self.heads, parts, strict=True))

    def draw_sequence(
        self,
        labels: Tensor,
        settings: SamplingSettings,
        uniform: Tensor,
        context: Tensor | None = None,
    ) -> Tensor:
        """Draws with one cached pass per position; see `CodePrior.draw_sequence`."""
        order = torch.arange(self.num_codes, device=labels.device)[None]
        codes = torch.zeros(uniform.shape, dtype=torch.int64, device=labels.device)
        with TransformerSampler(self, labels, settings, context) as sampler:
            drawing = Drawing(sampler, codes, order, num_known=0)
            return draw_in_order(drawing, [1] * self.num_codes, uniform)

    def draw_open(
        self,
        labels: Tensor,
        settings: SamplingSettings,
        noise: AddressedNoise,
        context: Tensor | None,
        codes: Tensor,
        order: Tensor,
        num_known: int,
    ) -> Tensor:
        """Draws all but the first `num_known` positions of the order; see `CodePrior.draw_open`."""
        sizes = step_sizes(self.num_codes - num_known, settings.num_steps)
        with TransformerSampler(self, labels, settings, context) as sampler:
            drawing = Drawing(sampler, codes, order, num_known)
            if settings.num_steps is not None and settings.step_order == "confidence":
                return draw_by_confidence(drawing, sizes, noise)
            return draw_in_order(drawing, sizes, noise.block(0))

    def embed_context(self, context: Tensor) -> Tensor:
        """The inputs that come before the start, without the label: (B, Lc, E)."""
        x = _embed(self.context_embeddings, context, self.context_grids)
        embedded: Tensor = x + self.context_place(self.context_positions)
        return embedded

    def prepared_weights(self, dtype: torch.dtype) -> PreparedWeights:
        """The weights for the sampler, made anew only where they have changed."""
        seen, weights = self._prepared.get(dtype, (None, None))
        if seen is None or weights is None or not seen.unchanged(self):
            weights = prepare_weights(self, dtype)
            self._prepared[dtype] = WeightsSeen(self), weights
        return weights

    def code_table(self) -> tuple[Tensor, Tensor]:
        """All code embeddings in one table, for the sampler.

        Returns:
            float32 (sum of K_i + 1, E), the start vector in the last row; and int64 (L + 1,), the
            row of code 0 at each position, the last one being the start vector's.
        """
        weights = [e.get_parameter("weight") for e in self.code_embeddings]
        table = torch.cat([*weights, self.start[None]])
        sizes = torch.tensor([0, *(g.codebook_size for g in self.grids)]).cumsum(dim=0)
        first_rows = [int(sizes[grid]) for grid in self.positions[:, 0].tolist()]
        return table, torch.tensor([*first_rows, len(table) - 1], device=table.device)

    def place_tables(self) -> tuple[Tensor | None, Tensor]:
        """What a code's place and the place asked for add to an input, for the sampler.

        Returns:
            float32 (L + 1, E), zero for the start in the last row, None for a prior of one order;
            and float32 (L, E).
        """
        if not self.any_order:
            return None, self._target_place()
        return F.pad(self.source_place(self.positions), (0, 0, 0, 1)), self._target_place()

    def _target_place(self) -> Tensor:
        """The place being predicted, by position: (L, E)."""
        grid, row, column = self.positions.unbind(dim=1)
        place: Tensor = (
            self.grid_embedding(grid) + self.row_embedding(row) + self.column_embedding(column)
        )
        return place

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


def _embed(embeddings: nn.ModuleList, sequence: Tensor, grids: tuple[GridSpec, ...]) -> Tensor:
    """Codes int64 (B, L), each grid's by its own embedding, to (B, L, E)."""
    parts = split_by_grid(sequence, grids)
    return torch.cat([e(part) for e, part in zip(embeddings, parts, strict=True)], dim=1)


def _pick(x: Tensor, order: Tensor) -> Tensor:
    """Rows of x (B, L, E) as order (B, L) names them."""
    return x.gather(1, order[:, :, None].expand_as(x))
