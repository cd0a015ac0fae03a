"""Settings of a VQ-VAE. Imports no torch, so that `--help` stays instant."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

from stage1_vqvae.config_checks import MAX_LAYERS, MAX_WIDTH, require, require_between
from stage1_vqvae.quantizers.config import EMAQuantizerConfig, QuantizerConfig

Likelihood: TypeAlias = Literal["mse", "l1", "bernoulli"]


@dataclass(frozen=True, kw_only=True, slots=True)
class VQVAEConfig:
    """Networks, quantizer and likelihood of a VQ-VAE; the image's shape comes from the data.

    Raises:
        ValueError: A value is out of range.
    """

    downsampling: Literal[2, 4, 8, 16] = 4
    """Pixels per side of the square that one code stands for."""
    width: int = 128
    """Channels of the networks at the resolution of the codes."""
    fine_width: int = 64
    """Channels at every finer resolution, where each convolution costs four times as much."""
    num_layers: int = 3
    """Residual blocks at the resolution of the codes, in the encoder and in the decoder."""
    fine_layers: int = 1
    """Residual blocks at every finer resolution."""
    quantizer: QuantizerConfig = field(default_factory=EMAQuantizerConfig)
    """How z_e becomes codes."""
    likelihood: Likelihood = "mse"
    """What the decoder's output means: `mse` (Gaussian), `l1` (Laplace) or `bernoulli` (logits of
    intensities in [0, 1], binary cross-entropy)."""

    def __post_init__(self) -> None:
        factor, likelihood = self.downsampling, self.likelihood
        require(factor in (2, 4, 8, 16), "downsampling", "2, 4, 8 or 16", factor)
        require_between("width", self.width, 1, MAX_WIDTH)
        require_between("fine_width", self.fine_width, 1, MAX_WIDTH)
        require_between("num_layers", self.num_layers, 0, MAX_LAYERS)
        require_between("fine_layers", self.fine_layers, 0, MAX_LAYERS)
        known = get_args(Likelihood)
        require(likelihood in known, "likelihood", "mse, l1 or bernoulli", likelihood)
