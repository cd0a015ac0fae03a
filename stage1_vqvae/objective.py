"""What one training step of stage one computes, and how a model is judged on a whole split."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stage1_vqvae.images import to_float, to_uint8
from stage1_vqvae.model import VQVAE
from stage1_vqvae.quantizers.nearest import code_counts, entropy_bits, perplexity, usage


@dataclass(frozen=True)
class VQVAEStep:
    """One training step's loss and figures."""

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
        floats = to_float(images)
        output = self.model(floats)
        reconstruction = self.model.likelihood.loss(output.output.float(), floats)
        terms = {"reconstruction": reconstruction, **output.quantized.losses}
        loss = torch.stack(list(terms.values())).sum()
        return VQVAEStep(loss, {name: term.detach() for name, term in terms.items()})

    @torch.no_grad()
    def initialise(self, batches: Iterable[Tensor]) -> None:
        """Fits the quantizer's start to batches of uint8 images; it takes as many as it needs."""
        z_e = (self.model.encode_features(to_float(images)) for images in batches)
        self.model.quantizer.initialise(z_e)

    def scale_usage(self, batch_size: int) -> None:
        """Says of how many images a forward pass in training will be, over all processes."""
        height, width = self.model.grid_shapes[0]
        self.model.quantizer.scale_usage(batch_size * height * width)

    def set_progress(self, fraction: float) -> None:
        """Passes the fraction of training done on to what is annealed."""
        self.model.quantizer.set_progress(fraction)


@dataclass(frozen=True)
class ReconstructionFigures:
    """How well a VQ-VAE reconstructs a whole split, over 8-bit images as they are saved."""

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
def measure_reconstruction(model: VQVAE, batches: Iterable[Tensor]) -> ReconstructionFigures:
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
        floats = to_float(images)
        output = model(floats)
        decoded = output.output.float()
        loss += model.likelihood.loss(decoded, floats).item() * images.numel()
        error = to_uint8(model.likelihood.mean(decoded)).int() - images.int()
        squared += error.square().sum().item()
        absolute += error.abs().sum().item()
        elements += images.numel()
        for total, grid in zip(counts, output.quantized.codes, strict=True):
            total += code_counts(grid, len(total)).cpu()
    if not elements:
        raise ValueError("at least one image is required to measure a reconstruction, got none")
    return ReconstructionFigures(
        loss=loss / elements,
        psnr=10 * math.log10(255**2 * elements / squared) if squared else math.inf,
        l1=absolute / elements,
        usage=tuple(usage(c) for c in counts),
        perplexity=tuple(perplexity(c) for c in counts),
        entropy=tuple(entropy_bits(c) for c in counts),
    )
