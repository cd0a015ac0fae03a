"""The context of a PixelCNN as features of every position."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from stage2_prior.grids import GridSpec, to_grids
from stage2_prior.spec import ContextSpec, FeatureSpec


class ContextNetwork(nn.Module):
    """Maps a context to features at every position of the grid that is predicted.

    The map m of van den Oord et al. 2016b, section 2.3: codes are embedded (float features are
    projected), each grid is resized to the predicted grid's shape, their sum goes through two
    convolutions with a residual connection. A context is known as a whole before the first code is
    sampled, so that nothing is masked.

    Args:
        spec: Code grids of any shapes, or float features.
        grid: Its shape is the output's.
        width: E.
        kernel_size: Side of both convolutions, odd.
    """

    def __init__(self, spec: ContextSpec, grid: GridSpec, width: int, kernel_size: int) -> None:
        super().__init__()
        if isinstance(spec, FeatureSpec):
            self.project: nn.Module = nn.Linear(spec.dim, width)
        else:
            self.embeddings = nn.ModuleList(nn.Embedding(g.codebook_size, width) for g in spec)
        self.conv_in = nn.Conv2d(width, width, kernel_size, padding=kernel_size // 2)
        self.conv_out = nn.Conv2d(width, width, kernel_size, padding=kernel_size // 2)
        self._spec = spec
        self._shape = (grid.height, grid.width)

    def forward(self, context: Tensor) -> Tensor:
        """Maps int64 (B, Lc) or float (B, Lc, D) to float (B, E, h, w)."""
        if isinstance(self._spec, FeatureSpec):
            embedded = [
                rearrange(self.project(context), "b (h w) e -> b h w e", h=self._spec.height)
            ]
        else:
            grids = to_grids(context, self._spec)
            embedded = [e(codes) for e, codes in zip(self.embeddings, grids, strict=True)]
        resized = [_resized(rearrange(y, "b h w e -> b e h w"), self._shape) for y in embedded]
        x = torch.stack(resized).sum(dim=0)
        change: Tensor = self.conv_out(F.silu(self.conv_in(F.silu(x))))
        return x + change


def _resized(x: Tensor, shape: tuple[int, int]) -> Tensor:
    """Repeats a coarser context, averages a finer one: (B, E, h, w) to (B, E, *shape).

    No position is skipped. The same as `F.adaptive_avg_pool2d`, whose gradient is not deterministic
    on a GPU.
    """
    with torch.autocast(x.device.type, enabled=False):  # as for that function
        rows, columns = (_means(n, size, x) for n, size in zip(x.shape[2:], shape, strict=True))
        resized: Tensor = rows @ x @ columns.T
        return resized


def _means(length: int, size: int, like: Tensor) -> Tensor:
    """Returns the matrix (size, length) that averages `length` values to `size`.

    Value i is the mean of those from floor(i length / size) to ceil((i + 1) length / size).
    """
    i = torch.arange(size, device=like.device)[:, None]
    position = torch.arange(length, device=like.device)
    inside = (position >= i * length // size) & (position < -(-(i + 1) * length // size))
    return inside.to(like.dtype) / inside.sum(dim=1, keepdim=True)
