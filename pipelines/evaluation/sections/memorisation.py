"""Whether samples are copies of training images: metrics of an evaluation, and a short summary."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.data.image_set import DataSplits
from pipelines.evaluation.metrics.nearest_images import (
    CONTROL_PERCENTILE,
    Memorisation,
    detect_memorisation,
    nearest_training_images,
)
from pipelines.evaluation.record import Definition, Metric
from pipelines.runs.batches import reconstruct_images
from stage1_vqvae.base import ImageTokenizer

_MAX_SUMMARY_IMAGES = 2000  # enough for a first percentile
_define = partial(Definition, "memorisation")
_DISTANCES = {
    percentile: _define(
        f"nearest_distance_{name}",
        f"Distance to the nearest training image, {label}",
        "of 255",
        "neither",
        "Root mean square difference of pixels, in gray levels; far below that of test images, "
        "samples are copies.",
    )
    for percentile, name, label in (
        (50, "median", "median"),
        (CONTROL_PERCENTILE, "percentile_1", "1st percentile"),
    )
}
_NEAR_COPIES = _define(
    "near_copies",
    "Samples nearer to a training image than 99 % of new images",
    "%",
    "lower",
    "Part of the samples below the 1st percentile of test images and of their reconstructions; "
    "well above 1 %, some are copies.",
)
_NEAR_RECONSTRUCTIONS = _define(
    "near_copies_of_reconstructions",
    "The same against decoded training images",
    "%",
    "lower",
    "A prior that repeats training codes generates the decoded training images; decoded test "
    "images are the control.",
)


@dataclass(frozen=True)
class MemorisationMetrics:
    """The metrics and warnings of `memorisation_metrics`."""

    metrics: tuple[Metric, ...]
    warnings: tuple[str, ...]
    """Empty unless samples are nearer to training images than new images are."""


def memorisation_metrics(
    samples: Tensor,
    test: Tensor,
    reconstructions: Tensor,
    training: NDArray[np.uint8],
    decoded_training: NDArray[np.uint8],
) -> MemorisationMetrics:
    """Compares the distances of samples and of new images to their nearest training images.

    A prior that repeats training codes generates the training images as the VQ-VAE decodes them,
    which may be farther from the originals than other images are. So samples are also compared with
    the decoded training images, from which such a copy has no distance at all.

    Args:
        samples: uint8 (N, C, H, W), on the device to compute on.
        test: uint8 (N, C, H, W), images that no stage was trained on.
        reconstructions: uint8 (N, C, H, W), of `test`: as smooth as samples are.
        training: uint8 (M, C, H, W), what both stages were trained on.
        decoded_training: uint8 (M, C, H, W), the reconstructions of `training`.
    """
    distances, new, decoded = (
        nearest_training_images(images, training).distance
        for images in (samples, test, reconstructions)
    )
    copies = detect_memorisation(distances, (new, decoded))
    to_decoded, decoded_to_decoded = (
        nearest_training_images(images, decoded_training).distance
        for images in (samples, reconstructions)
    )
    repeated = detect_memorisation(to_decoded, (decoded_to_decoded,))
    metrics = [
        metric.measured(
            _percentile(distances, percentile),
            len(samples),
            references={
                "test images": _percentile(new, percentile),
                "reconstructions of test images": _percentile(decoded, percentile),
            },
        )
        for percentile, metric in _DISTANCES.items()
    ]
    metrics += [
        metric.measured(
            100 * found.share,
            len(samples),
            references={"new images, by definition": CONTROL_PERCENTILE},
        )
        for metric, found in ((_NEAR_COPIES, copies), (_NEAR_RECONSTRUCTIONS, repeated))
    ]
    warnings = tuple(
        f"memorisation warning: {found.share:.1%} of the samples are nearer to {nearest} than "
        f"99 % of the {controls} are, so some may be copies: compare samples with their nearest "
        "training images"
        for found, nearest, controls in (
            (copies, "a training image", "test images"),
            (repeated, "a decoded training image", "reconstructions of test images"),
        )
        if found.warning
    )
    return MemorisationMetrics(tuple(metrics), warnings)


def describe_memorisation(samples: Tensor, vqvae: ImageTokenizer, splits: DataSplits) -> str:
    """Describes the distances of samples and of new images to the training images, in two lines.

    Samples are uint8 (N, C, H, W), decoded by `vqvae`, which is on the device to compute on.
    """
    device = next(vqvae.parameters()).device
    test = splits.test.take(np.arange(min(len(splits.test), _MAX_SUMMARY_IMAGES)))
    images = {
        "samples": samples.cpu(),
        "test images": torch.from_numpy(test.images),
        "their reconstructions": torch.from_numpy(reconstruct_images(vqvae, test)),
    }
    # One search for all: each goes through the whole training set.
    together = torch.cat(list(images.values())).to(device)
    found = nearest_training_images(together, splits.train.images).distance
    parts = torch.split(found, [len(part) for part in images.values()])
    copies = detect_memorisation(parts[0], parts[1:])
    percentiles = "; ".join(
        f"{name} {_percentile(part, 50):.1f} and {_percentile(part, CONTROL_PERCENTILE):.1f}"
        for name, part in zip(images, parts, strict=True)
    )
    return (
        "distance to the nearest training image in gray levels, median and 1st percentile: "
        f"{percentiles}\n"
        f"{round(copies.share * len(samples))} of {len(samples)} samples are nearer than 99 % of "
        f"{len(test)} test images and of their reconstructions ({copies.threshold:.1f}): "
        + _conclusion(copies)
    )


def _conclusion(copies: Memorisation) -> str:
    if copies.warning:
        return "more than chance allows: look for copies"
    return "no sign of copies" if copies.conclusive else "too few test images to tell"


def _percentile(distances: Tensor, percentile: float) -> float:
    return float(np.percentile(distances.numpy(), percentile))
