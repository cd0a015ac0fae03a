"""A gated PixelCNN over code grids: two stacks of convolutions, no blind spot."""

from __future__ import annotations

from itertools import product

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from stage2_prior.base import CodePrior
from stage2_prior.config import PixelCNNConfig, SamplingSettings
from stage2_prior.dropout import Dropout
from stage2_prior.grids import GridSpec, to_grids, to_sequence
from stage2_prior.masked_conv import HorizontalConv, VerticalConv
from stage2_prior.sampling import choose, guide


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
    see features that have left it out already.
    """

    def __init__(self, config: PixelCNNConfig, num_labels: int, *, first: bool) -> None:
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
        self._residual = not first  # the first layer's input knows the code to be predicted

    def forward(
        self, vertical: Tensor, horizontal: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Maps both stacks' features (B, width, h, w) to the next ones and a skip output."""
        from_above = self.vertical(vertical)  # (B, 2 width, h, w)
        from_left = self.horizontal(horizontal) + self.vertical_to_horizontal(from_above)
        next_vertical = self.vertical_gate(from_above, labels)
        gated = self.dropout(self.horizontal_gate(from_left, labels))
        next_horizontal = self.horizontal_out(gated)
        if self._residual:
            next_horizontal = next_horizontal + horizontal
        return next_vertical, next_horizontal, self.skip(gated)


class PixelCNNPrior(CodePrior):
    """p(codes | label), place by place in raster order and, at a place, grid by grid.

    Several grids must have one shape: a place then holds one code of each, and grid i at a place
    is predicted from all grids at earlier places and from grids before i at the same place.
    """

    config: PixelCNNConfig

    def __init__(
        self,
        config: PixelCNNConfig,
        grids: tuple[GridSpec, ...],
        num_classes: int | None = None,
        vqvae_hash: str | None = None,
        context_grids: tuple[GridSpec, ...] = (),
    ) -> None:
        super().__init__(config, grids, num_classes, vqvae_hash, context_grids)
        shapes = {(grid.height, grid.width) for grid in grids}
        if len(shapes) > 1:
            raise ValueError(
                f"a PixelCNN needs grids of one shape, got {sorted(shapes)}: "
                "use the transformer prior (--prior.kind transformer)"
            )
        width, num_labels = config.width, self.null_label + 1
        self.code_embeddings = nn.ModuleList(nn.Embedding(g.codebook_size, width) for g in grids)
        self.layers = nn.ModuleList(
            GatedLayer(config, num_labels, first=i == 0) for i in range(config.num_layers)
        )
        # What grid i reads of the grids before it at its own place; nothing for the first.
        self.same_place = nn.ModuleList(nn.Embedding(g.codebook_size, width) for g in grids[:-1])
        self.hidden = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in grids)
        self.heads = nn.ModuleList(nn.Conv2d(width, g.codebook_size, 1) for g in grids)

    def forward(
        self, sequence: Tensor, labels: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Logits of every code given those before it; see `CodePrior.forward`."""
        codes = to_grids(sequence, self.grids)
        features = self._features(codes, labels)
        return tuple(
            rearrange(self._head(i, features, codes[:i]), "b k h w -> b (h w) k").float()
            for i in range(len(self.grids))
        )

    def draw_sequence(
        self,
        labels: Tensor,
        settings: SamplingSettings,
        uniform: Tensor,
        context: Tensor | None = None,
    ) -> Tensor:
        """Draws place by place; guidance runs as a second half of the batch."""
        guided = settings.guidance_scale != 1
        batch, copies = len(uniform), 2 if guided else 1
        if guided:
            labels = torch.cat([labels, torch.full_like(labels, self.null_label)])
        empty = torch.zeros(uniform.shape, dtype=torch.int64, device=labels.device)
        codes = to_grids(empty, self.grids)
        numbers = to_grids(uniform, self.grids)
        for row, column in product(range(self.grids[0].height), range(self.grids[0].width)):
            rows = tuple(grid[:, : row + 1].repeat(copies, 1, 1) for grid in codes)
            here = (..., slice(row, row + 1), slice(column, column + 1))
            features = self._features(rows, labels)[here]  # (copies * B, width, 1, 1)
            for i, grid in enumerate(codes):
                drawn = tuple(earlier[here].repeat(copies, 1, 1) for earlier in codes[:i])
                logits = self._head(i, features, drawn)[:, :, 0, 0].float()  # (copies * B, K)
                if guided:
                    logits = guide(logits[:batch], logits[batch:], settings.guidance_scale)
                grid[:, row, column] = choose(logits, settings, numbers[i][:, row, column])
        return to_sequence(codes)

    def _features(self, codes: tuple[Tensor, ...], labels: Tensor) -> Tensor:
        """What is known of earlier places at each place: (B, width, h, w)."""
        embedded = torch.stack(
            [e(grid) for e, grid in zip(self.code_embeddings, codes, strict=True)]
        ).sum(dim=0)  # (B, h, w, width)
        vertical = horizontal = rearrange(embedded, "b h w e -> b e h w")
        skips = []
        for layer in self.layers:
            vertical, horizontal, skip = layer(vertical, horizontal, labels)
            skips.append(skip)
        return torch.stack(skips).sum(dim=0)

    def _head(self, grid: int, features: Tensor, earlier_grids: tuple[Tensor, ...]) -> Tensor:
        for embedding, earlier in zip(self.same_place[:grid], earlier_grids, strict=True):
            features = features + rearrange(embedding(earlier), "b h w e -> b e h w")
        logits: Tensor = self.heads[grid](F.silu(self.hidden[grid](F.silu(features))))
        return logits  # (B, K, h, w)
