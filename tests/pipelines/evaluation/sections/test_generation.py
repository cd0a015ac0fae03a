"""What the metrics of generation are the mean and std of, and what they say about it."""

import numpy as np
import pytest
import torch

from pipelines.evaluation.metrics.feature_networks import FeatureNetwork
from pipelines.evaluation.metrics.frechet import frechet_distance, kernel_distance
from pipelines.evaluation.sections.generation import ComparedImages, distance_metrics

SIDE = 1200  # more than a subset of the kernel distance


def pixels(images):
    return torch.from_numpy(images).flatten(1).double()


def network(name):
    return FeatureNetwork(
        name=name, label="pixels", frechet="FD-x", kernel="KD-x", hash="0", num_features=2,
        features=pixels,
    )  # fmt: skip


def images(brightness, seed):
    """uint8 (N, 1, 1, 2) around a brightness."""
    drawn = np.random.default_rng(seed).normal(brightness, 10, (SIDE, 1, 1, 2))
    return drawn.clip(0, 255).astype(np.uint8)


def compared(*samples):
    return ComparedImages(
        test=images(100, 0),
        reconstructions=images(101, 1),
        train=(images(100, 2), images(100, 3)),
        samples=samples,
    )


def found(sets, name="other"):
    metrics = distance_metrics(network(name), sets, max_sets=6, max_neighbour_sets=1)
    return {metric.name: metric for metric in metrics}


@pytest.fixture(scope="module")
def of_two_sets():
    sets = compared(images(110, 4), images(112, 5))
    return sets, found(sets)


def test_value_and_spread_are_those_of_the_sets(of_two_sets):
    sets, metrics = of_two_sets
    test = pixels(sets.test)
    for name, distance in (
        ("fd_x", frechet_distance),
        ("kd_x", lambda a, b: kernel_distance(a, b).mean),
    ):
        expected = [distance(test, pixels(part)) for part in sets.samples]
        assert metrics[name].value == pytest.approx(np.mean(expected))
        assert metrics[name].std == pytest.approx(np.std(expected, ddof=1))
        assert metrics[name].repetitions == 2


def test_floor_is_that_of_training_images_and_of_reconstructions(of_two_sets):
    sets, metrics = of_two_sets
    test = pixels(sets.test)
    floors = [frechet_distance(test, pixels(part)) for part in sets.train]
    beside = {reference.label: reference.value for reference in metrics["fd_x"].references}
    assert beside == {
        "train against test": pytest.approx(np.mean(floors)),
        "reconstructions against test": pytest.approx(
            frechet_distance(test, pixels(sets.reconstructions))
        ),
        "std of train against test": pytest.approx(np.std(floors, ddof=1)),
    }
    assert metrics["rfd_x"].value == beside["reconstructions against test"]


def test_kernel_distance_of_one_set_has_the_spread_of_its_subsets():
    sets = compared(images(110, 4))
    metrics = found(sets)
    expected = kernel_distance(pixels(sets.test), pixels(sets.samples[0]))
    assert metrics["kd_x"].std == pytest.approx(expected.std)
    assert "over random subsets of 1,000 images of one set" in metrics["kd_x"].explanation
    assert metrics["fd_x"].std is None  # of one set nothing is known


def test_kernel_distance_of_two_sets_does_not_speak_of_subsets(of_two_sets):
    _, metrics = of_two_sets
    assert "subsets" not in metrics["kd_x"].explanation


@pytest.mark.parametrize(("name", "said"), [("classifier", True), ("inception", False)])
def test_only_the_classifier_has_learned_from_the_floors_images(name, said):
    words = found(compared(images(110, 4)), name)["fd_x"].explanation
    assert ("which the classifier has learned from" in words) == said
