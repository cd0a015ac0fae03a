"""Convolutional decoder: z_q to the parameters of p(x | z), a mirror of the encoder."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from stage1_vqvae.config import VQVAEConfig
from stage1_vqvae.networks.layers import ResidualBlock, Upsample


class Decoder(nn.Module):
    """Doubles the resolution log2(downsampling) times, with residual blocks at each resolution."""

    def __init__(self, config: VQVAEConfig, image_channels: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(config.quantizer.codebook_dim, config.width, 3, padding=1)
        layers: list[nn.Module] = [ResidualBlock(config.width) for _ in range(config.num_layers)]
        channels, factor = config.width, int(config.downsampling)
        while factor > 2:
            layers.append(Upsample(channels, config.fine_width))
            layers += [ResidualBlock(config.fine_width) for _ in range(config.fine_layers)]
            channels, factor = config.fine_width, factor // 2
        self.layers = nn.Sequential(*layers)
        self.to_pixels = Upsample(channels, image_channels, kernel_size=3)
        self.outer_layers = (self.to_pixels,)

    def forward(self, z_q: Tensor) -> Tensor:
        """Maps z_q, (B, D, h, w), to the decoder's output, (B, C, h * f, w * f)."""
        output: Tensor = self.to_pixels(F.silu(self.layers(self.project(z_q))))
        return output
