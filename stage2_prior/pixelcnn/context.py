"""What a PixelCNN knows of the grids that it is conditioned on."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from stage2_prior.grids import GridSpec, to_grids


class ContextNetwork(nn.Module):
    """Maps context grids to features at every place of the grid that is predicted.

    The map m of van den Oord et al. 2016b, section 2.3: codes are embedded, each grid is brought to
    the predicted grid's shape, their sum goes through two convolutions with a residual connection.
    A context grid is known as a whole before the first code is drawn, so that nothing is masked.

    Args:
        context_grids: At least one; of any shapes.
        grid: Its shape is the output's.
        width: E.
        kernel_size: Side of both convolutions, odd.
    """

    def __init__(
        self, context_grids: tuple[GridSpec, ...], grid: GridSpec, width: int, kernel_size: int
    ) -> None:
        super().__init__()
        self.embeddings = nn.ModuleList(nn.Embedding(g.codebook_size, width) for g in context_grids)
        self.conv_in = nn.Conv2d(width, width, kernel_size, padding=kernel_size // 2)
        self.conv_out = nn.Conv2d(width, width, kernel_size, padding=kernel_size // 2)
        self._context_grids = context_grids
        self._shape = (grid.height, grid.width)

    def forward(self, context: Tensor) -> Tensor:
        """Maps int64 (B, Lc) to float (B, E, h, w)."""
        embedded = [
            self._fit(rearrange(embedding(codes), "b h w e -> b e h w"))
            for embedding, codes in zip(
                self.embeddings, to_grids(context, self._context_grids), strict=True
            )
        ]
        x = torch.stack(embedded).sum(dim=0)
        change: Tensor = self.conv_out(F.silu(self.conv_in(F.silu(x))))
        return x + change

    def _fit(self, x: Tensor) -> Tensor:
        """Nearest neighbour where the context is coarser; where it is finer, no code is skipped.

        A place then gets the mean of all the embeddings that lie in it.
        """
        fitted: Tensor = F.adaptive_avg_pool2d(x, self._shape)
        return fitted
