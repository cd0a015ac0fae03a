"""Distances of the samples of several settings from the validation split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.cli.echo import say
from pipelines.data.image_set import DataSplits
from pipelines.evaluation.loaded_run import fixed_order, joined_sets
from pipelines.evaluation.metrics.feature_classifier import FeatureClassifier
from pipelines.evaluation.metrics.feature_networks import (
    FeatureNetwork,
    efficientnet_network,
    efficientnet_weights_for,
    encoder_network,
)
from pipelines.evaluation.metrics.frechet import whole_kernel_distance
from pipelines.evaluation.run_networks import needs_own_encoder, own_encoder
from pipelines.generation.pipeline import GenerationPipeline
from pipelines.training.precision import resolve_precision
from pipelines.tuning.record import HEADING, MeasuredSettings, SamplingTuning, table_row
from stage2_prior.sampling.settings import SamplingSettings


@dataclass(frozen=True)
class Judge:
    """The feature network that samples are judged in."""

    network: FeatureNetwork
    classifier: FeatureClassifier | None
    """Where the network is one: it says how many samples are of their class."""


def judge_of(path: Path, splits: DataSplits, device: torch.device) -> Judge:
    """Returns the cheapest network for a run's data, trained or cached.

    That is the data's own classifier where there are several classes, else EfficientNet for colour
    images where it is installed, else a network trained on the images alone.
    """
    channels = splits.image_shape[0]
    weights = efficientnet_weights_for(channels)
    if weights is not None and not needs_own_encoder(splits.num_classes, channels):
        return Judge(efficientnet_network(weights, device), None)
    say("feature network ...")
    real = joined_sets(splits.train, splits.validation)
    encoder, key = own_encoder(path, splits, real, device, resolve_precision("auto", device))
    classifier = encoder if isinstance(encoder, FeatureClassifier) else None
    return Judge(encoder_network(encoder, key), classifier)


def measure_candidates(
    judge: Judge,
    pipeline: GenerationPipeline,
    candidates: Sequence[SamplingSettings],
    splits: DataSplits,
    *,
    num_images: int,
    images_per_set: int,
    sets: int,
    seed: int,
    batch_size: int,
) -> SamplingTuning:
    """Measures all candidates, and prints each when it is measured.

    All sample with the same random numbers, so that their differences are less noisy than the
    distances themselves. Labels are those of the validation split in a fixed order, again and
    again.

    Args:
        judge: Of `judge_of`.
        pipeline: Samples.
        candidates: Settings to try.
        splits: The run's data.
        num_images: Validation images to compare with, at least 2.
        images_per_set: Samples in each set, at least 2.
        sets: Sets of samples of each candidate.
        seed: Of the samples.
        batch_size: Samples made at once.
    """
    network, validation = judge.network, splits.validation
    order = fixed_order(len(validation))
    features = network.features(validation.images[np.sort(order[:num_images])])
    train = splits.train.images[fixed_order(len(splits.train))[:num_images]]
    floor = whole_kernel_distance(features, network.features(train))
    say(
        f"{network.kernel} of {sets} x {images_per_set:,} samples from {num_images:,} validation "
        f"images (of as many training images: {floor:.3g})"
    )
    say(HEADING)
    labels = None
    if validation.labels is not None and pipeline.prior.num_classes is not None:
        labels = np.resize(validation.labels[order], sets * images_per_set)
    measured = []
    for candidate in candidates:
        images = pipeline(
            sets * images_per_set,
            None if labels is None else torch.from_numpy(labels),
            settings=candidate,
            seed=seed,
            batch_size=batch_size,
        ).numpy()
        distances = tuple(
            whole_kernel_distance(features, network.features(part))
            for part in np.array_split(images, sets)
        )
        agreement = _agreement(judge.classifier, images, labels)
        measured.append(MeasuredSettings(candidate, distances, agreement))
        say(table_row(measured[-1]))
    return SamplingTuning(
        vqvae=pipeline.vqvae.weights_hash(),
        prior=pipeline.prior.weights_hash(),
        metric=network.kernel,
        feature_network=network.hash,
        num_images=num_images,
        images_per_set=images_per_set,
        seed=seed,
        floor=floor,
        measured=tuple(measured),
    )


def _agreement(
    classifier: FeatureClassifier | None,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64] | None,
) -> float | None:
    if classifier is None or labels is None:
        return None
    return classifier.accuracy(images, labels)
