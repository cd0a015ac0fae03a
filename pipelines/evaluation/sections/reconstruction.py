"""Metrics of stage one: distortion and rate of the test images."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.data.image_set import ImageSet
from pipelines.evaluation.metrics.ssim import structural_similarity
from pipelines.evaluation.record import Definition, Metric
from pipelines.runs.batches import image_batches
from stage1_vqvae.base import ImageTokenizer
from stage1_vqvae.objective import measure_reconstruction

_define = partial(Definition, "reconstruction")
_METRICS = (
    _define("psnr", "PSNR", "dB", "higher", "Peak signal-to-noise ratio over all pixels."),
    _define("ssim", "SSIM", "", "higher", "Structural similarity; 1 is an exact copy."),
    _define("l1", "L1", "of 255", "lower", "Mean absolute difference of pixels, in gray levels."),
    _define(
        "rate_bits_per_image",
        "Rate",
        "bits per image",
        "lower",
        "Bits of the codes of an image without entropy coding.",
    ),
    _define(
        "rate_bits_per_pixel",
        "Rate",
        "bits per pixel",
        "lower",
        "The same per pixel of the image, over all its channels.",
    ),
    _define(
        "usage",
        "Codebook usage",
        "%",
        "higher",
        "Part of the codes that the split uses, in the worst grid.",
    ),
    _define(
        "perplexity",
        "Perplexity",
        "codes",
        "higher",
        "Exp of the entropy of the codes: their effective number, in the worst grid.",
    ),
)


def reconstruction_metrics(
    model: ImageTokenizer,
    test: ImageSet,
    reconstructions: NDArray[np.uint8],
    prior_bits_per_image: float,
    device: torch.device,
) -> tuple[Metric, ...]:
    """Measures PSNR, SSIM, L1, rate, usage and perplexity over the whole test split.

    Args:
        model: On `device`; is left in evaluation mode.
        test: The whole split.
        reconstructions: uint8 (N, C, H, W), of `test`.
        prior_bits_per_image: -log2 p(codes | labels) of a test image under the prior.
        device: Where to compute.

    Returns:
        In this order; without SSIM for images smaller than its window.
    """
    measured = measure_reconstruction(model, image_batches(test, device))
    decoded = image_batches(ImageSet(reconstructions), device)
    similarity = structural_similarity(zip(image_batches(test, device), decoded, strict=True))
    pixels = test.image_shape[1] * test.image_shape[2]
    bits = model.raw_bits_per_image
    values = {
        "psnr": measured.psnr,
        "ssim": similarity,
        "l1": measured.l1,
        "rate_bits_per_image": bits,
        "rate_bits_per_pixel": bits / pixels,
        "usage": 100 * min(measured.usage),
        "perplexity": min(measured.perplexity),
    }
    references = {
        "rate_bits_per_image": {"under the prior": prior_bits_per_image},
        "rate_bits_per_pixel": {"under the prior": prior_bits_per_image / pixels},
        "perplexity": {"uniform codes": float(min(model.codebook_sizes))},
    }
    return tuple(
        metric.measured(value, len(test), references=references.get(metric.name))
        for metric in _METRICS
        if (value := values[metric.name]) is not None
    )
