"""Quantizers: z_e to codes and back, one file per kind behind the contract of `base`."""

from __future__ import annotations

from stage1_vqvae.config import EMAQuantizerConfig, QuantizerConfig
from stage1_vqvae.quantizers.base import Quantizer, QuantizerOutput
from stage1_vqvae.quantizers.ema import EMAQuantizer
from stage1_vqvae.quantizers.gradient import GradientQuantizer

__all__ = ["EMAQuantizer", "GradientQuantizer", "Quantizer", "QuantizerOutput", "build_quantizer"]


def build_quantizer(config: QuantizerConfig) -> Quantizer:
    """The quantizer that `config` describes, with fresh weights."""
    if isinstance(config, EMAQuantizerConfig):
        return EMAQuantizer(config)
    return GradientQuantizer(config)
