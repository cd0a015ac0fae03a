"""From a config to a prior of its kind."""

from __future__ import annotations

from stage2_prior.base import CodePrior
from stage2_prior.config import PriorConfig, TransformerConfig
from stage2_prior.grids import GridSpec
from stage2_prior.pixelcnn.prior import PixelCNNPrior
from stage2_prior.transformer.prior import TransformerPrior


def build_prior(
    config: PriorConfig,
    grids: tuple[GridSpec, ...],
    num_classes: int | None = None,
    vqvae_hash: str | None = None,
    context_grids: tuple[GridSpec, ...] = (),
    num_views: int = 1,
) -> CodePrior:
    """The prior that `config` describes, with fresh weights; see `CodePrior` for the arguments."""
    others = (grids, num_classes, vqvae_hash, context_grids, num_views)
    if isinstance(config, TransformerConfig):
        return TransformerPrior(config, *others)
    return PixelCNNPrior(config, *others)
