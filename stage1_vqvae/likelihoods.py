"""Likelihoods p(x | z): a loss to train with and an image to show, from the decoder's output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from stage1_vqvae.config import Likelihood


@dataclass(frozen=True)
class ImageLikelihood:
    """Likelihood whose parameters are a decoder output of the image's shape (B, C, H, W)."""

    loss: Callable[[Tensor, Tensor], Tensor]
    """Computes -log p(x | z) up to constants, averaged over all elements, from the output and the
    images in [-1, 1], both float32 (B, C, H, W): float32 ()."""
    mean: Callable[[Tensor], Tensor]
    """Computes the image to show, E[x | z] (Laplace: the median) in [-1, 1], (B, C, H, W)."""


def _clamp(output: Tensor) -> Tensor:
    return output.clamp(-1, 1)


def _cross_entropy(output: Tensor, images: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(output, (images + 1) / 2)


def _mean_intensity(output: Tensor) -> Tensor:
    return 2 * output.sigmoid() - 1


LIKELIHOODS: dict[Likelihood, ImageLikelihood] = {
    # Gaussian of variance 1/2: the mean squared error of the VQ-VAE paper's experiments.
    "mse": ImageLikelihood(F.mse_loss, _clamp),
    # Unit-scale Laplace: the mean absolute error.
    "l1": ImageLikelihood(F.l1_loss, _clamp),
    # Bernoulli over intensities in [0, 1], with the output as logits. For pixels strictly between 0
    # and 1 it is no normalised likelihood, but its minimum is still at the mean intensity.
    "bernoulli": ImageLikelihood(_cross_entropy, _mean_intensity),
}
