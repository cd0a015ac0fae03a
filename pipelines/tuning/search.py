"""How near the samples of several sampling settings come to images that were kept back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.data.image_set import ImageSet
from pipelines.evaluation.metrics.feature_networks import FeatureNetwork
from pipelines.evaluation.metrics.frechet import frechet_distance
from pipelines.generation.pipeline import GenerationPipeline
from pipelines.tuning.record import MeasuredSettings
from stage2_prior.config import SamplingSettings

Agreement = Callable[[NDArray[np.uint8], NDArray[np.int64]], float]
"""The part of images uint8 (N, C, H, W) that show the class they were drawn for, int64 (N,)."""


def measure_settings(
    pipeline: GenerationPipeline,
    ways: Sequence[SamplingSettings],
    real: ImageSet,
    network: FeatureNetwork,
    *,
    sets: int,
    seed: int,
    batch_size: int,
    agreement: Agreement | None = None,
) -> Iterator[MeasuredSettings]:
    """Measures one way to sample after the other.

    All draw with the same random numbers, so that their differences are less noisy than each of
    their figures.

    Args:
        pipeline: Draws.
        ways: The settings, each with `compile` decided.
        real: What samples should be like. Each set of samples is as large, and its classes are as
            frequent.
        network: The feature space.
        sets: How many sets of samples of each way.
        seed: Of the samples.
        batch_size: Samples drawn at once.
        agreement: Judges whether samples show their class; None leaves that out.
    """
    size = len(real)
    features = network.features(real.images)
    labels = None
    if real.labels is not None and pipeline.prior.num_classes is not None:
        labels = np.tile(real.labels, sets)
    for way in ways:
        images = pipeline(
            sets * size,
            None if labels is None else torch.from_numpy(labels),
            settings=way,
            seed=seed,
            batch_size=batch_size,
        ).numpy()
        yield MeasuredSettings(
            way,
            tuple(
                frechet_distance(features, network.features(images[i * size : (i + 1) * size]))
                for i in range(sets)
            ),
            None if agreement is None or labels is None else agreement(images, labels),
        )
