"""A gated PixelCNN over code grids: two stacks of convolutions, no blind spot."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from stage2_prior.base import CodePrior
from stage2_prior.config import PixelCNNConfig, SamplingSettings
from stage2_prior.dropout import Dropout
from stage2_prior.grids import GridSpec, to_grids, to_sequence
from stage2_prior.pixelcnn.attention import CausalAttentionBlock
from stage2_prior.pixelcnn.context import ContextNetwork
from stage2_prior.pixelcnn.masked_conv import HorizontalConv, VerticalConv
from stage2_prior.pixelcnn.sampler import CachedPixelCNN
from stage2_prior.sampling.logits import choose, guidance_scales, guide, temperatures


class GatedActivation(nn.Module):
    """tanh(a + V_a label) * sigmoid(b + V_b label) (van den Oord et al. 2016b, equation 4)."""

    def __init__(self, width: int, num_labels: int) -> None:
        super().__init__()
        self.label_bias = nn.Embedding(num_labels, 2 * width)
        nn.init.zeros_(self.label_bias.weight)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """Maps (B, 2 width, h, w) and labels (B,) to (B, width, h, w)."""
        a: Tensor
        b: Tensor
        a, b = (x + self.label_bias(labels)[:, :, None, None]).chunk(2, dim=1)
        return a.tanh() * b.sigmoid()


class GatedLayer(nn.Module):
    """One layer of both stacks (van den Oord et al. 2016b, figure 2).

    Vertical features at (i, j) know rows above i; horizontal features know these and, in row i,
    the columns before j. The first layer sees codes and leaves out the current place; later layers
    see features that have left it out already. Features of the context are added where both stacks
    read them (equation 5), those of the place itself and without a mask.
    """

    def __init__(
        self, config: PixelCNNConfig, num_labels: int, *, first: bool, has_context: bool
    ) -> None:
        super().__init__()
        width, kernel = config.width, config.kernel_size
        self.vertical = VerticalConv(width, 2 * width, kernel, include_current=not first)
        self.horizontal = HorizontalConv(width, 2 * width, kernel, include_current=not first)
        self.vertical_to_horizontal = nn.Conv2d(2 * width, 2 * width, 1)
        self.vertical_gate = GatedActivation(width, num_labels)
        self.horizontal_gate = GatedActivation(width, num_labels)
        self.dropout = Dropout(config.dropout)
        self.horizontal_out = nn.Conv2d(width, width, 1)
        self.skip = nn.Conv2d(width, width, 1)
        self.context = nn.Conv2d(width, 2 * width, 1, bias=False) if has_context else None
        self._residual = not first  # the first layer's input knows the code to be predicted

    def forward(
        self, vertical: Tensor, horizontal: Tensor, labels: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Maps both stacks' features (B, width, h, w) to the next ones and a skip output."""
        from_above = self.vertical(vertical)  # (B, 2 width, h, w)
        if self.context is not None:
            from_above = from_above + self.context(context)
        from_left = self.horizontal(horizontal) + self.vertical_to_horizontal(from_above)
        next_vertical = self.vertical_gate(from_above, labels)
        gated = self.dropout(self.horizontal_gate(from_left, labels))
        next_horizontal = self.horizontal_out(gated)
        if self._residual:
            next_horizontal = next_horizontal + horizontal
        return next_vertical, next_horizontal, self.skip(gated)


class PixelCNNPrior(CodePrior):
    """p(codes | label, context), place by place in raster order and, at a place, grid by grid.

    Several grids must have one shape: a place then holds one code of each, and grid i at a place
    is predicted from all grids at earlier places and from grids before i at the same place. Context
    grids may have any shapes.
    """

    config: PixelCNNConfig

    def __init__(
        self,
        config: PixelCNNConfig,
        grids: tuple[GridSpec, ...],
        num_classes: int | None = None,
        vqvae_hash: str | None = None,
        context_grids: tuple[GridSpec, ...] = (),
        num_views: int = 1,
    ) -> None:
        super().__init__(config, grids, num_classes, vqvae_hash, context_grids, num_views)
        shapes = {(grid.height, grid.width) for grid in grids}
        if len(shapes) > 1:
            raise ValueError(
                f"a PixelCNN needs grids of one shape, got {sorted(shapes)}: "
                "use the transformer prior (--prior.kind transformer)"
            )
        width, num_labels = config.width, self.num_conditions
        self.code_embeddings = nn.ModuleList(nn.Embedding(g.codebook_size, width) for g in grids)
        layers = nn.ModuleList(
            GatedLayer(config, num_labels, first=i == 0, has_context=bool(context_grids))
            for i in range(config.num_layers)
        )
        self.layers = cast(Sequence[GatedLayer], layers)  # ModuleList forgets what it holds
        # What grid i reads of the grids before it at its own place; nothing for the first.
        self.same_place = nn.ModuleList(nn.Embedding(g.codebook_size, width) for g in grids[:-1])
        hidden = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in grids)
        self.hidden = cast(Sequence[nn.Conv2d], hidden)
        heads = nn.ModuleList(nn.Conv2d(width, g.codebook_size, 1) for g in grids)
        self.heads = cast(Sequence[nn.Conv2d], heads)
        self.outer_layers = (heads,)
        blocks = nn.ModuleDict(
            {
                str(i): CausalAttentionBlock(
                    width, config.num_heads, grids[0].height, grids[0].width
                )
                for i in range(config.num_layers)
                if config.attention_every and (i + 1) % config.attention_every == 0
            }
        )
        # By the number of the layer that each follows.
        self.attention_blocks = cast(dict[str, CausalAttentionBlock], blocks)
        self.context_network = (
            ContextNetwork(context_grids, grids[0], width, config.kernel_size)
            if context_grids
            else None
        )

    def forward(
        self, sequence: Tensor, labels: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Logits of every code given those before it; see `CodePrior.forward`."""
        codes = to_grids(sequence, self.grids)
        features = self.features(codes, labels, context)
        return tuple(
            rearrange(self.logits(i, features, codes[:i]), "b k h w -> b (h w) k").float()
            for i in range(len(self.grids))
        )

    def draw_sequence(
        self,
        labels: Tensor,
        settings: SamplingSettings,
        uniform: Tensor,
        context: Tensor | None = None,
    ) -> Tensor:
        """Draws place by place; guidance runs as a second half of the batch.

        The network is evaluated once per place (see `CachedPixelCNN`).
        """
        guided = settings.guided
        batch, copies = len(uniform), 2 if guided else 1
        if guided:
            labels = torch.cat([labels, torch.full_like(labels, self.null_label)])
        seen = self._context_features(context)
        network = CachedPixelCNN(self, labels, seen if seen is None else torch.cat([seen] * copies))
        codes = to_grids(
            torch.zeros_like(uniform, dtype=torch.int64, device=labels.device), self.grids
        )
        numbers = to_grids(uniform, self.grids)
        scales_and_temperatures = zip(
            guidance_scales(settings, self.num_codes),
            temperatures(settings, self.num_codes),
            strict=True,
        )
        height, width = codes[0].shape[1:]
        for row, column in product(range(height), range(width)):
            if column == 0:
                network.begin_row(row)
            features = network.features(column)  # (copies * B, E)
            drawn: list[Tensor] = []
            for i, (grid, number) in enumerate(zip(codes, numbers, strict=True)):
                logits = self._logits_here(i, features, drawn).float()  # (copies * B, K)
                scale, temperature = next(scales_and_temperatures)
                if guided:
                    logits = guide(logits[:batch], logits[batch:], scale)
                grid[:, row, column] = choose(
                    logits,
                    number[:, row, column],
                    temperature=temperature,
                    top_k=settings.top_k,
                    top_p=settings.top_p,
                )
                drawn.append(grid[:, row, column].repeat(copies))
            network.see(column, self._embed(drawn))
        return to_sequence(codes)

    def features(
        self, codes: tuple[Tensor, ...], labels: Tensor, context: Tensor | None = None
    ) -> Tensor:
        """What is known of earlier places at each place.

        Args:
            codes: int64 (B, h, w) per grid; without context, rows at the end may be left out.
            labels: int64 (B,), as for `forward`.
            context: int64 (B, Lc) or None, as for `forward`.

        Returns:
            float (B, E, h, w).
        """
        seen = self._context_features(context)
        vertical = horizontal = rearrange(self._embed(codes), "b h w e -> b e h w")
        outputs = []
        for i, layer in enumerate(self.layers):
            vertical, horizontal, skip = layer(vertical, horizontal, labels, seen)
            outputs.append(skip)
            if str(i) in self.attention_blocks:
                change = self.attention_blocks[str(i)](horizontal)
                horizontal = horizontal + change
                outputs.append(change)
        return torch.stack(outputs).sum(dim=0)

    def logits(self, grid: int, features: Tensor, earlier_grids: tuple[Tensor, ...]) -> Tensor:
        """Logits of one grid's codes (B, K, h, w).

        Args:
            grid: Its index.
            features: (B, E, h, w), from `features`.
            earlier_grids: int64 (B, h, w) per grid before it.
        """
        for embedding, earlier in zip(self.same_place[:grid], earlier_grids, strict=True):
            features = features + rearrange(embedding(earlier), "b h w e -> b e h w")
        logits: Tensor = self.heads[grid](F.silu(self.hidden[grid](F.silu(features))))
        return logits

    def _logits_here(self, grid: int, features: Tensor, drawn: list[Tensor]) -> Tensor:
        """`logits` of a single place, as matrix products: (B, E) and codes (B,) to (B, K)."""
        for embedding, earlier in zip(self.same_place[:grid], drawn, strict=True):
            features = features + embedding(earlier)
        hidden, head = self.hidden[grid], self.heads[grid]
        x = F.linear(F.silu(features), hidden.weight[:, :, 0, 0], hidden.bias)
        return F.linear(F.silu(x), head.weight[:, :, 0, 0], head.bias)

    def _embed(self, codes: Sequence[Tensor]) -> Tensor:
        """The sum of the codes' embeddings: int64 (...) per grid to (..., E)."""
        return torch.stack(
            [e(grid) for e, grid in zip(self.code_embeddings, codes, strict=True)]
        ).sum(dim=0)

    def _context_features(self, context: Tensor | None) -> Tensor | None:
        if self.context_network is None or context is None:
            return None
        features: Tensor = self.context_network(context)
        return features
