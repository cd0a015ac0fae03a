"""A small classifier of the data's own classes, for features and accuracies."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pipelines.evaluation.metrics.feature_encoder import (
    EncoderTraining,
    FeatureEncoder,
    train_encoder,
)
from pipelines.training.precision import Precision

CLASSIFIER_TRAINING = EncoderTraining()


class FeatureClassifier(FeatureEncoder):
    """An encoder whose head gives the logits of the classes.

    Args:
        channels: C of the images, of any height and width.
        num_classes: Number of classes.
    """

    @torch.no_grad()
    def accuracy(self, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> float:
        """Returns the accuracy on uint8 images (N, C, H, W), in [0, 1]."""
        self.eval()
        found = torch.cat([self(batch).argmax(dim=1).cpu() for batch in self.batches(images)])
        return (found == torch.from_numpy(labels)).double().mean().item()


def train_classifier(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    num_classes: int,
    *,
    seed: int,
    device: torch.device,
    precision: Precision,
    training: EncoderTraining = CLASSIFIER_TRAINING,
) -> FeatureClassifier:
    """Trains a classifier by `train_encoder`, whose other arguments are the same.

    Args:
        images: uint8 (N, C, H, W).
        labels: int64 (N,) in [0, num_classes).
        num_classes: Number of classes.
        seed: Seed of weights, order and dropout.
        device: Where to train.
        precision: Of convolutions and products in training.
        training: Length and rates.
    """
    targets = torch.from_numpy(labels)

    def loss(model: FeatureClassifier, batch: Tensor, indices: Tensor) -> Tensor:
        with precision.autocast(device):
            logits = model(batch)
        return F.cross_entropy(logits.float(), targets[indices].to(device))

    return train_encoder(
        lambda: FeatureClassifier(images.shape[1], num_classes),
        loss,
        images,
        seed=seed,
        device=device,
        training=training,
    )
