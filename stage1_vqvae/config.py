"""What a user chooses about a VQ-VAE. Imports no torch, so that `--help` stays instant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

from stage1_vqvae.config_checks import require, require_fields
from stage1_vqvae.quantizer_config import (
    EMAQuantizerConfig,
    QuantizerConfig,
    quantizer_config_from_dict,
)

Likelihood: TypeAlias = Literal["mse", "l1", "bernoulli"]


@dataclass(frozen=True, kw_only=True, slots=True)
class VQVAEConfig:
    """Networks, quantizer and likelihood of a VQ-VAE; the image's shape comes from the data."""

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
        """Checks the ranges.

        Raises:
            ValueError: A value is out of range.
        """
        require(
            self.downsampling in (2, 4, 8, 16), "downsampling", "2, 4, 8 or 16", self.downsampling
        )
        require(self.width >= 1, "width", "at least 1", self.width)
        require(self.fine_width >= 1, "fine_width", "at least 1", self.fine_width)
        require(self.num_layers >= 0, "num_layers", "at least 0", self.num_layers)
        require(self.fine_layers >= 0, "fine_layers", "at least 0", self.fine_layers)
        require(
            self.likelihood in ("mse", "l1", "bernoulli"),
            "likelihood",
            "mse, l1 or bernoulli",
            self.likelihood,
        )

    def to_dict(self) -> dict[str, Any]:
        """The config as JSON-ready values."""
        return asdict(self)

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> VQVAEConfig:
        """Rebuilds a config from `to_dict()`; every field must be there and none left over.

        Raises:
            ValueError: A field is missing, unknown or out of range.
        """
        quantizer = quantizer_config_from_dict(values.get("quantizer"))
        require_fields(VQVAEConfig, values)
        return VQVAEConfig(**{**values, "quantizer": quantizer})
