"""Trainings and commands on a CUDA device."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_runs import TINY, KilledError, command, contents, kill_at, python, rows_without_time
from tiny_vqvae import CASES

from pipelines.benchmarks import quantizer
from pipelines.data.image_set import ImageSet
from pipelines.generation.pipeline import GenerationPipeline
from pipelines.runs.tasks import PriorTask, VQVAETask
from pipelines.training.config import TrainingConfig
from pipelines.training.device import choose_device, deterministic_algorithms
from pipelines.training.precision import resolve_precision
from pipelines.training.train_step import TrainStep
from stage1_vqvae.config import VQVAEConfig
from stage1_vqvae.model import VQVAE

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

ON_CUDA = [*TINY, "--device", "cuda"]
PRECISIONS = {
    "fp32": (),
    "bf16": ("--precision", "bf16"),
    "adamw": ("--vqvae-training.optimizer", "adamw", "--prior-training.optimizer", "adamw"),
    "pixelcnn": ("--prior.kind", "pixelcnn"),
}
COMPILED = ("--vqvae-training.compile", "--prior-training.compile")


def trained(folder, *options):
    run = folder / "run"
    command("train_all", *ON_CUDA, *options, "--out", run)
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("cuda"))


def test_run_on_cuda_is_close_to_one_on_the_cpu(run, tmp_path):
    command("train_all", *TINY, "--out", tmp_path / "cpu")
    found, expected = (
        {row.phase: row.values for row in rows_without_time(path) if row.kind == "test"}
        for path in (run, tmp_path / "cpu")
    )
    # Dropout and k-means draw from the device's own stream, so that the two runs differ.
    assert found["vqvae"]["psnr"] == pytest.approx(expected["vqvae"]["psnr"], abs=1.0)
    bits = expected["prior"]["bits_per_code"]
    assert found["prior"]["bits_per_code"] == pytest.approx(bits, abs=0.3)


@pytest.mark.parametrize("options", PRECISIONS.values(), ids=PRECISIONS)
def test_resume_on_cuda_after_kills_equals_uninterrupted(options, tmp_path, monkeypatch):
    expected = trained(tmp_path / "whole", *options)
    arguments = ("train_all", *ON_CUDA, *options, "--out", tmp_path / "killed" / "run")
    for task in (VQVAETask, PriorTask):
        with monkeypatch.context() as patch:
            kill_at(patch, task, "set_progress", 5)
            with pytest.raises(KilledError):
                command(*arguments, "--resume")
    command(*arguments, "--resume")
    assert contents(tmp_path / "killed" / "run") == contents(expected)


def test_compiled_resume_on_cuda_equals_uninterrupted(tmp_path, monkeypatch, run):
    expected = trained(tmp_path / "whole", *COMPILED)
    arguments = ("train_all", *ON_CUDA, *COMPILED, "--out", tmp_path / "killed" / "run")
    with monkeypatch.context() as patch:
        kill_at(patch, PriorTask, "set_progress", 5)
        with pytest.raises(KilledError):
            command(*arguments)
    torch._dynamo.reset()  # as a new process
    command(*arguments, "--resume")
    assert contents(tmp_path / "killed" / "run") == contents(expected)
    # The same training but for rounding, dropout and the numbers that restarts draw.
    psnr, eager = (
        next(row.values["psnr"] for row in rows_without_time(path) if row.kind == "test")
        for path in (expected, run)
    )
    assert psnr == pytest.approx(eager, abs=1.0)


@pytest.mark.parametrize("name", CASES)
def test_no_step_waits_for_the_gpu(name):
    device = choose_device("cuda")
    config = VQVAEConfig(quantizer=CASES[name], downsampling=2, width=6, fine_width=4, num_layers=1)
    pixels = np.random.default_rng(0).integers(0, 256, (16, 3, 8, 8), dtype=np.uint8)
    task = VQVAETask(VQVAE(config, (3, 8, 8)), ImageSet(pixels), ImageSet(pixels), 8)
    task.objective.train().to(device)
    with torch.no_grad():
        task.prepare(device)
    training = TrainingConfig(batch_size=8, optimizer="muon", epochs=10)
    step = TrainStep(task, training, device, resolve_precision("auto", device), seed=0)
    with deterministic_algorithms(device):
        step.step(0)  # copies the images, and libraries load
        torch.cuda.set_sync_debug_mode("error")
        try:
            for number in range(1, 4):
                step.step(number)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    step.check_finite()


def test_samples_do_not_depend_on_the_device(run, tmp_path):
    images = {}
    for device in ("cpu", "cuda"):
        path = tmp_path / f"{device}.npz"
        command("sample", "--run", run, "--n", 64, "--device", device, "--out", path)
        images[device] = np.load(path)["images"].astype(int)
    # The logits' last bits differ, which now and then turns a code.
    difference = np.abs(images["cpu"] - images["cuda"]).reshape(64, -1)
    assert ((difference <= 1).all(axis=1)).sum() >= 60


def test_resume_of_a_finished_run_on_another_device_changes_nothing(run):
    before = rows_without_time(run)
    command("train_all", *TINY, "--out", run, "--resume")
    assert rows_without_time(run) == before


def test_pipeline_samples_on_cuda(run):
    images = GenerationPipeline.from_pretrained(run).to("cuda")(n=4, seed=0)
    assert images.shape == (4, 1, 28, 28)
    assert images.dtype == torch.uint8


def test_run_is_evaluated_on_cuda(run):
    command("evaluate", "--run", run, "--device", "cuda", "--quick")
    assert (run / "evaluation.json").exists()


def test_benchmark_on_cuda_reports_rates_and_the_share_of_the_peak(monkeypatch, capsys):
    monkeypatch.setattr(quantizer, "_SIZES", ((64, 4, 2),))
    command("benchmark", "--recipe", "smoke", "--device", "cuda", "--repetitions", "2")
    printed = capsys.readouterr().out
    assert len(re.findall(r"training: [\d,]+ .* images/s .* TFLOP/s", printed)) == 2
    assert re.search(r"sampling codes of 1024 images: .* [\d,]+ \(.*\) codes/s", printed)


def test_one_process_of_torchrun_trains_on_cuda(tmp_path):
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1")
    ended = python(*launcher, "-m", "pipelines.train_all", *ON_CUDA, "--out", tmp_path / "run")
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "run" / "prior" / "model.safetensors").exists()


def test_collectives_of_nccl_take_our_tensors():
    ended = python(Path(__file__).parent / "training" / "nccl_process.py")
    assert ended.returncode == 0, ended.stderr
