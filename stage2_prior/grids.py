"""Code grids as stage two sees them: shapes, sizes, and the order in which they are predicted."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor


@dataclass(frozen=True, slots=True)
class GridSpec:
    """Shape and range of one code grid.

    Raises:
        ValueError: A side or the codebook size is below 1.
    """

    height: int
    """h, rows."""
    width: int
    """w, columns."""
    codebook_size: int
    """K; codes are in [0, K)."""

    def __post_init__(self) -> None:
        """Checks the ranges."""
        if min(self.height, self.width, self.codebook_size) < 1:
            raise ValueError(f"height, width and codebook_size must be at least 1, got {self}")

    @property
    def num_codes(self) -> int:
        """h * w."""
        return self.height * self.width


def raster_positions(grids: tuple[GridSpec, ...]) -> Tensor:
    """Where each code of the sequence lies: grid after grid, each row by row.

    Returns:
        int64 (L, 3): grid, row and column.
    """
    return torch.cat(
        [
            torch.cartesian_prod(
                torch.tensor([i]), torch.arange(grid.height), torch.arange(grid.width)
            ).view(-1, 3)
            for i, grid in enumerate(grids)
        ]
    )


def to_sequence(codes: tuple[Tensor, ...]) -> Tensor:
    """Grids (B, h_i, w_i) to the sequence (B, L) in raster order."""
    return torch.cat([rearrange(grid, "b h w -> b (h w)") for grid in codes], dim=1)


def to_grids(sequence: Tensor, grids: tuple[GridSpec, ...]) -> tuple[Tensor, ...]:
    """The sequence (B, L) back to grids (B, h_i, w_i); inverts `to_sequence`."""
    parts = sequence.split([grid.num_codes for grid in grids], dim=1)
    return tuple(
        rearrange(part, "b (h w) -> b h w", h=grid.height)
        for part, grid in zip(parts, grids, strict=True)
    )


def check_codes(codes: tuple[Tensor, ...], grids: tuple[GridSpec, ...]) -> None:
    """Makes sure that codes are what a prior over `grids` can take.

    Raises:
        TypeError: The codes are not integers.
        ValueError: Their number, shape or range does not fit.
    """
    if not isinstance(codes, tuple) or len(codes) != len(grids):
        count = len(codes) if isinstance(codes, tuple) else type(codes).__name__
        raise ValueError(f"codes must be a tuple of {len(grids)} grids, got {count}")
    for grid, spec in zip(codes, grids, strict=True):
        if grid.dtype not in (torch.int64, torch.int32):
            raise TypeError(f"codes must be int64, got {grid.dtype}: convert them with .long()")
        if tuple(grid.shape[1:]) != (spec.height, spec.width):
            raise ValueError(
                f"codes must have shape (B, {spec.height}, {spec.width}), got {tuple(grid.shape)}: "
                "they were made from images of another size"
            )
        if grid.numel() and not 0 <= int(grid.min()) <= int(grid.max()) < spec.codebook_size:
            raise ValueError(
                f"codes must be in [0, {spec.codebook_size}), got {int(grid.min())} to "
                f"{int(grid.max())}: they were made with another codebook"
            )
