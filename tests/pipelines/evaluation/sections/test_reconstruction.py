"""Metrics of stage one over two batches, from the model and from reconstructions made before."""

import pytest
import torch
from slow_similarity import slow_ssim, smooth_images

from pipelines.data.image_set import ImageSet
from pipelines.evaluation.sections.reconstruction import reconstruction_metrics
from pipelines.runs.batches import reconstruct_images
from stage1_vqvae import VQVAE, EMAQuantizerConfig, VQVAEConfig


def small_model(height, width):
    """A VQ-VAE with random weights for gray images."""
    torch.manual_seed(0)
    quantizer = EMAQuantizerConfig(codebook_size=16, kmeans_batches=0)
    config = VQVAEConfig(width=8, fine_width=8, num_layers=1, quantizer=quantizer)
    return VQVAE(config, (1, height, width)).to(memory_format=torch.channels_last).eval()


def metrics(model, images, reconstructions):
    found = reconstruction_metrics(
        model, ImageSet(images), reconstructions, 7.0, torch.device("cpu")
    )
    return {metric.name: metric for metric in found}


def test_figures_are_those_of_the_images_and_their_reconstructions():
    model, images = small_model(12, 16), smooth_images(300, 1, 12, 16)
    # Others than the model's, so that structure is kept, and a wrong pairing seen.
    pale = images // 2 + 30
    found = metrics(model, images, pale)
    # Float32 differences of squares up to 255^2 against c2 = 58.
    assert found["ssim"].value == pytest.approx(slow_ssim(images, pale), abs=1e-4)
    assert slow_ssim(images, pale[::-1]) < found["ssim"].value - 0.1
    difference = images.astype(float) - reconstruct_images(model, ImageSet(images))
    psnr = 10 * torch.tensor(255**2 / (difference**2).mean()).log10().item()
    assert found["psnr"].value == pytest.approx(psnr, rel=1e-6)
    assert found["l1"].value == pytest.approx(abs(difference).mean(), rel=1e-9)
    assert found["rate_bits_per_image"].value == 3 * 4 * 4  # 12 codes of 4 bits
    assert found["rate_bits_per_image"].references[0].value == 7


def test_images_smaller_than_the_window_have_no_ssim():
    images = smooth_images(3, 1, 8, 28)
    found = metrics(small_model(8, 28), images, images)
    assert "ssim" not in found
    assert "psnr" in found
