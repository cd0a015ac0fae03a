"""Building priors from configs, and loading saved ones."""

from __future__ import annotations

from pathlib import Path

from stage2_prior.artifact import load_artifact
from stage2_prior.base import ARTIFACT_KIND, CodePrior, PriorRecord
from stage2_prior.config import PixelCNNConfig, PriorConfig, TransformerConfig
from stage2_prior.pixelcnn.prior import PixelCNNPrior
from stage2_prior.spec import PriorSpec
from stage2_prior.transformer.prior import TransformerPrior


def build_prior(config: PriorConfig, spec: PriorSpec) -> CodePrior:
    """Builds the prior that `config` describes, with fresh weights.

    Raises:
        ValueError: The kind of prior does not support the grids.
    """
    match config:
        case TransformerConfig():
            return TransformerPrior(config, spec)
        case PixelCNNConfig():
            return PixelCNNPrior(config, spec)


def load_prior(directory: str | Path) -> CodePrior:
    """Loads a prior of any kind that `save_pretrained` wrote, in evaluation mode, on the CPU.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: The files are damaged or do not belong together.
    """

    def build(record: PriorRecord) -> CodePrior:
        return build_prior(record.model, record.spec)

    return load_artifact(directory, ARTIFACT_KIND, PriorRecord, build).eval()
