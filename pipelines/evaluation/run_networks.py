"""The feature network that is trained on a run's own data, and where it is kept."""

from __future__ import annotations

from pathlib import Path

import torch

from pipelines.data.image_set import DataSplits, ImageSet
from pipelines.evaluation.metrics.encoder_cache import cached_encoder, encoder_directory
from pipelines.evaluation.metrics.feature_encoder import FeatureEncoder
from pipelines.evaluation.metrics.feature_networks import efficientnet_weights_for
from pipelines.files.atomic import refuse_unwritable
from pipelines.runs.directory import RunDirectory
from pipelines.training.precision import Precision

_FEATURE_NETWORKS = ".feature-networks"


def own_encoder(
    path: Path, splits: DataSplits, real: ImageSet, device: torch.device, precision: Precision
) -> tuple[FeatureEncoder, str]:
    """Returns the encoder of a run's data, trained or cached, and its key.

    It is trained on `real`, the training and validation images: a `FeatureClassifier` where they
    have several classes, otherwise on the images alone.
    """
    return cached_encoder(
        _networks_folder(path),
        real,
        told_apart(splits.num_classes),
        fingerprint=splits.fingerprint,
        device=device,
        precision=precision,
    )


def needs_own_encoder(num_classes: int | None, channels: int) -> bool:
    """Returns whether images are compared in the features of `own_encoder`.

    So they are where there are several classes, and where EfficientNet is no choice.
    """
    return told_apart(num_classes) is not None or efficientnet_weights_for(channels) is None


def check_networks_folder(directory: RunDirectory) -> None:
    """Checks that an encoder that has yet to be trained can be saved."""
    data = directory.data()
    channels = data.image_shape[0]
    if needs_own_encoder(data.num_classes, channels):
        path = encoder_directory(
            _networks_folder(directory.path),
            data.fingerprint,
            channels,
            told_apart(data.num_classes),
        )
        if not path.exists():
            refuse_unwritable(path.parent)


def told_apart(num_classes: int | None) -> int | None:
    """Returns the number of classes, or None if a classifier would have nothing to learn."""
    return num_classes if num_classes and num_classes > 1 else None


def _networks_folder(run: Path) -> Path:
    """Returns the cache of feature networks, shared by the runs of one directory."""
    return run.resolve().parent / _FEATURE_NETWORKS
