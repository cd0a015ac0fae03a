"""The modules of which the PixelCNN prior consists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from stage2_prior.config import PixelCNNConfig
from stage2_prior.dropout import Dropout
from stage2_prior.grids import GridSpec
from stage2_prior.pixelcnn.masked_conv import HorizontalConv, VerticalConv


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
    the columns before j. The first layer sees codes and leaves out the current position; later
    layers see features that have left it out already. Features of the context are added where both
    stacks read them (equation 5), those of the position itself and without a mask.
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


class CodeEmbedding(nn.ModuleList):
    """Embeds the codes at a position, one of each grid, as the sum of their embeddings."""

    def __init__(self, grids: tuple[GridSpec, ...], width: int) -> None:
        super().__init__(nn.Embedding(grid.codebook_size, width) for grid in grids)

    def forward(self, codes: Sequence[Tensor]) -> Tensor:
        """Maps int64 (...) per grid to (..., E)."""
        return torch.stack([e(grid) for e, grid in zip(self, codes, strict=True)]).sum(dim=0)


class OutputHeads(nn.Module):
    """Logits of each grid's codes, given the features and the grids before it at a position."""

    def __init__(self, grids: tuple[GridSpec, ...], width: int) -> None:
        super().__init__()
        # What grid i reads of the grids before it at its own position; nothing for the first.
        self.earlier = nn.ModuleList(nn.Embedding(g.codebook_size, width) for g in grids[:-1])
        hidden = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in grids)
        self.hidden = cast(Sequence[nn.Conv2d], hidden)  # ModuleList forgets what it holds
        self.last = nn.ModuleList(nn.Conv2d(width, g.codebook_size, 1) for g in grids)

    def forward(self, grid: int, features: Tensor, earlier_codes: Sequence[Tensor]) -> Tensor:
        """Computes the logits of one grid's codes.

        Args:
            grid: Its index.
            features: (B, E, h, w).
            earlier_codes: int64 (B, h, w) per grid before it.

        Returns:
            (B, K, h, w).
        """
        for embedding, codes in zip(self.earlier[:grid], earlier_codes, strict=True):
            features = features + rearrange(embedding(codes), "b h w e -> b e h w")
        logits: Tensor = self.last[grid](F.silu(self.hidden[grid](F.silu(features))))
        return logits

    def at_position(self, grid: int, features: Tensor, earlier_codes: Sequence[Tensor]) -> Tensor:
        """Computes `forward` of a single position as matrix products: (B, E) to (B, K).

        `earlier_codes` are int64 (B,) per grid before it.
        """
        for embedding, codes in zip(self.earlier[:grid], earlier_codes, strict=True):
            features = features + embedding(codes)
        hidden, last = self.hidden[grid], cast(nn.Conv2d, self.last[grid])
        x = F.linear(F.silu(features), hidden.weight[:, :, 0, 0], hidden.bias)
        return F.linear(F.silu(x), last.weight[:, :, 0, 0], last.bias)
