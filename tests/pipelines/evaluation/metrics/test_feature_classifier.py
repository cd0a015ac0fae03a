"""The feature classifier: it learns, and it is a function of its seed."""

import numpy as np
import pytest
import torch

from pipelines.evaluation.metrics.feature_classifier import FeatureClassifier, train_classifier
from pipelines.evaluation.metrics.feature_encoder import EncoderTraining
from pipelines.training.precision import Precision

CPU, FP32 = torch.device("cpu"), Precision(name="fp32", reason="it was asked for")
SHORT = EncoderTraining(min_steps=12, max_epochs=12, batch_size=16)


def two_classes(count, height=8, width=8, channels=1, seed=0):
    """Noise that is brighter above in class 1, below in class 0."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    images = generator.integers(0, 100, (count, channels, height, width), dtype=np.uint8)
    images[labels == 1, :, : height // 2] += 100
    images[labels == 0, :, height // 2 :] += 100
    return images, labels


def train(images, labels, seed=0, training=SHORT):
    return train_classifier(
        images, labels, 2, seed=seed, device=CPU, precision=FP32, training=training
    )


@pytest.mark.parametrize("shape", [(8, 8, 1), (9, 13, 3)])
def test_classifier_learns_classes_of_images_it_has_not_seen(shape):
    model = train(*two_classes(64, *shape), training=EncoderTraining(min_steps=40))
    assert model.accuracy(*two_classes(40, *shape, seed=1)) == 1.0


def test_accuracy_is_the_part_of_images_whose_label_is_likeliest():
    images, labels = two_classes(64)
    model = train(images, labels)
    with torch.no_grad():
        right = model(model.prepare(torch.from_numpy(images))).argmax(dim=1).numpy() == labels
    wrong_labels = np.where(np.arange(64) < 16, 1 - labels, labels)
    expected = (right[16:].sum() + (~right[:16]).sum()) / 64
    assert model.accuracy(images, wrong_labels) == expected


def test_features_are_what_the_head_sees():
    images, labels = two_classes(20)
    model = train(images, labels)
    features = model.features(images)
    assert features.shape == (20, 128)
    with torch.no_grad():
        logits = model(model.prepare(torch.from_numpy(images)))
        torch.testing.assert_close(model.head(features), logits)


def test_features_of_an_image_do_not_depend_on_its_batch():
    images, labels = two_classes(20)
    model = train(images, labels)
    torch.testing.assert_close(model.features(images)[7:8], model.features(images[7:8]))


def test_large_images_are_averaged_down():
    model = FeatureClassifier(1, 2).eval()
    small = np.random.default_rng(0).integers(0, 256, (2, 1, 64, 32), dtype=np.uint8)
    large = small.repeat(4, axis=2).repeat(4, axis=3)
    torch.testing.assert_close(model.features(large), model.features(small))


def test_training_is_a_function_of_its_seed_and_leaves_the_global_stream_alone():
    images, labels = two_classes(40)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = train(images, labels).features(images)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert torch.equal(train(images, labels).features(images), first)
    assert not torch.equal(train(images, labels, seed=1).features(images), first)


def test_length_of_training_depends_on_the_number_of_images():
    steps = EncoderTraining().steps
    assert steps(60_000) == 3 * 60_000 // 128  # three epochs
    assert steps(10_000) == 500  # minimum number of steps
    assert steps(64) == 50  # maximum number of epochs, of one step each


def test_single_image_is_refused():
    with pytest.raises(ValueError, match="needs at least 2 images, got 1"):
        train(*two_classes(1))
