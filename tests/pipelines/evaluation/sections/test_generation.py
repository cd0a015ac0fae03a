"""Values, standard deviations and references of the metrics of generated images."""

import numpy as np
import pytest
import torch

from pipelines.evaluation.metrics import frechet
from pipelines.evaluation.metrics.feature_networks import FeatureNetwork
from pipelines.evaluation.metrics.frechet import frechet_distance, kernel_distance
from pipelines.evaluation.sections import generation
from pipelines.evaluation.sections.generation import Compared, distance_metrics

SIDE, MAX_SUBSET = 60, 40


@pytest.fixture(scope="module", autouse=True)
def _small_subsets():
    """Subsets of the kernel distance that are smaller than the sets."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (frechet, generation):
            patch.setattr(module, "MAX_SUBSET", MAX_SUBSET)
        yield


def pixels(images):
    return torch.from_numpy(images).flatten(1).double()


def network(name):
    return FeatureNetwork(
        name=name, label="pixels", frechet="FD-x", kernel="KD-x", hash="0", num_features=2,
        is_own=name in ("classifier", "images"), features=pixels,
    )  # fmt: skip


def images(brightness, seed):
    """uint8 (N, 1, 1, 2) around a brightness."""
    drawn = np.random.default_rng(seed).normal(brightness, 10, (SIDE, 1, 1, 2))
    return drawn.clip(0, 255).astype(np.uint8)


TEST = images(100, 0)


def compared(*samples):
    return Compared(
        samples=samples,
        train=(images(100, 2), images(100, 3)),
        reconstructions=images(101, 1),
    )


def found(sets, name="other"):
    metrics = distance_metrics(network(name), TEST, sets, max_sets=6, max_neighbour_sets=1)
    return {metric.name: metric for metric in metrics}


@pytest.fixture(scope="module")
def of_two_sets():
    sets = compared(images(110, 4), images(112, 5))
    return sets, found(sets)


def test_value_and_std_are_those_of_the_sets(of_two_sets):
    sets, metrics = of_two_sets
    test = pixels(TEST)
    for name, distance in (
        ("fd_x", frechet_distance),
        ("kd_x", lambda a, b: kernel_distance(a, b).mean),
    ):
        expected = [distance(test, pixels(part)) for part in sets.samples]
        assert metrics[name].value == pytest.approx(np.mean(expected))
        assert metrics[name].std == pytest.approx(np.std(expected, ddof=1))
        assert metrics[name].repetitions == 2
    assert "subsets" not in metrics["kd_x"].explanation


def test_floor_is_that_of_training_images_and_of_reconstructions(of_two_sets):
    sets, metrics = of_two_sets
    test = pixels(TEST)
    floors = [frechet_distance(test, pixels(part)) for part in sets.train]
    references = {reference.label: reference.value for reference in metrics["fd_x"].references}
    assert references == {
        "train against test": pytest.approx(np.mean(floors)),
        "reconstructions against test": pytest.approx(
            frechet_distance(test, pixels(sets.reconstructions))
        ),
        "std of train against test": pytest.approx(np.std(floors, ddof=1)),
    }
    assert metrics["rfd_x"].value == references["reconstructions against test"]


def test_kernel_distance_of_one_set_has_the_std_of_its_subsets():
    sets = compared(images(110, 4))
    metrics = found(sets)
    expected = kernel_distance(pixels(TEST), pixels(sets.samples[0]))
    assert metrics["kd_x"].std == pytest.approx(expected.std)
    assert "subsets of 40 images" in metrics["kd_x"].explanation
    assert metrics["fd_x"].std is None  # of one set nothing is known


def test_explanation_of_the_floor_says_whether_the_network_was_trained_on_it():
    sets, names = compared(images(110, 4)), ("classifier", "images", "inception")
    explanations = [found(sets, name)["fd_x"].explanation for name in names]
    assert ["which it was trained on" in text for text in explanations] == [True, True, False]
