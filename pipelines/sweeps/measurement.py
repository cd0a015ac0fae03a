"""Measurement of a sweep's runs: from their metrics, and on the test split."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from pipelines.data.image_set import ImageSet
from pipelines.evaluation.metrics.ssim import structural_similarity
from pipelines.runs.batches import image_batches
from pipelines.runs.models import num_parameters
from pipelines.sweeps.directory import SweepRun
from pipelines.sweeps.row import SweepRow
from pipelines.training.metrics_log import MetricsRow, read_metrics
from stage1_vqvae.base import ImageTokenizer


def measure_stage_one(
    run: SweepRun, model: ImageTokenizer, test: ImageSet, device: torch.device
) -> None:
    """Writes the row of a run whose stage one is finished, if it has none.

    The run's metrics have those of stage one on the test split; `model` is on `device`, and `test`
    the whole split.
    """
    if run.read_row() is not None:
        return
    logged = _test_row(run, "vqvae", {"psnr", "usage", "perplexity", "entropy"})
    bits, (_, height, width) = model.raw_bits_per_image, test.image_shape
    values = {
        "bits_per_position": bits / max(h * w for h, w in model.grid_shapes),
        "bits_per_image": bits,
        "bits_per_pixel": bits / (height * width),
        "psnr": logged.values["psnr"],
        "ssim": measure_ssim(model, image_batches(test, device)),
        "usage": logged.values["usage"],
        "perplexity": logged.values["perplexity"],
        "order_0_entropy": logged.values["entropy"],
        "vqvae_seconds": logged.seconds,
        "images_per_second": logged.images_seen / logged.seconds if logged.seconds else None,
        "parameters": num_parameters(model),
    }
    known = {name: value for name, value in values.items() if value is not None}
    # The log has null for what JSON cannot hold: every reconstruction is exact.
    row = SweepRow(
        kind=run.kind,
        codebook_size=run.size,
        codebook_sizes=model.codebook_sizes,
        values={"psnr": math.inf} | known,
    )
    run.write_row(row)


def measure_prior(run: SweepRun) -> None:
    """Adds the metrics of a run's finished prior to its row."""
    row = run.read_row()
    assert row is not None, "stage one is measured first"
    logged = _test_row(run, "prior", {"bits_per_code", "bits_per_image"})
    values = {
        "bits_per_code": logged.values["bits_per_code"],
        "prior_bits_per_image": logged.values["bits_per_image"],
        "prior_seconds": logged.seconds,
    }
    known = {name: value for name, value in values.items() if value is not None}
    run.write_row(replace(row, values={**row.values, **known}))


def measure_ssim(model: ImageTokenizer, batches: Iterable[Tensor]) -> float | None:
    """Computes `structural_similarity` of images and their 8-bit reconstructions.

    The batches are uint8 (B, C, H, W), on the model's device; the model is left in evaluation mode.
    The result is in [-1, 1], and None for images smaller than the window.
    """
    # A loaded model in the memory format of a trained one has the same results to the last bit.
    model.eval().to(memory_format=torch.channels_last)
    return structural_similarity((images, model.decode(model.encode(images))) for images in batches)


def _test_row(run: SweepRun, phase: str, names: set[str]) -> MetricsRow:
    """Reads the metrics of a phase on the test split from the run's log."""
    path = run.directory.metrics
    rows = read_metrics(path) if path.exists() else []
    found = [row for row in rows if (row.phase, row.kind) == (phase, "test")]
    if not found or not names <= found[-1].values.keys():
        raise ValueError(
            f"{path} must hold the metrics of {phase} on the test split, but they are missing: "
            f"restore it, or remove {run.directory.path} to train that run again"
        )
    return found[-1]
