"""Structural similarity of pairs of images, against the paper's equation in float64."""

import pytest
import torch
from fake_gpu import FAKE_GPU, fake_gpu_without_float64
from slow_similarity import slow_ssim, smooth_images
from torch._subclasses.fake_tensor import DataDependentOutputException

from pipelines.evaluation.metrics.ssim import structural_similarity


@pytest.mark.parametrize(("channels", "height", "width"), [(1, 28, 28), (3, 11, 17)])
def test_it_is_that_of_the_paper_over_inner_pixels_of_all_images(channels, height, width):
    images = torch.from_numpy(smooth_images(7, channels, height, width))
    others = (images.float() / 2 + 30).round().to(torch.uint8)
    expected = slow_ssim(images.numpy(), others.numpy())
    assert 0.1 < expected < 0.99
    pairs = zip(images.split(3), others.split(3), strict=True)  # of unequal sizes: 3, 3, 1
    # Float32 differences of squares up to 255^2 against c2 = 58.
    assert structural_similarity(pairs) == pytest.approx(expected, abs=1e-4)


def test_that_of_equal_images_is_1():
    images = torch.from_numpy(smooth_images(2, 1, 12, 12))
    assert structural_similarity([(images, images)]) == pytest.approx(1)


def test_images_smaller_than_the_window_have_none():
    for shape in ((2, 1, 10, 28), (2, 3, 28, 10)):
        images = torch.zeros(shape, dtype=torch.uint8)
        assert structural_similarity([(images, images)]) is None


def test_images_on_a_gpu_without_float64_are_averaged_elsewhere():
    # It comes as far as the number itself, which tensors without content do not have.
    with (
        fake_gpu_without_float64(),
        pytest.raises(DataDependentOutputException, match="local_scalar_dense"),
    ):
        structural_similarity([(torch.zeros(1, 1, 12, 12, device=FAKE_GPU),) * 2])
