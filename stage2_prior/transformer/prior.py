"""A decoder-only transformer over the codes, all grids in one sequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stage2_prior.base import CodePrior
from stage2_prior.config import TransformerConfig
from stage2_prior.dropout import Dropout
from stage2_prior.grids import split_by_grid
from stage2_prior.numerics import at_least_float32
from stage2_prior.sampling.batching import SamplingBatch
from stage2_prior.sampling.ordering import inverse_order, step_sizes
from stage2_prior.sampling.settings import SamplingSettings
from stage2_prior.sampling.stepper import DecodingStart, SamplingRule
from stage2_prior.spec import PriorSpec
from stage2_prior.transformer.blocks import (
    Block,
    CodeEmbedding,
    ContextEmbedding,
    PositionEmbedding,
)
from stage2_prior.transformer.cached_network import CachedTransformer
from stage2_prior.transformer.decoding_step import CompiledStep
from stage2_prior.transformer.key_value_cache import CacheMemory
from stage2_prior.transformer.parallel import sample_by_confidence, sample_in_steps
from stage2_prior.transformer.prepared_weights import (
    PreparedWeights,
    WeightsVersion,
    fold_norm,
    prepare_block,
)
from stage2_prior.transformer.stepper import TransformerStepper

# GPT-2's standard deviation of every weight at initialisation.
_INIT_STD = 0.02


class TransformerPrior(CodePrior):
    """p(codes | label, context) = prod_t p(c_o(t) | c_o(<t), label, context) in an order o.

    The input at step t is the code at o(t - 1) (a learned start vector at 0), plus embeddings of
    the position being predicted and of the label. A prior of any order also adds an embedding of
    the position of that code, without which it could not tell where the codes so far lie
    (Pannatier et al. 2024, "sigma-GPTs", section 2; Yu et al. 2024, "RAR", section 3.2). Other
    priors know the raster order only, grid after grid.

    The context comes before the start, as inputs that all see each other and are seen by all. So
    it may have any shape, and goes through the network once however many codes are sampled.
    """

    supports_precision_and_compile: ClassVar[bool] = True
    config: TransformerConfig

    def __init__(self, config: TransformerConfig, spec: PriorSpec) -> None:
        super().__init__(config, spec)
        width, grids = config.width, spec.grids
        self.any_order = config.any_order
        self.code_embeddings = CodeEmbedding(grids, width)
        self.start = nn.Parameter(torch.zeros(width))
        self.target_position = PositionEmbedding(grids, width)
        self.label_embedding = nn.Embedding(spec.num_labels, width)
        self.dropout = Dropout(config.dropout)
        blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.blocks = cast(Sequence[Block], blocks)  # ModuleList forgets what it holds
        self.norm = nn.LayerNorm(width)
        self.heads = nn.ModuleList(nn.Linear(width, g.codebook_size) for g in grids)
        self.outer_layers = (self.heads,)
        self.source_position = PositionEmbedding(grids, width) if config.any_order else None
        self.context_embedding = ContextEmbedding(spec.context, width) if spec.context else None
        self._prepared: dict[torch.dtype, tuple[WeightsVersion, PreparedWeights]] = {}
        self._cache_memory = CacheMemory()
        self._initialise()

    def forward(
        self,
        sequence: Tensor,
        labels: Tensor,
        context: Tensor | None = None,
        order: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Computes the logits of every code given those before it; see `CodePrior.forward`.

        `order` is int64 (B, L), the positions in the order in which they are predicted, or None
        for the raster order. The logits are in raster order all the same.
        """
        assert order is None or self.any_order
        x = self.code_embeddings(sequence)  # (B, L, E)
        target = self.target_position()  # (L, E)
        if self.source_position is not None:
            x = x + self.source_position()
        if order is not None:
            x, target = _pick(x, order), target[order]
        start = self.start.expand(len(x), 1, -1)
        x = torch.cat([start, x[:, :-1]], dim=1) + target + self.label_embedding(labels)[:, None]
        prefix = 0
        if self.context_embedding is not None:
            before = self.context_embedding(context) + self.label_embedding(labels)[:, None]
            prefix = before.shape[1]
            x = torch.cat([before, x], dim=1)
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x, prefix)
        x = self.norm(x[:, prefix:])
        if order is not None:
            x = _pick(x, inverse_order(order))
        parts = split_by_grid(x, self.grids)
        return tuple(
            at_least_float32(head(part)) for head, part in zip(self.heads, parts, strict=True)
        )

    def _stepper(
        self,
        labels: Tensor,
        context: Tensor | None,
        settings: SamplingSettings,
        start: DecodingStart | None,
    ) -> TransformerStepper:
        if start is None:
            codes = torch.zeros(len(labels), self.num_codes, dtype=torch.int64)
            order = self.sampling_order[None].to(labels.device)
            start = DecodingStart(order, codes.to(labels.device), num_known=0)
        compiles = settings.compile == "on"
        network = CachedTransformer(
            self.prepared_weights(settings.precision),
            labels,
            None if self.context_embedding is None else self.context_embedding(context),
            self._cache_memory,
            for_compiled_step=compiles,
        )
        return TransformerStepper(network, start, CompiledStep(network) if compiles else None)

    def _sample_batch(self, batch: SamplingBatch, settings: SamplingSettings) -> Tensor:
        if settings.num_steps is None:
            return super()._sample_batch(batch, settings)
        codes, num_known = batch.start.codes, batch.start.num_known
        sizes = step_sizes(self.num_codes - num_known, settings.num_steps)
        rule = SamplingRule(settings, self.num_codes)
        with self._batch_stepper(batch, settings) as stepper:
            assert isinstance(stepper, TransformerStepper)
            if settings.step_order == "confidence":
                positions, sampled = sample_by_confidence(stepper, rule, sizes, batch.noise)
            else:
                positions = batch.start.order.expand_as(codes)[:, num_known:]
                uniform = batch.noise.block(0)
                uniform = uniform.gather(1, positions.to(uniform.device))
                sampled = sample_in_steps(stepper, rule, sizes, uniform)
        return codes.scatter(1, positions, sampled)

    def prepared_weights(self, precision: str = "float32") -> PreparedWeights:
        """Prepares the weights for decoding; again only after they have changed.

        Args:
            precision: Of the matrix products, `float32` or `bfloat16`. A prior in float64 has them
                in float64.
        """
        dtype = torch.bfloat16 if precision == "bfloat16" else self.start.dtype
        version, weights = self._prepared.get(dtype, (None, None))
        if version is None or weights is None or not version.is_current(self):
            weights = self._prepare(dtype)
            self._prepared[dtype] = WeightsVersion(self), weights
        return weights

    def _prepare(self, dtype: torch.dtype) -> PreparedWeights:
        heads = [fold_norm(self.norm, head) for head in self.heads]
        tables = [embedding.get_parameter("weight") for embedding in self.code_embeddings]
        grid_of = self.target_position.positions[:, 0]
        first_rows = torch.tensor([0, *(g.codebook_size for g in self.grids)]).cumsum(dim=0)
        first_rows = first_rows.to(grid_of.device)
        source = self.source_position
        return PreparedWeights(
            grids=self.grids,
            grid_of=grid_of,
            num_heads=self.config.num_heads,
            dtype=dtype,
            blocks=[prepare_block(block, dtype) for block in self.blocks],
            heads=[(weight.to(dtype).contiguous(), bias.to(dtype)) for weight, bias in heads],
            labels=self.label_embedding.weight,
            codes=torch.cat([*tables, self.start[None]]),
            first_row=torch.cat([first_rows[grid_of], first_rows[-1:]]),
            source_positions=None if source is None else F.pad(source(), (0, 0, 0, 1)),
            target_positions=self.target_position(),
        )

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


def _pick(x: Tensor, order: Tensor) -> Tensor:
    """Returns rows of x (B, L, E) in the order (B, L)."""
    return x.gather(1, order[:, :, None].expand_as(x))
