"""A trained run's row of the sweep's table: from its metrics, and measured where they lack it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from pipelines.data.image_set import ImageSet
from pipelines.evaluation.metrics.ssim import structural_similarity
from pipelines.runs.batches import image_batches
from pipelines.sweeps.directory import SweepRun
from pipelines.sweeps.table import SweepRow
from pipelines.training.metrics_log import MetricsRow, read_metrics
from stage1_vqvae.base import ImageTokenizer


def vqvae_row(
    run: SweepRun, model: ImageTokenizer, test: ImageSet, device: torch.device
) -> SweepRow:
    """The row of a run whose stage one is finished.

    Args:
        run: Its metrics hold the figures of stage one.
        model: Its VQ-VAE, on `device`.
        test: The whole test split.
        device: Where to compute.

    Raises:
        ValueError: The metrics lack the figures.
    """
    record = _test_row(run, "vqvae", {"psnr", "usage", "perplexity", "entropy"})
    figures = record.values
    _, height, width = test.image_shape
    positions = [h * w for h, w in model.grid_shapes]
    bits = sum(n * math.log2(k) for n, k in zip(positions, model.codebook_sizes, strict=True))
    return SweepRow(
        kind=run.kind,
        codebook_size=run.size,
        codebook_sizes=model.codebook_sizes,
        bits_per_position=bits / max(positions),
        bits_per_image=bits,
        bits_per_pixel=bits / (height * width),
        # The metrics hold null for what JSON cannot hold: every reconstruction is exact.
        psnr=math.inf if figures["psnr"] is None else figures["psnr"],
        ssim=measure_ssim(model, image_batches(test, device)),
        usage=figures["usage"],
        perplexity=figures["perplexity"],
        order_0_entropy=figures["entropy"],
        vqvae_seconds=record.seconds,
        images_per_second=record.images_seen / record.seconds if record.seconds else None,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
    )


def with_prior_figures(row: SweepRow, run: SweepRun) -> SweepRow:
    """The row of stage one with what the run's finished prior came to.

    Raises:
        ValueError: The metrics lack the prior's figures.
    """
    record = _test_row(run, "prior", {"bits_per_code", "bits_per_image"})
    return replace(
        row,
        bits_per_code=record.values["bits_per_code"],
        prior_bits_per_image=record.values["bits_per_image"],
        prior_seconds=record.seconds,
    )


def measure_ssim(model: ImageTokenizer, batches: Iterable[Tensor]) -> float | None:
    """`structural_similarity` of images and their 8-bit reconstructions.

    Args:
        model: Encodes and decodes; is put into evaluation mode and left there.
        batches: uint8 (B, C, H, W) each, on the model's device, of the model's image shape.

    Returns:
        In [-1, 1]; None for images smaller than its window.
    """
    # A loaded model laid out in memory as a trained one gives the same to the last bit.
    model.eval().to(memory_format=torch.channels_last)
    return structural_similarity((images, model.decode(model.encode(images))) for images in batches)


def _test_row(run: SweepRun, phase: str, figures: set[str]) -> MetricsRow:
    """What a phase wrote to the run's metrics about the test split.

    Raises:
        ValueError: There is nothing, or one of `figures` is missing.
    """
    path = run.directory.metrics
    rows = read_metrics(path) if path.exists() else []
    found = [row for row in rows if (row.phase, row.kind) == (phase, "test")]
    if not found or not figures <= found[-1].values.keys():
        raise ValueError(
            f"{path} must hold the {phase}'s figures on the test split, but they are missing: "
            f"restore it, or remove {run.directory.path} to train that run again"
        )
    return found[-1]
