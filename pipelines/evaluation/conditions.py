"""What two evaluations must agree in, so that one need not be made again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipelines.evaluation.metrics.feature_classifier import cached_key
from pipelines.evaluation.metrics.feature_networks import (
    INCEPTION_CHANNELS,
    expected_inception_hash,
)
from pipelines.evaluation.record import EvaluationConditions
from pipelines.evaluation.settings import EvaluationSettings
from pipelines.files.atomic import refuse_unwritable
from pipelines.runs.directory import RunDirectory
from stage1_vqvae.pretrained import recorded_hash
from stage2_prior.artifact import CONFIG_FILE, FORMAT_VERSION, read_config
from stage2_prior.base import ARTIFACT_KIND, PriorRecord

_FEATURE_NETWORKS = ".feature-networks"
_HASH_DIGITS = 16


def networks_folder(run: Path) -> Path:
    """Where the classifiers of all runs beside this one are kept."""
    return run.resolve().parent / _FEATURE_NETWORKS


def check_networks_folder(directory: RunDirectory) -> None:
    """Makes sure that a classifier which is still to be trained can be kept, before any work.

    Raises:
        OSError: It cannot.
    """
    if directory.data().num_classes and "classifier" not in expected_networks(directory):
        refuse_unwritable(networks_folder(directory.path))


def conditions(
    directory: RunDirectory, settings: EvaluationSettings, networks: Mapping[str, str]
) -> EvaluationConditions:
    """The conditions of an evaluation of the run as it is now; no weights are read.

    Args:
        directory: The run.
        settings: What is measured.
        networks: Names of the feature networks, with their hashes.

    Raises:
        FileNotFoundError: A model is missing.
        ValueError: The config of the run or of a model is damaged.
    """
    return EvaluationConditions(
        settings=settings,
        data_fingerprint=directory.data().fingerprint,
        vqvae=recorded_hash(directory.vqvae)[:_HASH_DIGITS],
        prior=_prior_hash(directory.prior)[:_HASH_DIGITS],
        feature_networks=dict(networks),
    )


def _prior_hash(prior: Path) -> str:
    """The hash that a saved prior's config holds."""
    path, cure = prior / CONFIG_FILE, "restore it or train the model again"
    return read_config(path, ARTIFACT_KIND, FORMAT_VERSION, PriorRecord, cure=cure).weights_sha256


def expected_networks(directory: RunDirectory) -> dict[str, str]:
    """Name and hash of the feature networks that an evaluation would use, as it records them.

    A classifier that is still to be trained is missing, since nobody can know its weights.
    """
    data = directory.data()
    channels, num_classes = data.image_shape[0], data.num_classes
    hashes = {}
    if num_classes:
        hashes["classifier"] = cached_key(
            networks_folder(directory.path),
            fingerprint=data.fingerprint,
            channels=channels,
            num_classes=num_classes,
        )
    if channels in INCEPTION_CHANNELS:
        hashes["inception"] = expected_inception_hash()
    return {name: hash_ for name, hash_ in hashes.items() if hash_ is not None}
