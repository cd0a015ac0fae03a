"""Convolutional encoder: images to z_e."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from stage1_vqvae.config import VQVAEConfig
from stage1_vqvae.networks.layers import Downsample, ResidualBlock


class Encoder(nn.Module):
    """Halves the resolution log2(downsampling) times, with residual blocks at each resolution."""

    def __init__(self, config: VQVAEConfig, image_channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels, factor = image_channels, 2
        while factor < config.downsampling:
            # The first convolution sees raw pixels and needs neighbours to see edges at all.
            kernel_size = 3 if factor == 2 else 1
            layers.append(Downsample(channels, config.fine_width, kernel_size))
            layers += [ResidualBlock(config.fine_width) for _ in range(config.fine_layers)]
            channels, factor = config.fine_width, 2 * factor
        layers.append(Downsample(channels, config.width, 3))
        layers += [ResidualBlock(config.width) for _ in range(config.num_layers)]
        self.layers = nn.Sequential(*layers)
        self.outer_layers = (layers[0],)
        self.project = nn.Conv2d(config.width, config.quantizer.codebook_dim, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Maps images in [-1, 1], (B, C, H, W), to z_e, (B, D, H / f, W / f)."""
        z_e: Tensor = self.project(F.silu(self.layers(images)))
        return z_e
