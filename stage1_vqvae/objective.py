"""The training objective of stage one, and the metrics of a model on a whole split."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stage1_vqvae.base import ImageTokenizer
from stage1_vqvae.model import VQVAE, VQVAEOutput
from stage1_vqvae.quantizers.usage import code_counts, entropy_bits, perplexity, usage


@dataclass(frozen=True)
class VQVAEStep:
    """Loss and metrics of one training step."""

    loss: Tensor
    """float32 (): reconstruction plus the quantizer's terms, each averaged over its elements."""
    metrics: dict[str, Tensor]
    """Detached float32 () terms of the loss by name."""

    @property
    def losses(self) -> dict[str, Tensor]:
        """The loss by optimizer, of which there is one."""
        return {"main": self.loss}


class VQVAEObjective(nn.Module):
    """-log p(x | z_q) + the quantizer's loss terms (VQ-VAE paper, equation 3)."""

    def __init__(self, model: VQVAE) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> VQVAEStep:
        """Computes the loss of uint8 images (B, C, H, W)."""
        output: VQVAEOutput = self.model(images)
        terms = {"reconstruction": output.reconstruction_loss, **output.quantized.losses}
        loss = torch.stack(list(terms.values())).sum()
        return VQVAEStep(loss, {name: term.detach() for name, term in terms.items()})

    @torch.no_grad()
    def initialise(self, batches: Iterable[Tensor]) -> None:
        """Fits the quantizer's start to as many batches of uint8 images as it needs."""
        self.model.quantizer.initialise(map(self.model.encode_features, batches))

    def scale_usage(self, batch_size: int, image_size: tuple[int, int]) -> None:
        """Sets the number of images of a forward pass in training, over all processes.

        `image_size` is their height and width, which may be less than `model.image_shape`.
        """
        height, width = (-(-side // self.model.strides[0]) for side in image_size)
        self.model.quantizer.scale_usage(batch_size * height * width)

    def set_progress(self, fraction: float) -> None:
        """Sets the fraction of training that is done, for all that is annealed."""
        self.model.quantizer.set_progress(fraction)


@dataclass(frozen=True)
class ReconstructionMetrics:
    """Quality of the reconstructions of a whole split, over 8-bit images as they are saved."""

    loss: float
    """-log p(x | z) up to constants, averaged over pixels: what training minimises."""
    psnr: float
    """dB, 10 log10(255^2 / MSE) with the MSE over all pixels of the split; infinite if exact."""
    l1: float
    """Mean absolute error, in gray levels of 0..255."""
    usage: tuple[float, ...]
    """Per grid: fraction of the codes that the split ever chose."""
    perplexity: tuple[float, ...]
    """Per grid: exp of the entropy of the codes over the whole split."""
    entropy: tuple[float, ...]
    """Per grid: order-0 entropy of the codes over the whole split, in bits per code."""


@torch.no_grad()
def measure_reconstruction(
    model: ImageTokenizer, batches: Iterable[Tensor]
) -> ReconstructionMetrics:
    """Measures `model` on every image of `batches`.

    Args:
        model: Is put into evaluation mode and left there.
        batches: uint8 (B, C, H, W) each; B may differ.

    Raises:
        ValueError: There are no images.
    """
    model.eval()
    loss, squared, absolute, elements = 0.0, 0.0, 0.0, 0
    counts = [torch.zeros(size, dtype=torch.int64) for size in model.codebook_sizes]
    for images in batches:
        reconstruction = model.reconstruct(images)
        loss += reconstruction.loss.item() * images.numel()
        error = reconstruction.images.int() - images.int()
        squared += error.square().sum().item()
        absolute += error.abs().sum().item()
        elements += images.numel()
        for total, grid in zip(counts, reconstruction.codes, strict=True):
            total += code_counts(grid, len(total)).cpu()
    if not elements:
        raise ValueError("at least one image is required to measure a reconstruction, got none")
    return ReconstructionMetrics(
        loss=loss / elements,
        psnr=10 * math.log10(255**2 * elements / squared) if squared else math.inf,
        l1=absolute / elements,
        usage=tuple(usage(c) for c in counts),
        perplexity=tuple(perplexity(c) for c in counts),
        entropy=tuple(entropy_bits(c) for c in counts),
    )
