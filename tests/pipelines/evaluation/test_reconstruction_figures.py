"""Figures of stage one, from reconstructions that were made before."""

import pytest
import torch
from slow_similarity import slow_ssim, smooth_images

from pipelines.batches import reconstruct_images
from pipelines.data.image_set import ImageSet
from pipelines.evaluation.reconstruction_figures import reconstruction_figures
from stage1_vqvae import VQVAE, EMAQuantizerConfig, VQVAEConfig


def figures_of(height, width, count):
    """The figures by name, with images and reconstructions, of a VQ-VAE with random weights."""
    torch.manual_seed(0)
    quantizer = EMAQuantizerConfig(codebook_size=16, kmeans_batches=0)
    config = VQVAEConfig(width=8, fine_width=8, num_layers=1, quantizer=quantizer)
    model = VQVAE(config, (1, height, width)).eval()
    model = model.to(memory_format=torch.channels_last)
    test = ImageSet(smooth_images(count, 1, height, width))
    reconstructions = reconstruct_images(model, test)
    figures = reconstruction_figures(model, test, reconstructions, 7.0, torch.device("cpu"))
    return {figure.name: figure for figure in figures}, test.images, reconstructions


def test_figures_are_those_of_the_images_and_their_own_reconstructions():
    figures, images, reconstructions = figures_of(12, 16, 300)  # two batches
    difference = images.astype(float) - reconstructions
    psnr = 10 * torch.tensor(255**2 / (difference**2).mean()).log10().item()
    assert figures["psnr"].value == pytest.approx(psnr, rel=1e-6)
    assert figures["l1"].value == pytest.approx(abs(difference).mean(), rel=1e-9)
    # Float32 differences of squares up to 255^2 against c2 = 58.
    assert figures["ssim"].value == pytest.approx(slow_ssim(images, reconstructions), abs=1e-4)
    shuffled = slow_ssim(images, reconstructions[::-1])
    assert abs(shuffled - figures["ssim"].value) > 1e-3  # so that a wrong pairing is seen
    assert figures["rate_bits_per_image"].value == 3 * 4 * 4
    assert figures["rate_bits_per_image"].references[0].value == 7


def test_images_smaller_than_the_window_have_no_ssim():
    figures, _, _ = figures_of(8, 28, 3)
    assert "ssim" not in figures
    assert "psnr" in figures
