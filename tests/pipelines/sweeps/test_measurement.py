"""What a sweep measures itself: structural similarity and rates, against slow references."""

import math
from dataclasses import replace

import pytest
import torch
from slow_similarity import slow_ssim, smooth_images
from torch import nn

from pipelines.data.image_set import ImageSet
from pipelines.runs.recipes import smoke
from pipelines.sweeps.directory import SweepDirectory, SweepRun
from pipelines.sweeps.measurement import measure_ssim, vqvae_row, with_prior_figures
from pipelines.sweeps.table import SweepRow
from pipelines.training.metrics_log import MetricsLog, MetricsRow


class StandIn(nn.Module):
    """Two grids at different resolutions; reconstructs with half of the contrast."""

    codebook_sizes = (4, 32)
    grid_shapes = ((2, 3), (4, 6))

    def __init__(self, image_shape):
        super().__init__()
        self.image_shape = image_shape
        self.weight = nn.Parameter(torch.zeros(3, 5))
        self.register_buffer("codebook", torch.zeros(7))

    def encode(self, images):
        return (images,)

    def decode(self, codes):
        return (codes[0].float() / 2 + 30).round().to(torch.uint8)


def test_ssim_is_that_of_images_and_their_reconstructions():
    model = StandIn((3, 12, 17))
    images = torch.from_numpy(smooth_images(5, 3, 12, 17))
    expected = slow_ssim(images.numpy(), model.decode((images,)).numpy())
    # Float32 differences of squares up to 255^2 against c2 = 58.
    assert measure_ssim(model, images.split(3)) == pytest.approx(expected, abs=1e-4)


@pytest.fixture
def run(tmp_path):
    directory = SweepDirectory(tmp_path / "sweep").run("residual", 128)
    return SweepRun(kind="residual", size=128, config=smoke(), directory=directory)


def write_test_figures(run, phase, seconds, **values):
    row = MetricsRow(
        phase=phase, kind="test", step=10, images_seen=640, seconds=seconds, values=values
    )
    MetricsLog(run.directory.metrics).write(row)


VQVAE_FIGURES = {"psnr": 21.5, "l1": 9.0, "usage": 0.75, "perplexity": 3.5, "entropy": 2.25}


def test_row_counts_the_bits_of_every_grid(run):
    write_test_figures(run, "vqvae", 4.0, **VQVAE_FIGURES)
    images = ImageSet(smooth_images(5, 1, 8, 12))
    row = vqvae_row(run, StandIn((1, 8, 12)), images, torch.device("cpu"))
    # 6 positions of 2 bits and 24 of 5 bits, over the 24 positions of the finest grid.
    bits = 6 * 2 + 24 * 5
    assert row == SweepRow(
        kind="residual",
        codebook_size=128,
        codebook_sizes=(4, 32),
        bits_per_position=bits / 24,
        bits_per_image=bits,
        bits_per_pixel=bits / (8 * 12),
        psnr=21.5,
        ssim=None,
        usage=0.75,
        perplexity=3.5,
        order_0_entropy=2.25,
        vqvae_seconds=4.0,
        images_per_second=160.0,
        parameters=15,
    )


def test_exact_reconstruction_has_infinite_psnr(run):
    write_test_figures(run, "vqvae", 4.0, **VQVAE_FIGURES | {"psnr": math.inf})
    images = ImageSet(smooth_images(5, 1, 8, 12))
    row = vqvae_row(run, StandIn((1, 8, 12)), images, torch.device("cpu"))
    assert row.psnr == math.inf


def test_prior_figures_are_added_to_the_row(run):
    write_test_figures(run, "vqvae", 4.0, **VQVAE_FIGURES)
    write_test_figures(run, "prior", 6.0, bits_per_code=1.5, bits_per_image=45.0)
    row = SweepRow(kind="residual", codebook_size=128, psnr=21.5)
    assert with_prior_figures(row, run) == replace(
        row, bits_per_code=1.5, prior_bits_per_image=45.0, prior_seconds=6.0
    )


@pytest.mark.parametrize("exists", [False, True])
def test_missing_figures_are_refused(exists, run):
    if exists:
        write_test_figures(run, "vqvae", 4.0, **VQVAE_FIGURES)
    with pytest.raises(
        ValueError, match=r"metrics\.jsonl must hold the prior's figures on the test split, but"
    ):
        with_prior_figures(SweepRow(kind="residual", codebook_size=128), run)


@pytest.mark.parametrize("name", ["psnr", "entropy"])
def test_row_of_the_metrics_without_a_figure_is_refused(name, run):
    write_test_figures(run, "vqvae", 4.0, **{k: v for k, v in VQVAE_FIGURES.items() if k != name})
    images = ImageSet(smooth_images(5, 1, 8, 12))
    with pytest.raises(ValueError, match=r"metrics\.jsonl must hold the vqvae's figures"):
        vqvae_row(run, StandIn((1, 8, 12)), images, torch.device("cpu"))


def test_training_that_took_no_time_has_no_speed(run):
    write_test_figures(run, "vqvae", 0.0, **VQVAE_FIGURES)
    images = ImageSet(smooth_images(5, 1, 8, 12))
    row = vqvae_row(run, StandIn((1, 8, 12)), images, torch.device("cpu"))
    assert row.images_per_second is None
