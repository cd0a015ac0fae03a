"""What stage one keeps of the test images, and at which rate, as metrics of an evaluation."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.data.image_set import ImageSet
from pipelines.evaluation.metrics.ssim import structural_similarity
from pipelines.evaluation.record import Metric, Reference
from pipelines.runs.batches import image_batches
from stage1_vqvae.model import VQVAE
from stage1_vqvae.objective import measure_reconstruction


def reconstruction_metrics(
    model: VQVAE,
    test: ImageSet,
    reconstructions: NDArray[np.uint8],
    prior_bits_per_image: float,
    device: torch.device,
) -> tuple[Metric, ...]:
    """PSNR, SSIM, L1, rate, usage and perplexity over the whole test split.

    Args:
        model: On `device`; is put into evaluation mode and left there.
        test: The whole split.
        reconstructions: uint8 (N, C, H, W), what the model keeps of it.
        prior_bits_per_image: -log2 p(codes | labels) of a test image under the prior.
        device: Where to compute.
    """
    measured = measure_reconstruction(model, image_batches(test, device))
    decoded = image_batches(ImageSet(reconstructions), device)
    similarity = structural_similarity(zip(image_batches(test, device), decoded, strict=True))
    _, height, width = test.image_shape
    bits = sum(
        h * w * math.log2(size)
        for (h, w), size in zip(model.grid_shapes, model.codebook_sizes, strict=True)
    )
    count = len(test)
    metrics = [
        Metric(
            group="reconstruction",
            name="psnr",
            label="PSNR",
            value=measured.psnr,
            unit="dB",
            better="higher",
            explanation="Peak signal-to-noise ratio of all pixels: how exact reconstructions are.",
            num_images=count,
        ),
        Metric(
            group="reconstruction",
            name="l1",
            label="L1",
            value=measured.l1,
            unit="of 255",
            better="lower",
            explanation="Mean absolute difference of a pixel from its original, in gray levels.",
            num_images=count,
        ),
        Metric(
            group="reconstruction",
            name="rate_bits_per_image",
            label="Rate",
            value=bits,
            unit="bits per image",
            better="lower",
            explanation="Bits that store the codes of an image without entropy coding.",
            num_images=count,
            references=(Reference(label="under the prior", value=prior_bits_per_image),),
        ),
        Metric(
            group="reconstruction",
            name="rate_bits_per_pixel",
            label="Rate",
            value=bits / (height * width),
            unit="bits per pixel",
            better="lower",
            explanation="The same per pixel of the image, whatever its channels.",
            num_images=count,
            references=(
                Reference(label="under the prior", value=prior_bits_per_image / (height * width)),
            ),
        ),
        Metric(
            group="reconstruction",
            name="usage",
            label="Codebook usage",
            value=100 * min(measured.usage),
            unit="%",
            better="higher",
            explanation="Part of the codes that the split ever chooses, in the worst grid.",
            num_images=count,
        ),
        Metric(
            group="reconstruction",
            name="perplexity",
            label="Perplexity",
            value=min(measured.perplexity),
            unit="codes",
            better="higher",
            explanation="How many equally frequent codes would be as varied, in the worst grid.",
            num_images=count,
            references=(Reference(label="all codes alike", value=min(model.codebook_sizes)),),
        ),
    ]
    if similarity is not None:
        metrics.insert(
            1,
            Metric(
                group="reconstruction",
                name="ssim",
                label="SSIM",
                value=similarity,
                better="higher",
                explanation="Structural similarity with the original; 1 is an exact copy.",
                num_images=count,
            ),
        )
    return tuple(metrics)
