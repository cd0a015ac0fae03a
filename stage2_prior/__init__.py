"""Stage two: distributions over code grids, whatever the codes stand for.

Names are imported on first use, so that reading a config does not load torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stage2_prior.base import CodePrior
    from stage2_prior.config import PixelCNNConfig, TransformerConfig
    from stage2_prior.grids import GridSpec
    from stage2_prior.pretrained import build_prior, load_prior
    from stage2_prior.sampling.settings import SamplingSettings
    from stage2_prior.spec import FeatureSpec, PriorSpec

_EXPORTS = {
    "CodePrior": "base",
    "FeatureSpec": "spec",
    "GridSpec": "grids",
    "PixelCNNConfig": "config",
    "PriorSpec": "spec",
    "SamplingSettings": "sampling.settings",
    "TransformerConfig": "config",
    "build_prior": "pretrained",
    "load_prior": "pretrained",
}
__all__ = [
    "CodePrior",
    "FeatureSpec",
    "GridSpec",
    "PixelCNNConfig",
    "PriorSpec",
    "SamplingSettings",
    "TransformerConfig",
    "build_prior",
    "load_prior",
]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)
