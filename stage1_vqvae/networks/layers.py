"""Building blocks of the encoder and the decoder."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """x + conv3x3(silu(conv3x3(silu(x)))), the identity at initialisation.

    The last convolution starts at zero, which keeps a deep stack without normalisation stable
    (Zhang et al. 2019, "Fixup initialization").
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(width, width, 3, padding=1)
        self.conv_out = nn.Conv2d(width, width, 3, padding=1)
        for parameter in self.conv_out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, width, h, w) to the same shape."""
        residual: Tensor = self.conv_out(F.silu(self.conv_in(F.silu(x))))
        return x + residual


class Downsample(nn.Module):
    """Halves height and width: pixel-unshuffle, then a convolution.

    Two to three times cheaper on a CPU than a strided 4x4 convolution of the same reach.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4 * in_channels, out_channels, kernel_size, padding=kernel_size // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, in_channels, 2h, 2w) to (B, out_channels, h, w)."""
        batch, channels, height, width = x.shape
        # torch's pixel_unshuffle leaves the shape of an empty batch as it is.
        unshuffled = F.pixel_unshuffle(x, 2).view(batch, 4 * channels, height // 2, width // 2)
        halved: Tensor = self.conv(unshuffled)
        return halved


class Upsample(nn.Module):
    """Doubles height and width: a convolution, then pixel-shuffle."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 4 * out_channels, kernel_size, padding=kernel_size // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, in_channels, h, w) to (B, out_channels, 2h, 2w)."""
        return F.pixel_shuffle(self.conv(x), 2)
