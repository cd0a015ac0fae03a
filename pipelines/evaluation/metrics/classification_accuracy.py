"""The classification accuracy score of generated images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.data.image_set import ImageSet
from pipelines.evaluation.metrics.feature_classifier import CLASSIFIER_TRAINING, train_classifier
from pipelines.evaluation.metrics.feature_encoder import EncoderTraining
from pipelines.training.precision import Precision


@dataclass(frozen=True)
class ClassificationAccuracy:
    """Accuracy on real test images of classifiers trained on generated and on real images."""

    generated: tuple[float, ...]
    """By seed, trained on class-conditional samples, in [0, 1]."""
    real: tuple[float, ...]
    """By seed, trained on equally many real images, in [0, 1]."""

    @property
    def ratio(self) -> float:
        """Mean accuracy with samples, over that with real images."""
        return float(np.mean(self.generated) / np.mean(self.real)) if any(self.real) else 0.0

    @property
    def ratio_std(self) -> float | None:
        """Standard deviation of the ratio over seeds; None for one seed."""
        if len(self.generated) < 2:
            return None
        ratios = np.array(self.generated) / np.maximum(self.real, np.finfo(float).tiny)
        return float(ratios.std(ddof=1))


def classification_accuracy(
    generated: ImageSet,
    real: ImageSet,
    test: ImageSet,
    num_classes: int,
    *,
    seeds: int,
    device: torch.device,
    precision: Precision,
    training: EncoderTraining = CLASSIFIER_TRAINING,
) -> ClassificationAccuracy:
    """Trains a classifier on each of two sets and tests both on real images.

    Ravuri and Vinyals 2019, section 3, with a small classifier instead of a ResNet-50. Of the real
    training images, a random subset as large as `generated` is used.

    Raises:
        ValueError: There are more samples than real images, or a set has no labels.
    """
    if len(generated) > len(real):
        raise ValueError(
            f"there must be at most as many samples as real images, got {len(generated)} and "
            f"{len(real)}"
        )
    order = np.random.default_rng(0).permutation(len(real))[: len(generated)]
    equally_many = real.take(order)
    accuracies = [
        tuple(
            train_classifier(
                images.images,
                _labels(images),
                num_classes,
                seed=seed,
                device=device,
                precision=precision,
                training=training,
            ).accuracy(test.images, _labels(test))
            for seed in range(seeds)
        )
        for images in (generated, equally_many)
    ]
    return ClassificationAccuracy(*accuracies)


def _labels(images: ImageSet) -> NDArray[np.int64]:
    if images.labels is None:
        raise ValueError("a classifier needs images with labels, got some without")
    return images.labels
