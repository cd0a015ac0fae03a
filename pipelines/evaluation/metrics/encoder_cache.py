"""The encoder of each data set, trained once and kept on disk."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from pipelines.data.image_set import ImageSet
from pipelines.evaluation.metrics.contrastive_encoder import (
    CONTRASTIVE_TRAINING,
    new_contrastive_encoder,
    train_contrastive_encoder,
)
from pipelines.evaluation.metrics.feature_classifier import (
    CLASSIFIER_TRAINING,
    FeatureClassifier,
    train_classifier,
)
from pipelines.evaluation.metrics.feature_encoder import EncoderTraining, FeatureEncoder
from pipelines.files.atomic import writing
from pipelines.files.ownership import LOCK_FILE, owned
from pipelines.training.precision import Precision
from stage1_vqvae.artifact import ArtifactRecord, load_artifact, save_artifact, weights_hash

VERSION = 2
"""Increases with every change of a trained network."""

_KIND = "feature_encoder"
_CURE = "remove that directory, and the next evaluation trains it again"
_HASH_DIGITS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderRecord(ArtifactRecord):
    """The `config.json` of a saved encoder."""

    data_fingerprint: str
    """Fingerprint of the training data."""
    version: int
    """`VERSION` when it was trained."""
    channels: int
    """C of the images."""
    num_classes: int | None
    """Number of classes of a classifier; None for an encoder trained on the images alone."""
    training: EncoderTraining
    """Settings of its training."""


def cached_encoder(
    folder: Path,
    images: ImageSet,
    num_classes: int | None,
    *,
    fingerprint: str,
    device: torch.device,
    precision: Precision,
    training: EncoderTraining | None = None,
) -> tuple[FeatureEncoder, str]:
    """Returns the encoder of a data set and its key; trains it with seed 0 if it is not cached.

    `folder` holds a directory (`config.json`, `model.safetensors`) per data set and settings. Of
    processes that share a folder one trains, and the others wait.

    Args:
        folder: The cache.
        images: What it is trained on, with labels if there are classes.
        num_classes: None trains on the images alone; otherwise it is a `FeatureClassifier`.
        fingerprint: Of the data.
        device: Where to train, and where the encoder is returned.
        precision: Of convolutions and products in training.
        training: Length and rates; None takes the default of the kind.

    Returns:
        The encoder, and its key: the name of its directory (16 hexadecimal digits, a hash of the
        data's fingerprint, the settings and the version of the network), a hyphen, and the first
        8 digits of its weights' hash, since two machines may train different weights.

    Raises:
        ValueError: The directory exists but is damaged.
    """
    channels = images.image_shape[0]
    config = _config(fingerprint, channels, num_classes, training)
    path = encoder_directory(folder, fingerprint, channels, num_classes, training)
    if not path.exists():
        lock_file = folder / f".{path.name}{LOCK_FILE}"
        with owned(path, "trained", lock_file=lock_file, take_turns=True):
            if not path.exists():  # another process may have trained it
                model = _train(images, num_classes, device, precision, training)
                with writing(path):
                    save_artifact(path, _KIND, config, model)
                return model, _key(path, model)

    def build(saved: EncoderRecord) -> FeatureEncoder:
        if asdict(saved) | config != asdict(saved):
            raise ValueError("its settings are not those of its name")
        if saved.num_classes is None:
            return new_contrastive_encoder(saved.channels)
        return FeatureClassifier(saved.channels, saved.num_classes)

    try:
        model = load_artifact(path, _KIND, EncoderRecord, build)
    except (ValueError, FileNotFoundError) as error:
        raise ValueError(
            f"{path} must hold a whole feature network, but it is damaged ({error}): {_CURE}"
        ) from error
    return model.to(device).eval(), _key(path, model)


def encoder_directory(
    folder: Path,
    fingerprint: str,
    channels: int,
    num_classes: int | None,
    training: EncoderTraining | None = None,
) -> Path:
    """Returns where `cached_encoder` keeps an encoder, whether it exists or not."""
    config = _config(fingerprint, channels, num_classes, training)
    text = json.dumps(config, sort_keys=True).encode()
    return folder / hashlib.blake2b(text, digest_size=8).hexdigest()


def _train(
    images: ImageSet,
    num_classes: int | None,
    device: torch.device,
    precision: Precision,
    training: EncoderTraining | None,
) -> FeatureEncoder:
    if num_classes is None:
        return train_contrastive_encoder(
            images.images,
            seed=0,
            device=device,
            precision=precision,
            training=training or CONTRASTIVE_TRAINING,
        )
    assert images.labels is not None, "classes without labels"
    return train_classifier(
        images.images,
        images.labels,
        num_classes,
        seed=0,
        device=device,
        precision=precision,
        training=training or CLASSIFIER_TRAINING,
    )


def _config(
    fingerprint: str, channels: int, num_classes: int | None, training: EncoderTraining | None
) -> dict[str, Any]:
    default = CONTRASTIVE_TRAINING if num_classes is None else CLASSIFIER_TRAINING
    return {
        "data_fingerprint": fingerprint,
        "version": VERSION,
        "channels": channels,
        "num_classes": num_classes,
        "training": asdict(training or default),
    }


def _key(path: Path, model: FeatureEncoder) -> str:
    return f"{path.name}-{weights_hash(model.state_dict())[:_HASH_DIGITS]}"
