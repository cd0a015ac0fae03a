"""Code grids: shapes, codebook sizes, and the sequence of their codes in raster order."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

# Bounds as in `config`.
_MAX_CODEBOOK_SIZE = 1 << 24
_MAX_GRIDS = 256
_MAX_CODES = 1 << 18


@dataclass(frozen=True, slots=True)
class GridSpec:
    """Shape and range of one code grid.

    Raises:
        ValueError: A side or the codebook size is below 1, or the codebook size above 2^24.
    """

    height: int
    """h, rows."""
    width: int
    """w, columns."""
    codebook_size: int
    """K; codes are in [0, K)."""

    def __post_init__(self) -> None:
        if min(self.height, self.width, self.codebook_size) < 1:
            raise ValueError(f"height, width and codebook_size must be at least 1, got {self}")
        if self.codebook_size > _MAX_CODEBOOK_SIZE:
            raise ValueError(f"codebook_size must be at most {_MAX_CODEBOOK_SIZE:,}, got {self}")

    @property
    def num_codes(self) -> int:
        """Codes per image: h * w."""
        return self.height * self.width


def check_grids(grids: tuple[GridSpec, ...], name: str = "grids") -> None:
    """Checks that there are not too many grids or codes for a network.

    Raises:
        ValueError: There are more than 256, or more than 2^18 codes in them.
    """
    num_codes = sum(grid.num_codes for grid in grids)
    if len(grids) > _MAX_GRIDS or num_codes > _MAX_CODES:
        raise ValueError(
            f"{name} must be at most {_MAX_GRIDS} with {_MAX_CODES:,} codes in all, got "
            f"{len(grids)} with {num_codes:,}"
        )


def split_by_grid(sequence: Tensor, grids: tuple[GridSpec, ...]) -> tuple[Tensor, ...]:
    """Splits (B, L, ...) into the parts (B, h_i * w_i, ...) of each grid."""
    return torch.split(sequence, [grid.num_codes for grid in grids], dim=1)


def raster_positions(grids: tuple[GridSpec, ...]) -> Tensor:
    """Computes grid, row and column of each code of the sequence, in raster order: int64 (L, 3)."""
    return torch.tensor(
        [
            (i, row, column)
            for i, grid in enumerate(grids)
            for row in range(grid.height)
            for column in range(grid.width)
        ]
    )


def to_sequence(codes: tuple[Tensor, ...]) -> Tensor:
    """Flattens grids (B, h_i, w_i) to the sequence (B, L) in raster order."""
    return torch.cat([rearrange(grid, "b h w -> b (h w)") for grid in codes], dim=1)


def to_grids(sequence: Tensor, grids: tuple[GridSpec, ...]) -> tuple[Tensor, ...]:
    """Reshapes the sequence (B, L) to grids (B, h_i, w_i); inverts `to_sequence`."""
    return tuple(
        rearrange(part, "b (h w) -> b h w", h=grid.height)
        for part, grid in zip(split_by_grid(sequence, grids), grids, strict=True)
    )


def dtype_of(values: object) -> torch.dtype | str:
    """Returns the dtype of a tensor, or the type's name of anything else, for a message."""
    return values.dtype if isinstance(values, Tensor) else type(values).__name__


def check_codes(
    codes: tuple[Tensor, ...], grids: tuple[GridSpec, ...], name: str = "codes"
) -> None:
    """Checks number, dtype, shape and range of code grids (B, h_i, w_i), one per spec.

    Raises:
        TypeError: The codes are not integers.
        ValueError: Their number, shape or range does not fit.
    """
    cure = "convert them with .long()"
    _check_tensors(codes, grids, name, (torch.int64, torch.int32), "int64 tensors", cure)
    for grid, spec in zip(codes, grids, strict=True):
        if grid.numel() and not 0 <= int(grid.min()) <= int(grid.max()) < spec.codebook_size:
            raise ValueError(
                f"{name} must be in [0, {spec.codebook_size}), got {int(grid.min())} to "
                f"{int(grid.max())}: they were made with another codebook"
            )


def check_known(known: tuple[Tensor, ...], grids: tuple[GridSpec, ...]) -> None:
    """Checks number, dtype and shape of the masks of known codes, bool (B, h_i, w_i)."""
    cure = "give True for a code to keep"
    _check_tensors(known, grids, "known", (torch.bool,), "bool tensors", cure)


def _check_tensors(
    tensors: tuple[Tensor, ...],
    grids: tuple[GridSpec, ...],
    name: str,
    dtypes: tuple[torch.dtype, ...],
    required: str,
    cure: str,
) -> None:
    if not isinstance(tensors, tuple) or len(tensors) != len(grids):
        count = len(tensors) if isinstance(tensors, tuple) else type(tensors).__name__
        raise ValueError(f"{name} must be a tuple of {len(grids)} grids, got {count}")
    for grid, spec in zip(tensors, grids, strict=True):
        if dtype_of(grid) not in dtypes:
            raise TypeError(f"{name} must be {required}, got {dtype_of(grid)}: {cure}")
        if tuple(grid.shape[1:]) != (spec.height, spec.width):
            raise ValueError(
                f"{name} must have shape (B, {spec.height}, {spec.width}), got "
                f"{tuple(grid.shape)}: they were made for images of another size"
            )
    batches = [len(grid) for grid in tensors]
    if len(set(batches)) > 1:
        raise ValueError(f"all grids of {name} must have one batch size, got {batches}")
