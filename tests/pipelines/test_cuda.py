"""The commands on a CUDA device."""

import numpy as np
import pytest
import torch
from tiny_runs import TINY, command, rows_without_time

from pipelines.generation.pipeline import GenerationPipeline

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

ON_CUDA = [*TINY, "--device", "cuda"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("cuda") / "run"
    command("train_all", *ON_CUDA, "--out", path)
    return path


def test_run_on_cuda_is_close_to_one_on_the_cpu(run, tmp_path):
    command("train_all", *TINY, "--out", tmp_path / "cpu")
    found, expected = (
        {row["phase"]: row["values"] for row in rows_without_time(path) if row["kind"] == "test"}
        for path in (run, tmp_path / "cpu")
    )
    # Dropout and k-means draw from the device's own stream, so that the two runs differ.
    assert found["vqvae"]["psnr"] == pytest.approx(expected["vqvae"]["psnr"], abs=1.0)
    bits = expected["prior"]["bits_per_code"]
    assert found["prior"]["bits_per_code"] == pytest.approx(bits, abs=0.3)


def test_samples_do_not_depend_on_the_device(run, tmp_path):
    images = {}
    for device in ("cpu", "cuda"):
        path = tmp_path / f"{device}.npz"
        command("sample", "--run", run, "--n", 64, "--device", device, "--out", path)
        images[device] = np.load(path)["images"].astype(int)
    # The logits' last bits differ, which now and then turns a code.
    same = (np.abs(images["cpu"] - images["cuda"]) <= 1).all(axis=(1, 2, 3))
    assert same.sum() >= 60


def test_resume_of_a_finished_run_on_another_device_changes_nothing(run):
    before = rows_without_time(run)
    command("train_all", *TINY, "--out", run, "--resume")
    assert rows_without_time(run) == before


def test_pipeline_samples_on_cuda(run):
    images = GenerationPipeline.from_pretrained(run).to("cuda")(n=4, seed=0)
    assert images.shape == (4, 1, 28, 28)
    assert images.dtype == torch.uint8
