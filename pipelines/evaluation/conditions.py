"""The conditions that decide the values of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping

import stage1_vqvae.pretrained
import stage2_prior.pretrained
from pipelines.evaluation.record import EvaluationConditions
from pipelines.evaluation.settings import EvaluationSettings
from pipelines.runs.directory import RunDirectory

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
        vqvae=stage1_vqvae.pretrained.recorded_hash(directory.vqvae)[:_HASH_DIGITS],
        prior=stage2_prior.pretrained.recorded_hash(directory.prior)[:_HASH_DIGITS],
        feature_networks=dict(networks),
    )
