"""The conditions that decide the values of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipelines.evaluation.record import EvaluationConditions
from pipelines.evaluation.settings import EvaluationSettings
from pipelines.runs.directory import RunDirectory
from stage1_vqvae.pretrained import recorded_hash
from stage2_prior.artifact import CONFIG_FILE, FORMAT_VERSION, read_config
from stage2_prior.base import ARTIFACT_KIND, PriorRecord

_HASH_DIGITS = 16


def conditions(
    directory: RunDirectory, settings: EvaluationSettings, networks: Mapping[str, str]
) -> EvaluationConditions:
    """Returns the conditions of an evaluation of a run as it is now, without reading weights.

    `networks` are hashes of the feature networks by name.
    """
    return EvaluationConditions(
        settings=settings,
        data_fingerprint=directory.data().fingerprint,
        vqvae=recorded_hash(directory.vqvae)[:_HASH_DIGITS],
        prior=_prior_hash(directory.prior)[:_HASH_DIGITS],
        feature_networks=dict(networks),
    )


def _prior_hash(prior: Path) -> str:
    """Returns the hash in a saved prior's config."""
    path, cure = prior / CONFIG_FILE, "restore it or train the model again"
    return read_config(path, ARTIFACT_KIND, FORMAT_VERSION, PriorRecord, cure=cure).weights_sha256
