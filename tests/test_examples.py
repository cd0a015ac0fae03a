"""The examples do what they say, run as a user runs them, on tiny data."""

import math
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.data.config import DataConfig
from pipelines.data.load import load_splits
from pipelines.training.metrics_log import MetricsLog

EXAMPLES = Path(__file__).parents[1] / "examples"


def run_example(monkeypatch, name, *arguments):
    """Runs `python examples/NAME ARGUMENTS` in this process."""
    path = EXAMPLES / name
    monkeypatch.setattr(sys, "argv", [str(path), *map(str, arguments)])
    runpy.run_path(str(path), run_name="__main__")


@pytest.mark.slow
def test_own_images_leaves_a_run_and_a_grid(tmp_path, monkeypatch):
    generator = np.random.default_rng(0)
    for i in range(20):
        pixels = generator.integers(0, 256, (20, 24, 3), dtype=np.uint8)
        path = tmp_path / "photos" / ("cat", "dog")[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    # TensorBoard takes seconds to import, and has tests of its own.
    monkeypatch.setattr(MetricsLog, "_writer", lambda *_: None)
    out = tmp_path / "runs" / "mine"
    run_example(
        monkeypatch,
        "own_images.py",
        *("--source", f"folder:{tmp_path / 'photos'}", "--out", out),
        *("--image-size", 16, "--codebook-size", 8, "--width", 8, "--prior-width", 8),
        *("--epochs", 1, "--batch-size", 8, "--num-samples", 4),
    )
    assert (out / "vqvae" / "model.safetensors").exists()
    with Image.open(out / "grid.png") as grid:
        assert grid.mode == "RGB"
        assert grid.width == grid.height  # 4 square images, 2 by 2


@pytest.mark.slow
def test_own_quantizer_learns(monkeypatch, capsys):
    run_example(monkeypatch, "own_quantizer.py", "--steps", 40, "--batch-size", 8)
    psnr = float(re.search(r"test PSNR ([\d.]+) dB", capsys.readouterr().out)[1])
    # An autoencoder that ignored its codes could at best give one and the same image.
    test = load_splits(DataConfig()).test.images.astype(np.float64)
    assert psnr > 10 * math.log10(255**2 / test.var(axis=0).mean()) + 1


def test_own_quantizer_takes_the_nearest_codes_and_the_gradient_of_softmax():
    make = runpy.run_path(str(EXAMPLES / "own_quantizer.py"))["SoftGradientQuantizer"]
    torch.manual_seed(0)
    quantizer = make(codebook_size=5, codebook_dim=3).double()
    z = torch.randn(2, 3, 4, 2, dtype=torch.float64, requires_grad=True)
    output = quantizer.quantize(z)

    points = z.movedim(1, -1).reshape(-1, 3)
    distances = torch.cdist(points, quantizer.codebook, compute_mode="donot_use_mm_for_euclid_dist")
    (codes,) = output.codes
    assert codes.equal(distances.argmin(dim=1).view(2, 4, 2))
    assert quantizer.assign(z)[0].equal(codes)
    # z_q is written as soft + (hard - soft): equal up to one rounding.
    torch.testing.assert_close(output.z_q, quantizer.decode(output.codes), rtol=0, atol=1e-15)

    weights = torch.randn(output.z_q.shape, dtype=torch.float64)
    found = torch.autograd.grad((output.z_q * weights).sum(), (z, quantizer.codebook))
    soft = (-distances.square()).softmax(dim=1) @ quantizer.codebook
    soft = soft.view(2, 4, 2, 3).movedim(-1, 1)
    expected = torch.autograd.grad((soft * weights).sum(), (z, quantizer.codebook))
    torch.testing.assert_close(found, expected)
