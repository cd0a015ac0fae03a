"""Construction of a quantizer from its config."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stage1_vqvae.quantizers import config as configs
from stage1_vqvae.quantizers.base import Quantizer
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

_QUANTIZERS: dict[type, Callable[[Any], Quantizer]] = {
    configs.EMAQuantizerConfig: EMAQuantizer,
    configs.GradientQuantizerConfig: GradientQuantizer,
    configs.SimVQConfig: SimVQQuantizer,
    configs.FiniteScalarConfig: FiniteScalarQuantizer,
    configs.LookupFreeConfig: LookupFreeQuantizer,
    configs.GumbelConfig: GumbelQuantizer,
    configs.StochasticConfig: StochasticQuantizer,
    configs.IndexBackpropConfig: IndexBackpropQuantizer,
}


def build_quantizer(config: configs.QuantizerConfig) -> Quantizer:
    """Returns a quantizer of the kind and settings of `config`, with fresh weights."""
    if isinstance(config, configs.ResidualConfig):
        stages = [build_quantizer(config.base) for _ in range(config.num_quantizers)]
        return ResidualQuantizer(config, stages)
    if isinstance(config, configs.ProductConfig):
        groups = [build_quantizer(config.base) for _ in range(config.groups)]
        return ProductQuantizer(config, groups)
    return _QUANTIZERS[type(config)](config)
