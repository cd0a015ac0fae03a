"""Convolutions that see only what comes before, by kernels cut to size instead of masks.

A masked kernel multiplies by its zeros; a smaller kernel on a padded input does not.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class VerticalConv(nn.Module):
    """Looks at rows above, at all columns within reach (van den Oord et al. 2016b, section 2.2).

    A kernel of odd size k reaches k // 2 rows up and k // 2 columns to each side. With
    `include_current` it also sees the row itself, of features that do not know it.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, *, include_current: bool
    ) -> None:
        super().__init__()
        self._reach = kernel_size // 2
        rows = self._reach + include_current
        self.conv = nn.Conv2d(in_channels, out_channels, (rows, kernel_size))
        self._include_current = include_current

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, in_channels, h, w) to (B, out_channels, h, w)."""
        if not self._include_current:
            x = x[:, :, :-1]
        seen: Tensor = self.conv(F.pad(x, (self._reach, self._reach, self._reach, 0)))
        return seen


class HorizontalConv(nn.Module):
    """Looks at the k // 2 positions to the left in the same row, k being the odd kernel size.

    With `include_current` it also sees the position itself, of features that do not know its code.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, *, include_current: bool
    ) -> None:
        super().__init__()
        self._left = kernel_size // 2
        self.conv = nn.Conv2d(in_channels, out_channels, (1, self._left + include_current))
        self._include_current = include_current

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, in_channels, h, w) to (B, out_channels, h, w)."""
        if not self._include_current:
            x = x[:, :, :, :-1]
        seen: Tensor = self.conv(F.pad(x, (self._left, 0, 0, 0)))
        return seen
