"""From a config to a quantizer of its kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stage1_vqvae.quantizers.base import Quantizer
from stage1_vqvae.quantizers.config import ProductConfig, QuantizerConfig, ResidualConfig
from stage1_vqvae.quantizers.ema import EMAQuantizer
from stage1_vqvae.quantizers.finite_scalar import FiniteScalarQuantizer
from stage1_vqvae.quantizers.gradient import GradientQuantizer
from stage1_vqvae.quantizers.gumbel import GumbelQuantizer
from stage1_vqvae.quantizers.index_backprop import IndexBackpropQuantizer
from stage1_vqvae.quantizers.lookup_free import LookupFreeQuantizer
from stage1_vqvae.quantizers.product import ProductQuantizer
from stage1_vqvae.quantizers.residual import ResidualQuantizer
from stage1_vqvae.quantizers.simvq import SimVQQuantizer
from stage1_vqvae.quantizers.stochastic import StochasticQuantizer

_SINGLE: dict[str, Callable[[Any], Quantizer]] = {
    "ema": EMAQuantizer,
    "gradient": GradientQuantizer,
    "simvq": SimVQQuantizer,
    "finite_scalar": FiniteScalarQuantizer,
    "lookup_free": LookupFreeQuantizer,
    "gumbel": GumbelQuantizer,
    "stochastic": StochasticQuantizer,
    "index_backprop": IndexBackpropQuantizer,
}


def build_quantizer(config: QuantizerConfig) -> Quantizer:
    """The quantizer that `config` describes, with fresh weights."""
    if isinstance(config, ResidualConfig):
        stages = [build_quantizer(config.base) for _ in range(config.num_quantizers)]
        return ResidualQuantizer(config, stages)
    if isinstance(config, ProductConfig):
        return ProductQuantizer(
            config, [build_quantizer(config.base) for _ in range(config.groups)]
        )
    return _SINGLE[config.kind](config)
