"""Nearest training images against a search over whole numbers, and the warning."""

import numpy as np
import pytest
import torch
from fake_gpu import FAKE_GPU, fake_gpu_without_float64

from pipelines.evaluation.metrics import nearest_images
from pipelines.evaluation.metrics.nearest_images import detect_memorisation, nearest_training_images


def random_images(count, *shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def slow_search(images, training):
    difference = images[:, None].astype(np.int64) - training[None].astype(np.int64)
    squared = (difference**2).sum(axis=(2, 3, 4))
    return squared.argmin(axis=1), np.sqrt(squared.min(axis=1) / images[0].size)


@pytest.mark.parametrize(("shape", "chunk"), [((1, 5, 7), 3), ((3, 24, 20), 1024)])
def test_nearest_images_are_those_of_a_search_in_whole_numbers(shape, chunk, monkeypatch):
    monkeypatch.setattr(nearest_images, "_MAX_CHUNK", chunk)
    images, training = random_images(7, *shape), random_images(11, *shape, seed=1)
    found = nearest_training_images(torch.from_numpy(images), training)
    index, distance = slow_search(images, training)
    assert found.index.tolist() == index.tolist()
    np.testing.assert_allclose(found.distance.numpy(), distance, rtol=1e-7)


def test_one_gray_level_of_one_pixel_is_seen_in_large_bright_images():
    # 3072 pixels: |x|^2 is about 5e7, where neighbouring float32 numbers are 4 apart.
    original = np.full((1, 3, 32, 32), 127, np.uint8)
    training = np.repeat(original, 3, axis=0)
    training[0, 0, 0, 0] += 1
    training[1, 1, 1, 1] += 1
    found = nearest_training_images(torch.from_numpy(original), training)
    assert found.index.tolist() == [2]
    assert found.distance.tolist() == [0.0]
    found = nearest_training_images(torch.from_numpy(original), training[:2])
    assert found.index.tolist() == [0]
    assert found.distance.item() == pytest.approx((1 / 3072) ** 0.5)


def test_distance_is_in_gray_levels():
    black = torch.zeros(1, 1, 4, 4, dtype=torch.uint8)
    found = nearest_training_images(black, np.full((1, 1, 4, 4), 10, np.uint8))
    assert found.distance.item() == 10.0


@pytest.mark.parametrize("count", [0, 2])
def test_images_of_another_shape_or_none_are_refused(count):
    images = torch.zeros(count, 1, 4, 4 + count, dtype=torch.uint8)
    with pytest.raises(ValueError, match="must be at least one each and of one shape, got"):
        nearest_training_images(images, random_images(3, 1, 4, 4))


def test_images_of_another_type_are_refused():
    with pytest.raises(TypeError, match=r"must be uint8, got torch\.float32 and uint8"):
        nearest_training_images(torch.zeros(1, 1, 4, 4), random_images(3, 1, 4, 4))


def distances_of(images, training):
    return nearest_training_images(torch.from_numpy(images), training).distance


@pytest.fixture
def training():
    return random_images(300, 1, 4, 4)


def test_duplicated_training_images_give_a_warning(training):
    control = distances_of(random_images(200, 1, 4, 4, seed=1), training)
    samples = random_images(200, 1, 4, 4, seed=2)
    samples[:20] = training[:20]
    found = detect_memorisation(distances_of(samples, training), (control,))
    assert found.warning
    assert 0.1 <= found.share <= 0.15


def test_new_images_give_no_warning(training):
    control = distances_of(random_images(1000, 1, 4, 4, seed=1), training)
    samples = distances_of(random_images(1000, 1, 4, 4, seed=2), training)
    assert not detect_memorisation(samples, (control,)).warning


def test_few_samples_give_no_warning_by_chance():
    control = torch.linspace(1, 2, 101)
    samples = torch.tensor([1.0] + [2.0] * 9)
    found = detect_memorisation(samples, (control,))
    assert (found.share, found.warning) == (0.1, False)


@pytest.mark.parametrize("count", [5, 20, 100])
def test_few_controls_give_no_warning_by_chance_but_for_copies(count):
    generator = torch.manual_seed(0)
    new = torch.rand(500, 100 + count, generator=generator)
    warnings = [detect_memorisation(row[:100], (row[100:],)).warning for row in new]
    assert sum(warnings) <= 15  # 3 %: shares of few controls are not normally distributed
    assert detect_memorisation(torch.zeros(100), (new[0, 100:],)).warning


def test_copies_are_found_beside_test_images_that_are_copies():
    control = torch.cat([torch.zeros(3), torch.rand(97) + 1])
    assert detect_memorisation(torch.zeros(100), (control,)).warning


def test_threshold_is_the_lowest_first_percentile():
    found = detect_memorisation(torch.ones(4), (torch.arange(201.0), torch.arange(101.0) + 0.5))
    assert found.threshold == 1.5
    assert found.share == 1.0


@pytest.mark.parametrize("controls", [(), (torch.empty(0),)])
def test_memorisation_without_controls_is_refused(controls):
    with pytest.raises(ValueError, match="at least one sample and one test image are required"):
        detect_memorisation(torch.ones(3), controls)


def test_nearest_images_are_found_for_images_on_a_gpu_without_float64():
    training = np.zeros((5, 1, 4, 4), np.uint8)
    with fake_gpu_without_float64():
        images = torch.zeros(3, 1, 4, 4, dtype=torch.uint8, device=FAKE_GPU)
        found = nearest_training_images(images, training)
    assert found.distance.shape == (3,)
    assert found.distance.device.type == "cpu"


@pytest.mark.parametrize(("num_controls", "conclusive"), [(3, False), (100, True)])
def test_few_controls_tell_nothing(num_controls, conclusive):
    found = detect_memorisation(torch.ones(64), (torch.rand(num_controls),))
    assert found.conclusive == conclusive
    assert not found.warning
