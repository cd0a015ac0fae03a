"""Likelihoods p(x | z): a loss to train with and an image to show, from the decoder's output."""

from __future__ import annotations

from typing import Protocol

import torch.nn.functional as F
from torch import Tensor

from stage1_vqvae.config import Likelihood


class ImageLikelihood(Protocol):
    """Likelihood whose parameters are a decoder output of the image's shape (B, C, H, W)."""

    def loss(self, output: Tensor, images: Tensor) -> Tensor:
        """Computes -log p(x | z) up to constants, averaged over all elements.

        Args:
            output: The decoder's output, float32 (B, C, H, W).
            images: The images, float32 (B, C, H, W) in [-1, 1].

        Returns:
            float32 ().
        """
        ...

    def mean(self, output: Tensor) -> Tensor:
        """Returns the image to show, E[x | z] (Laplace: the median) in [-1, 1], (B, C, H, W)."""
        ...


class GaussianLikelihood:
    """Gaussian of variance 1/2: the mean squared error of the VQ-VAE paper's experiments."""

    def loss(self, output: Tensor, images: Tensor) -> Tensor:
        """Computes the mean of (x - output)^2."""
        return F.mse_loss(output, images)

    def mean(self, output: Tensor) -> Tensor:
        """Clamps the output to the range of images."""
        return output.clamp(-1, 1)


class LaplaceLikelihood:
    """Unit-scale Laplace: the mean absolute error."""

    def loss(self, output: Tensor, images: Tensor) -> Tensor:
        """Computes the mean of |x - output|."""
        return F.l1_loss(output, images)

    def mean(self, output: Tensor) -> Tensor:
        """Clamps the output to the range of images."""
        return output.clamp(-1, 1)


class BernoulliLikelihood:
    """Bernoulli over intensities in [0, 1], with the decoder's output as logits.

    For pixels strictly between 0 and 1 the cross-entropy is no normalised likelihood, but its
    minimum is still at the mean intensity.
    """

    def loss(self, output: Tensor, images: Tensor) -> Tensor:
        """Computes the mean binary cross-entropy of (x + 1) / 2, in nats per element."""
        return F.binary_cross_entropy_with_logits(output, (images + 1) / 2)

    def mean(self, output: Tensor) -> Tensor:
        """Returns 2 sigmoid(output) - 1."""
        return 2 * output.sigmoid() - 1


LIKELIHOODS: dict[Likelihood, ImageLikelihood] = {
    "mse": GaussianLikelihood(),
    "l1": LaplaceLikelihood(),
    "bernoulli": BernoulliLikelihood(),
}
