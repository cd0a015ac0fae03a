"""The classification accuracy score of samples that are right, useless or wrong."""

import numpy as np
import pytest
import torch

from pipelines.data.image_set import ImageSet
from pipelines.evaluation.metrics.classification_accuracy import (
    ClassificationAccuracy,
    classification_accuracy,
)
from pipelines.evaluation.metrics.feature_encoder import EncoderTraining
from pipelines.training.precision import Precision


def two_classes(count, seed):
    """Noise that is brighter above in class 1, below in class 0."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    images = generator.integers(0, 100, (count, 1, 8, 8), dtype=np.uint8)
    images[labels == 1, :, :4] += 100
    images[labels == 0, :, 4:] += 100
    return ImageSet(images, labels)


def measure(generated, real, seeds=1):
    return classification_accuracy(
        generated,
        real,
        two_classes(40, seed=9),
        2,
        seeds=seeds,
        device=torch.device("cpu"),
        precision=Precision(name="fp32", reason="it was asked for"),
        training=EncoderTraining(min_steps=40, batch_size=16),
    )


def test_samples_like_real_images_score_as_these():
    found = measure(two_classes(48, seed=1), two_classes(64, seed=2), seeds=2)
    assert found == ClassificationAccuracy(generated=(1.0, 1.0), real=(1.0, 1.0))
    assert (found.ratio, found.ratio_std) == (1.0, 0.0)


def test_samples_of_the_other_class_teach_the_opposite():
    samples = two_classes(48, seed=1)
    found = measure(ImageSet(samples.images, 1 - samples.labels), two_classes(64, seed=2))
    assert found == ClassificationAccuracy(generated=(0.0,), real=(1.0,))
    assert (found.ratio, found.ratio_std) == (0.0, None)


def test_ratio_is_that_of_the_means_and_spreads_over_seeds():
    found = ClassificationAccuracy(generated=(0.8, 0.6), real=(1.0, 0.75))
    assert found.ratio == pytest.approx(0.7 / 0.875)
    assert found.ratio_std == pytest.approx(0.0)


def test_more_samples_than_real_images_are_refused():
    with pytest.raises(ValueError, match="at most as many samples as real images, got 48 and 20"):
        measure(two_classes(48, seed=1), two_classes(20, seed=2))


def test_images_without_labels_are_refused():
    with pytest.raises(ValueError, match="needs images with labels, got some without"):
        measure(ImageSet(two_classes(20, seed=1).images), two_classes(20, seed=2))
