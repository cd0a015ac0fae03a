"""The conditions that decide the values of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipelines.evaluation.record import EvaluationConditions
from pipelines.evaluation.settings import EvaluationSettings
from pipelines.runs.directory import RunDirectory
from stage1_vqvae.artifact import CONFIG_FILE, FORMAT_VERSION, read_config
from stage1_vqvae.model import ARTIFACT_KIND as VQVAE_KIND
from stage1_vqvae.model import VQVAERecord
from stage2_prior.base import ARTIFACT_KIND as PRIOR_KIND
from stage2_prior.base import PriorRecord

_HASH_DIGITS = 16


def conditions(
    directory: RunDirectory, settings: EvaluationSettings, networks: Mapping[str, str]
) -> EvaluationConditions:
    """Returns the conditions of an evaluation of a run as it is now, without reading weights.

    Args:
        directory: The run.
        settings: What to measure.
        networks: Hashes of the feature networks by name.

    Raises:
        FileNotFoundError: A model is missing.
        ValueError: The config of the run or of a model is damaged.
    """
    return EvaluationConditions(
        settings=settings,
        data_fingerprint=directory.data().fingerprint,
        vqvae=_weights_hash(directory.vqvae, VQVAE_KIND, VQVAERecord),
        prior=_weights_hash(directory.prior, PRIOR_KIND, PriorRecord),
        feature_networks=dict(networks),
    )


def _weights_hash(model: Path, kind: str, cls: type[VQVAERecord] | type[PriorRecord]) -> str:
    """Returns the first digits of the hash in a saved model's config."""
    cure = "restore it or train the model again"
    record = read_config(model / CONFIG_FILE, kind, FORMAT_VERSION, cls, cure=cure)
    return record.weights_sha256[:_HASH_DIGITS]
