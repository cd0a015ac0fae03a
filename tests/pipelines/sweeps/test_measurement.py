"""What a sweep measures itself: structural similarity and rates, against slow references."""

import math

import pytest
import torch
from slow_similarity import slow_ssim, smooth_images
from torch import nn

from pipelines.data.image_set import ImageSet
from pipelines.runs.recipes import RECIPES
from pipelines.sweeps.directory import SweepDirectory, SweepRun
from pipelines.sweeps.measurement import measure_prior, measure_ssim, measure_stage_one
from pipelines.sweeps.row import SweepRow
from pipelines.training.metrics_log import MetricsLog, MetricsRow
from stage1_vqvae.model import VQVAE


class StandIn(nn.Module):
    """Two grids at different resolutions; reconstructs with half of the contrast."""

    codebook_sizes = (4, 32)
    grid_shapes = ((2, 3), (4, 6))
    raw_bits_per_image = VQVAE.raw_bits_per_image

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
    return SweepRun(kind="residual", size=128, config=RECIPES["smoke"], directory=directory)


def log(run, phase, seconds, **values):
    row = MetricsRow(
        phase=phase, kind="test", step=10, images_seen=640, seconds=seconds, values=values
    )
    MetricsLog(run.directory.metrics).write(row)


LOGGED = {"psnr": 21.5, "l1": 9.0, "usage": 0.75, "perplexity": 3.5, "entropy": 2.25}


def measured(run):
    """Its row after stage one was measured on 8x12 images, too small for SSIM."""
    images = ImageSet(smooth_images(5, 1, 8, 12))
    measure_stage_one(run, StandIn((1, 8, 12)), images, torch.device("cpu"))
    return run.read_row()


def test_row_counts_the_bits_of_every_grid_and_gets_those_of_the_prior(run):
    log(run, "vqvae", 4.0, **LOGGED)
    # 6 positions of 2 bits and 24 of 5 bits, over the 24 positions of the finest grid.
    bits = 6 * 2 + 24 * 5
    expected = {
        "bits_per_position": bits / 24,
        "bits_per_image": bits,
        "bits_per_pixel": bits / (8 * 12),
        "psnr": 21.5,
        "usage": 0.75,
        "perplexity": 3.5,
        "order_0_entropy": 2.25,
        "vqvae_seconds": 4.0,
        "images_per_second": 160.0,
        "parameters": 15,
    }
    row = measured(run)
    assert row == SweepRow(
        kind="residual", codebook_size=128, codebook_sizes=(4, 32), values=expected
    )
    assert (row.has("vqvae"), row.has("prior")) == (True, False)
    log(run, "prior", 6.0, bits_per_code=1.5, bits_per_image=45.0)
    measure_prior(run)
    added = {"bits_per_code": 1.5, "prior_bits_per_image": 45.0, "prior_seconds": 6.0}
    assert run.read_row().values == expected | added
    assert run.read_row().has("prior")
    assert measured(run).has("prior")  # a measured run is not measured again


def test_exact_reconstruction_has_infinite_psnr_and_no_time_no_speed(run):
    log(run, "vqvae", 0.0, **LOGGED | {"psnr": math.inf})
    row = measured(run)
    assert row.values["psnr"] == math.inf
    assert "images_per_second" not in row.values


@pytest.mark.parametrize("name", ["psnr", "entropy", None])
def test_missing_metrics_are_refused(name, run):
    if name is not None:
        log(run, "vqvae", 4.0, **{k: v for k, v in LOGGED.items() if k != name})
    with pytest.raises(ValueError, match=r"metrics\.jsonl must hold the metrics of vqvae"):
        measured(run)
    assert run.read_row() is None
