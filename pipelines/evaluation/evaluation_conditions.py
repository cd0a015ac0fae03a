"""What two evaluations must agree in, so that one need not be made again."""

from __future__ import annotations

import json
from pathlib import Path

from pipelines.evaluation.evaluation_settings import EvaluationSettings
from pipelines.evaluation.feature_classifier import cached_key
from pipelines.evaluation.feature_networks import INCEPTION_CHANNELS, expected_inception_hash
from pipelines.run_dir import RunDirectory
from stage1_vqvae.artifact import CONFIG_FILE

_FEATURE_NETWORKS = ".feature-networks"


def networks_folder(run: Path) -> Path:
    """Where the classifiers of all runs beside this one are kept."""
    return run.resolve().parent / _FEATURE_NETWORKS


def recorded_settings(directory: RunDirectory, settings: EvaluationSettings) -> dict[str, object]:
    """What two evaluations must agree in to be the same: options, models and data."""

    def weights(path: Path) -> str:
        hash_ = json.loads((path / CONFIG_FILE).read_text(encoding="utf-8"))["weights_sha256"]
        return str(hash_)[:16]

    return {
        **settings.to_dict(),
        "data_fingerprint": directory.data().fingerprint,
        "vqvae": weights(directory.vqvae),
        "prior": weights(directory.prior),
    }


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
