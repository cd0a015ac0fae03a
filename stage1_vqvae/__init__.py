"""Stage one: a VQ-VAE that turns images into code grids and back.

Names are imported on first use, so that reading a config does not load torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stage1_vqvae.base import ImageTokenizer
    from stage1_vqvae.code_dump import CodeDump
    from stage1_vqvae.config import VQVAEConfig
    from stage1_vqvae.model import VQVAE
    from stage1_vqvae.pretrained import load_tokenizer
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

__all__ = [
    "VQVAE",
    "CodeDump",
    "EMAQuantizerConfig",
    "FiniteScalarConfig",
    "GradientQuantizerConfig",
    "GumbelConfig",
    "ImageTokenizer",
    "IndexBackpropConfig",
    "LookupFreeConfig",
    "ProductConfig",
    "ResidualConfig",
    "SimVQConfig",
    "StochasticConfig",
    "VQVAEConfig",
    "load_tokenizer",
]
_MODULES = {
    "CodeDump": "code_dump",
    "ImageTokenizer": "base",
    "VQVAE": "model",
    "VQVAEConfig": "config",
    "load_tokenizer": "pretrained",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'quantizers.config')}"), name)
