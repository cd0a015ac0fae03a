"""Building priors from configs, and loading saved ones."""

from __future__ import annotations

from pathlib import Path

from stage2_prior.artifact import CONFIG_FILE, load_artifact, read_config
from stage2_prior.base import ARTIFACT_KIND, FORMAT_VERSION, CodePrior, PriorRecord
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

    return load_artifact(directory, ARTIFACT_KIND, PriorRecord, build, FORMAT_VERSION).eval()


def recorded_hash(directory: str | Path) -> str:
    """Returns the `weights_hash` of a saved prior from its `config.json`.

    Raises:
        FileNotFoundError: There is no config.
        ValueError: It is damaged.
    """
    path, cure = Path(directory) / CONFIG_FILE, "restore it or train the model again"
    return read_config(path, ARTIFACT_KIND, FORMAT_VERSION, PriorRecord, cure=cure).weights_sha256
