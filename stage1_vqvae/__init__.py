"""Stage one: a VQ-VAE that turns images into code grids and back.

Names are imported on first use, so that reading a config does not load torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stage1_vqvae.code_dump import CodeDump
    from stage1_vqvae.config import VQVAEConfig
    from stage1_vqvae.model import VQVAE
    from stage1_vqvae.quantizers.config import (
        EMAQuantizerConfig,
        FiniteScalarConfig,
        GradientQuantizerConfig,
        GumbelConfig,
        IndexBackpropConfig,
        LookupFreeConfig,
        ProductConfig,
        ResidualConfig,
        SimVQConfig,
        StochasticConfig,
    )

_EXPORTS = {
    "VQVAE": "model",
    "VQVAEConfig": "config",
    "EMAQuantizerConfig": "quantizers.config",
    "FiniteScalarConfig": "quantizers.config",
    "GradientQuantizerConfig": "quantizers.config",
    "GumbelConfig": "quantizers.config",
    "IndexBackpropConfig": "quantizers.config",
    "LookupFreeConfig": "quantizers.config",
    "ProductConfig": "quantizers.config",
    "ResidualConfig": "quantizers.config",
    "SimVQConfig": "quantizers.config",
    "StochasticConfig": "quantizers.config",
    "CodeDump": "code_dump",
}
__all__ = [
    "VQVAE",
    "CodeDump",
    "EMAQuantizerConfig",
    "FiniteScalarConfig",
    "GradientQuantizerConfig",
    "GumbelConfig",
    "IndexBackpropConfig",
    "LookupFreeConfig",
    "ProductConfig",
    "ResidualConfig",
    "SimVQConfig",
    "StochasticConfig",
    "VQVAEConfig",
]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)
