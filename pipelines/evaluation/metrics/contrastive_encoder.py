"""Features learned from the images alone, by telling each image from the others."""

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

CONTRASTIVE_TRAINING = EncoderTraining(min_steps=200, learning_rate=2e-3)
_NUM_OUTPUTS = 64
_TEMPERATURE = 0.2
# Of a view: smallest side in parts of the image's, greatest change of contrast and of brightness
# (of a range of 2).
_MIN_CROP, _CONTRAST, _BRIGHTNESS = 0.6, 0.4, 0.2


def new_contrastive_encoder(channels: int) -> FeatureEncoder:
    """Returns an encoder with random weights, as `train_contrastive_encoder` trains it."""
    return FeatureEncoder(channels, _NUM_OUTPUTS)


def train_contrastive_encoder(
    images: NDArray[np.uint8],
    *,
    seed: int,
    device: torch.device,
    precision: Precision,
    training: EncoderTraining = CONTRASTIVE_TRAINING,
) -> FeatureEncoder:
    """Trains an encoder to find the other view of each image among those of the batch.

    Chen et al. 2020 (SimCLR), with views that differ in crop, contrast and brightness: neither
    flips, which can change what an image shows, nor blur, which a good sample must not have.

    Args:
        images: uint8 (N, C, H, W).
        seed: Seed of weights, order, views and dropout.
        device: Where to train.
        precision: Of convolutions and products in training.
        training: Length and rates.
    """

    def loss(model: FeatureEncoder, batch: Tensor, _: Tensor) -> Tensor:
        views = torch.cat([random_view(batch), random_view(batch)])
        with precision.autocast(device):
            outputs = model(views)
        return contrastive_loss(*outputs.float().chunk(2))

    return train_encoder(
        lambda: new_contrastive_encoder(images.shape[1]),
        loss,
        images,
        seed=seed,
        device=device,
        training=training,
    )


def random_view(images: Tensor) -> Tensor:
    """Crops, scales back and brightens each image at random: float32 (B, C, H, W) in [-1, 1]."""
    count, channels = images.shape[:2]

    def uniform(*shape: int) -> Tensor:  # in [-1, 1], drawn on the CPU for all devices alike
        return (2 * torch.rand(count, *shape) - 1).to(images)

    sides = (1 + _MIN_CROP + (1 - _MIN_CROP) * uniform(2)) / 2
    affine = torch.cat([torch.diag_embed(sides), ((1 - sides) * uniform(2))[..., None]], dim=2)
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    crops = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    contrast = 1 + _CONTRAST * uniform(1, 1, 1)
    brightness = 2 * _BRIGHTNESS * uniform(channels, 1, 1)
    return crops * contrast + brightness


def contrastive_loss(first: Tensor, second: Tensor) -> Tensor:
    """Computes the mean NT-Xent of pairs of outputs (B, D) (Chen et al. 2020, equation 1)."""
    outputs = F.normalize(torch.cat([first, second]), dim=1)  # (2B, D)
    similarities = outputs @ outputs.T / _TEMPERATURE
    itself = torch.eye(len(outputs), dtype=torch.bool, device=outputs.device)
    partners = torch.arange(len(outputs), device=outputs.device).roll(len(first))
    return F.cross_entropy(similarities.masked_fill(itself, -torch.inf), partners)
