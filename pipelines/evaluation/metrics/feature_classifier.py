"""A small classifier of the data's own classes, for features and accuracies."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from pipelines.files.atomic import writing
from pipelines.files.ownership import LOCK_FILE, owned
from pipelines.training.precision import Precision
from pipelines.training.randomness import ExampleOrder, derive_seed
from stage1_vqvae.artifact import ArtifactRecord, load_artifact, save_artifact, weights_hash
from stage1_vqvae.images import to_float

NUM_FEATURES = 128
VERSION = 1
"""Increases with every change of the trained network."""

_KIND = "feature_classifier"
_CURE = "remove that directory, and the next evaluation trains it again"
_MAX_SIDE = 64
_HASH_DIGITS = 8
_EVALUATION_BATCH = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassifierTraining:
    """Length and rates of the training; the same for all classifiers that are compared."""

    epochs: float = 3.0
    """Passes over many images."""
    min_steps: int = 500
    """Minimum number of optimizer steps, for few images."""
    max_epochs: float = 50.0
    """Maximum number of passes, for very few images."""
    batch_size: int = 128
    """Images per step; all images if there are fewer."""
    learning_rate: float = 5e-3
    """Peak of the one-cycle schedule."""
    weight_decay: float = 0.05
    """Weight decay of AdamW."""

    def steps(self, num_images: int) -> int:
        """Returns the number of optimizer steps for `num_images` images."""
        per_epoch = num_images / min(self.batch_size, num_images)
        steps = min(max(self.epochs * per_epoch, self.min_steps), self.max_epochs * per_epoch)
        return max(2, round(steps))


DEFAULT_TRAINING = ClassifierTraining()


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassifierRecord(ArtifactRecord):
    """The `config.json` of a saved classifier."""

    data_fingerprint: str
    """Fingerprint of the training data."""
    version: int
    """`VERSION` when it was trained."""
    channels: int
    """C of the images."""
    num_classes: int
    """Number of classes."""
    training: ClassifierTraining
    """Settings of its training."""


class FeatureClassifier(nn.Module):
    """Classifier with three convolutions, a layer of 128 features and a linear head.

    Args:
        channels: C of the images, of any height and width; images with a side above 64 pixels
            are averaged down to it, which bounds the cost.
        num_classes: Number of classes.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.channels = channels
        self.num_classes = num_classes
        self.body = nn.Sequential(
            nn.Conv2d(channels, 32, 5, stride=2, padding=2, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(2, ceil_mode=True),
            nn.Conv2d(64, 128, 3, padding=1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(3),
            nn.Flatten(),
            nn.Linear(128 * 9, NUM_FEATURES),
            nn.ReLU(),
        )
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(NUM_FEATURES, num_classes))

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits (B, num_classes) of uint8 images (B, C, H, W)."""
        logits: Tensor = self.head(self.embed(images))
        return logits

    def embed(self, images: Tensor) -> Tensor:
        """Returns non-negative features (B, 128) of uint8 images (B, C, H, W)."""
        floats = to_float(images)
        side = max(floats.shape[2:])
        if side > _MAX_SIDE:
            height, width = (max(1, round(n * _MAX_SIDE / side)) for n in floats.shape[2:])
            floats = F.adaptive_avg_pool2d(floats, (height, width))
        features: Tensor = self.body(floats)
        return features

    @torch.no_grad()
    def features(self, images: NDArray[np.uint8]) -> Tensor:
        """Returns features float32 (N, 128), on the CPU, of uint8 images (N, C, H, W)."""
        self.eval()
        return torch.cat([self.embed(batch).cpu() for batch in self._batches(images)])

    @torch.no_grad()
    def accuracy(self, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> float:
        """Returns the accuracy on uint8 images (N, C, H, W), in [0, 1]."""
        self.eval()
        found = torch.cat([self(batch).argmax(dim=1).cpu() for batch in self._batches(images)])
        return (found == torch.from_numpy(labels)).double().mean().item()

    def _batches(self, images: NDArray[np.uint8]) -> Iterator[Tensor]:
        device = next(self.parameters()).device
        for start in range(0, len(images), _EVALUATION_BATCH):
            yield torch.from_numpy(images[start : start + _EVALUATION_BATCH].copy()).to(device)


def train_classifier(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    num_classes: int,
    *,
    seed: int,
    device: torch.device,
    precision: Precision,
    training: ClassifierTraining = DEFAULT_TRAINING,
) -> FeatureClassifier:
    """Trains a classifier with AdamW and a one-cycle schedule (Smith and Topin 2018).

    Deterministic on one machine with one number of threads; the global random state is restored.

    Args:
        images: uint8 (N, C, H, W).
        labels: int64 (N,) in [0, num_classes).
        num_classes: Number of classes.
        seed: Seed of weights, order and dropout.
        device: Where to train.
        precision: Of convolutions and products in training.
        training: Length and rates.

    Raises:
        ValueError: There are fewer than two images, which batch normalisation needs.
    """
    if len(images) < 2:
        raise ValueError(f"a classifier needs at least 2 images to train on, got {len(images)}")
    steps = training.steps(len(images))
    order = ExampleOrder(len(images), min(training.batch_size, len(images)), seed)
    targets = torch.from_numpy(labels)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(derive_seed(seed, "classifier"))
        model = FeatureClassifier(images.shape[1], num_classes).to(device)
        model.to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(
            model.parameters(), weight_decay=training.weight_decay, fused=True
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=training.learning_rate, total_steps=steps, pct_start=0.25
        )
        model.train()
        for step in range(steps):
            indices = order.batch(step)
            batch = torch.from_numpy(images[indices.numpy()]).to(device)
            with precision.autocast(device):
                logits = model(batch)
            loss = F.cross_entropy(logits.float(), targets[indices].to(device))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return model.eval()


def cached_classifier(
    folder: Path,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    num_classes: int,
    *,
    fingerprint: str,
    device: torch.device,
    precision: Precision,
    training: ClassifierTraining = DEFAULT_TRAINING,
) -> tuple[FeatureClassifier, str]:
    """Returns the classifier of a data set and its key; trains it with seed 0 if it is not cached.

    `folder` holds a directory (`config.json`, `model.safetensors`) per data set and settings. Of
    processes that share a folder one trains, and the others wait. Other arguments are those of
    `train_classifier`.

    Returns:
        The classifier, and its key: the name of its directory (16 hexadecimal digits, a hash of the
        data's fingerprint, the settings and the version of the network), a hyphen, and the first
        8 digits of its weights' hash, since two machines may train different weights.

    Raises:
        ValueError: The directory exists but is damaged.
    """
    config = _config(fingerprint, images.shape[1], num_classes, training)
    path = classifier_directory(folder, fingerprint, images.shape[1], num_classes, training)
    if not path.exists():
        lock_file = folder / f".{path.name}{LOCK_FILE}"
        with owned(path, "trained", lock_file=lock_file, take_turns=True):
            if not path.exists():  # another process may have trained it
                model = train_classifier(
                    images,
                    labels,
                    num_classes,
                    seed=0,
                    device=device,
                    precision=precision,
                    training=training,
                )
                with writing(path):
                    save_artifact(path, _KIND, config, model)
                return model, _key(path, model)

    def build(saved: ClassifierRecord) -> FeatureClassifier:
        if asdict(saved) | config != asdict(saved):
            raise ValueError("its settings are not those of its name")
        return FeatureClassifier(saved.channels, saved.num_classes)

    try:
        model = load_artifact(path, _KIND, ClassifierRecord, build)
    except (ValueError, FileNotFoundError) as error:
        raise ValueError(
            f"{path} must hold a whole feature classifier, but it is damaged ({error}): {_CURE}"
        ) from error
    return model.to(device).eval(), _key(path, model)


def classifier_directory(
    folder: Path,
    fingerprint: str,
    channels: int,
    num_classes: int,
    training: ClassifierTraining = DEFAULT_TRAINING,
) -> Path:
    """Returns where `cached_classifier` keeps a classifier, whether it exists or not."""
    config = _config(fingerprint, channels, num_classes, training)
    text = json.dumps(config, sort_keys=True).encode()
    return folder / hashlib.blake2b(text, digest_size=8).hexdigest()


def _config(
    fingerprint: str, channels: int, num_classes: int, training: ClassifierTraining
) -> dict[str, Any]:
    return {
        "data_fingerprint": fingerprint,
        "version": VERSION,
        "channels": channels,
        "num_classes": num_classes,
        "training": asdict(training),
    }


def _key(path: Path, model: FeatureClassifier) -> str:
    return f"{path.name}-{weights_hash(model.state_dict())[:_HASH_DIGITS]}"
