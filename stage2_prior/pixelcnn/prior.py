"""A gated PixelCNN over code grids: two stacks of convolutions, no blind spot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from einops import rearrange
from torch import Tensor, nn

from stage2_prior.base import CodePrior
from stage2_prior.config import PixelCNNConfig
from stage2_prior.grids import to_grids
from stage2_prior.numerics import at_least_float32
from stage2_prior.pixelcnn.attention import CausalAttentionBlock
from stage2_prior.pixelcnn.cached_network import CachedPixelCNN
from stage2_prior.pixelcnn.context import ContextNetwork
from stage2_prior.pixelcnn.layers import CodeEmbedding, GatedLayer, OutputHeads
from stage2_prior.pixelcnn.stepper import PixelCNNStepper
from stage2_prior.sampling.padding import pad_rows
from stage2_prior.sampling.settings import SamplingSettings
from stage2_prior.sampling.stepper import DecodingStart
from stage2_prior.spec import PriorSpec


class PixelCNNPrior(CodePrior):
    """p(codes | label, context), position by position in raster order, grid by grid at each.

    Several grids must have one shape: a position then holds one code of each, and grid i at a
    position is predicted from all grids at earlier positions and from grids before i at the same
    position. The context may have any shape.
    """

    config: PixelCNNConfig

    def __init__(self, config: PixelCNNConfig, spec: PriorSpec) -> None:
        super().__init__(config, spec)
        width, grids, num_labels = config.width, spec.grids, spec.num_labels
        shapes = {(grid.height, grid.width) for grid in grids}
        if len(shapes) > 1:
            raise ValueError(
                f"a PixelCNN needs grids of one shape, got {sorted(shapes)}: "
                "use the transformer prior (--prior.kind transformer)"
            )
        self.code_embeddings = CodeEmbedding(grids, width)
        layers = nn.ModuleList(
            GatedLayer(config, num_labels, first=i == 0, has_context=bool(spec.context))
            for i in range(config.num_layers)
        )
        self.layers = cast(Sequence[GatedLayer], layers)  # ModuleList forgets what it holds
        self.output = OutputHeads(grids, width)
        self.outer_layers = (self.output.last,)
        blocks = nn.ModuleDict(
            {
                str(i): CausalAttentionBlock(width, config.num_heads, grids[0])
                for i in range(config.num_layers)
                if config.attention_every and (i + 1) % config.attention_every == 0
            }
        )
        # By the number of the layer that each follows.
        self.attention_blocks = cast(dict[str, CausalAttentionBlock], blocks)
        self.context_network = (
            ContextNetwork(spec.context, grids[0], width, config.kernel_size)
            if spec.context
            else None
        )

    @property
    def sampling_order(self) -> Tensor:
        """Position by position, and grid by grid at each: int64 (L,)."""
        return rearrange(
            torch.arange(self.num_codes), "(grid position) -> (position grid)", grid=len(self.grids)
        )

    def forward(
        self, sequence: Tensor, labels: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Computes the logits of every code given those before it; see `CodePrior.forward`."""
        codes = to_grids(sequence, self.grids)
        features = self.features(codes, labels, context)
        return tuple(
            at_least_float32(rearrange(self.output(i, features, codes[:i]), "b k h w -> b (h w) k"))
            for i in range(len(self.grids))
        )

    def features(
        self, codes: tuple[Tensor, ...], labels: Tensor, context: Tensor | None = None
    ) -> Tensor:
        """Computes features of each position from the codes at earlier positions.

        Args:
            codes: int64 (B, h, w) per grid; without context, rows at the end may be left out.
            labels: int64 (B,), as for `forward`.
            context: As for `forward`.

        Returns:
            float (B, E, h, w).
        """
        from_context = self._context_features(context)
        vertical = horizontal = rearrange(self.code_embeddings(codes), "b h w e -> b e h w")
        outputs = []
        for i, layer in enumerate(self.layers):
            vertical, horizontal, skip = layer(vertical, horizontal, labels, from_context)
            outputs.append(skip)
            if str(i) in self.attention_blocks:
                change = self.attention_blocks[str(i)](horizontal)
                horizontal = horizontal + change
                outputs.append(change)
        return torch.stack(outputs).sum(dim=0)

    def _stepper(
        self,
        labels: Tensor,
        context: Tensor | None,
        settings: SamplingSettings,  # noqa: ARG002 - one precision, not compiled
        start: DecodingStart | None,  # noqa: ARG002 - one order
    ) -> PixelCNNStepper:
        features = self._context_features(context)
        network = CachedPixelCNN(
            self.layers,
            {int(i): block for i, block in self.attention_blocks.items()},
            pad_rows(labels),
            None if features is None else pad_rows(features),
            columns=self.grids[0].width,
        )
        return PixelCNNStepper(
            network, self.code_embeddings, self.output, self.grids, batch=len(labels)
        )

    def _context_features(self, context: Tensor | None) -> Tensor | None:
        if self.context_network is None or context is None:
            return None
        features: Tensor = self.context_network(context)
        return features
