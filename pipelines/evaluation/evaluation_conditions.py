"""What two evaluations must agree in, so that one need not be made again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipelines.evaluation.evaluation_record import EvaluationConditions
from pipelines.evaluation.evaluation_settings import EvaluationSettings
from pipelines.evaluation.feature_classifier import cached_key
from pipelines.evaluation.feature_networks import INCEPTION_CHANNELS, expected_inception_hash
from pipelines.files.records import parse_object
from pipelines.run_dir import RunDirectory
from stage1_vqvae.artifact import CONFIG_FILE

_FEATURE_NETWORKS = ".feature-networks"
_HASH_DIGITS = 16


def networks_folder(run: Path) -> Path:
    """Where the classifiers of all runs beside this one are kept."""
    return run.resolve().parent / _FEATURE_NETWORKS


def conditions(
    directory: RunDirectory, settings: EvaluationSettings, networks: Mapping[str, str]
) -> EvaluationConditions:
    """The conditions of an evaluation of the run as it is now.

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
        vqvae=_weights_hash(directory.vqvae),
        prior=_weights_hash(directory.prior),
        feature_networks=dict(networks),
    )


def _weights_hash(model: Path) -> str:
    """First digits of the hash that a model's config holds; the weights are not read."""
    path = model / CONFIG_FILE
    try:
        return str(parse_object(path.read_bytes())["weights_sha256"])[:_HASH_DIGITS]
    except (ValueError, KeyError) as error:
        raise ValueError(f"{path} cannot be read ({error}): restore it") from error


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
