"""Whether samples are copies of training images, as metrics."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pipelines.evaluation.metrics.nearest_images import (
    CONTROL_PERCENTILE,
    detect_memorisation,
    nearest_training_images,
)
from pipelines.evaluation.record import Metric, Reference


@dataclass(frozen=True)
class MemorisationMetrics:
    """The metrics, and the warning in words."""

    metrics: tuple[Metric, ...]
    warnings: tuple[str, ...]
    """Empty where samples are no nearer to training images than new images are."""


def memorisation_metrics(
    samples: Tensor,
    test: Tensor,
    reconstructions: Tensor,
    training: NDArray[np.uint8],
    decoded_training: NDArray[np.uint8] | None,
) -> MemorisationMetrics:
    """Distances of samples to their nearest training images beside those of new images.

    A prior that has learned code grids by heart gives the training images as the VQ-VAE decodes
    them, which may be further from the originals than other images are. So they are also compared
    with the decoded training images, from which such a copy has no distance at all.

    Args:
        samples: uint8 (N, C, H, W), on the device to compute on.
        test: uint8 (N, C, H, W), images that nothing was trained on.
        reconstructions: uint8 (N, C, H, W), of `test`: as smooth as samples are.
        training: uint8 (M, C, H, W), what both stages were trained on.
        decoded_training: uint8 (M, C, H, W), the same as the VQ-VAE gives them back; None leaves
            that comparison out.
    """
    distances, new, decoded = (
        nearest_training_images(images, training).distance
        for images in (samples, test, reconstructions)
    )
    judged = detect_memorisation(distances, (new, decoded))
    count, unit = len(samples), "of 255"
    metrics = [
        Metric(
            group="memorisation",
            name=f"nearest_distance_{name}",
            label=f"Distance to the nearest training image, {words}",
            value=_percentile(distances, percentile),
            unit=unit,
            better="neither",
            explanation="Root mean square difference of pixels, in gray levels; far below that of "
            "test images, samples are copies.",
            num_images=count,
            references=(
                Reference(label="test images", value=_percentile(new, percentile)),
                Reference(
                    label="reconstructions of test images", value=_percentile(decoded, percentile)
                ),
            ),
        )
        for name, words, percentile in (
            ("median", "median", 50),
            ("percentile_1", "1st percentile", CONTROL_PERCENTILE),
        )
    ]
    metrics.append(
        _share(
            "near_copies",
            "Samples nearer to a training image than 99 % of new images",
            "Part of the samples below the 1st percentile of test images and of their "
            "reconstructions; well above 1 %, some are copies.",
            judged.share,
            count,
        )
    )
    warnings = []
    if judged.warning:
        warnings.append(_warning(judged.share, "a training image", "test images"))
    if decoded_training is not None:
        distances, decoded = (
            nearest_training_images(images, decoded_training).distance
            for images in (samples, reconstructions)
        )
        judged = detect_memorisation(distances, (decoded,))
        metrics.append(
            _share(
                "near_copies_of_reconstructions",
                "The same against decoded training images",
                "A prior that repeats training codes gives the training images as the VQ-VAE "
                "decodes them; test images decoded so are the measure.",
                judged.share,
                count,
            )
        )
        if judged.warning:
            warnings.append(
                _warning(judged.share, "a decoded training image", "reconstructions of test images")
            )
    return MemorisationMetrics(tuple(metrics), tuple(warnings))


def _share(name: str, label: str, explanation: str, share: float, count: int) -> Metric:
    return Metric(
        group="memorisation",
        name=name,
        label=label,
        value=100 * share,
        unit="%",
        better="lower",
        explanation=explanation,
        num_images=count,
        references=(Reference(label="new images, by definition", value=CONTROL_PERCENTILE),),
    )


def _warning(share: float, what: str, controls: str) -> str:
    return (
        f"memorisation warning: {share:.1%} of the samples are nearer to {what} than 99 % of the "
        f"{controls} are, so some may be copies: compare samples with their nearest training "
        "images"
    )


def _percentile(distances: Tensor, percentile: float) -> float:
    return float(np.percentile(distances.numpy(), percentile))
