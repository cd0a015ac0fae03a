"""What the images of a run choose, from the command line to its config."""

import json
import re
import shutil
import sys

import pytest
import torch
from tiny_runs import KilledError, command, contents, kill_at, train_options

from pipelines.data.config import DataConfig
from pipelines.data.load import load_splits
from pipelines.runs import choosing, probe
from pipelines.runs.choices import Speed
from pipelines.runs.directory import RunDirectory
from pipelines.runs.probe import measure_speed
from pipelines.runs.rules import CHOSEN_OPTIONS
from pipelines.training.trainer import Trainer

SMALL = (
    *("--recipe", "folder-64", "--data.image-size", "8", "8", "--device", "cpu"),
    *("--vqvae.width", "8", "--vqvae.fine-width", "4", "--vqvae.num-layers", "1"),
    *("--prior.width", "8", "--prior.num-layers", "1", "--prior.num-heads", "2"),
    *("--vqvae-training.checkpoint-every", "2", "--prior-training.checkpoint-every", "2"),
    *("--vqvae-training.precision", "fp32", "--prior-training.precision", "fp32"),
    *("--hours", "0.02"),
)


@pytest.fixture
def speed(monkeypatch):
    """A machine's speed that a test may change: one image per second at first."""
    found = [Speed(vqvae=1.0, prior=1.0)]
    monkeypatch.setattr(choosing, "measure_speed", lambda *_: found[-1])
    return found


@pytest.fixture
def train(photos, tmp_path, speed):  # noqa: ARG001 - so that nothing is measured
    """Trains on 40 photos into `tmp_path / "run"`."""
    source, out = ("--data.source", f"folder:{photos}"), ("--out", tmp_path / "run")
    return lambda *options: command("train_all", *SMALL, *source, *out, *options)


def test_run_takes_prints_and_records_what_the_images_choose(train, tmp_path, capsys):
    train()
    said = capsys.readouterr().out
    config = RunDirectory(tmp_path / "run").config()
    # 29 training images of 8x8 pixels; 0.45 of 72 seconds are 32 images.
    assert config.vqvae.downsampling == 2
    assert (config.vqvae.quantizer.codebook_size, config.prior.dropout) == (64, 0.4)
    assert config.vqvae_training.epochs == config.prior_training.epochs == 1.1
    assert re.search(r"^chosen: vqvae\.downsampling +2 +\(8x8 images give 4x4 codes\)$", said, re.M)
    assert "chosen: vqvae.width" not in said
    assert config.vqvae.width == 8
    assert "warning: 40 images" in said


def test_what_the_user_gives_is_not_chosen(train, capsys):
    train("--vqvae_training.epochs=0.5", "--prior-augmentation.no-flip", "--dry-run")
    said = capsys.readouterr().out
    assert "chosen: prior-training.epochs" in said
    assert "chosen: vqvae-training.epochs" not in said
    assert "chosen: prior-augmentation.flip" not in said
    settings = json.loads(said[said.index("{") :])
    assert settings["vqvae_training"]["epochs"] == 0.5
    assert settings["prior_augmentation"]["flip"] is False


def test_resume_keeps_the_choices_whatever_the_speed_is_now(
    train, tmp_path, speed, capsys, monkeypatch
):
    train()
    uninterrupted = contents(tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    with monkeypatch.context() as patched:
        kill_at(patched, Trainer, "_after_step", 3)
        with pytest.raises(KilledError):
            train()
    speed.append(Speed(vqvae=50.0, prior=0.1))
    capsys.readouterr()
    train("--resume")
    assert "chosen:" not in capsys.readouterr().out
    assert contents(tmp_path / "run") == uninterrupted


def test_resume_refuses_another_value_for_what_was_chosen(train):
    train()
    with pytest.raises(ValueError, match=r"--prior\.dropout was 0\.4, is now 0\.1"):
        train("--resume", "--prior.dropout", "0.1")


def test_run_that_starts_from_another_takes_its_model_and_chooses_its_length(
    train, tmp_path, speed
):
    train("--vqvae.quantizer.codebook-size", "32", "--prior-augmentation.shift", "0")
    speed.append(Speed(vqvae=0.5, prior=0.5))
    train("--start-from", tmp_path / "run", "--out", tmp_path / "further")
    first, further = (RunDirectory(tmp_path / name).config() for name in ("run", "further"))
    assert (further.vqvae, further.prior) == (first.vqvae, first.prior)
    assert further.prior_augmentation == first.prior_augmentation
    assert further.vqvae_training.epochs == 0.56  # 16 of 29 images


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--recipe", "smoke", "--hours", "1"),
            "--hours goes with .*folder-64.*got --recipe smoke",
        ),
        (("--recipe", "folder-64", "--hours", "0"), "hours must be positive .*got 0"),
    ],
)
def test_hours_that_mean_nothing_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        command("train_all", *options, "--dry-run")


@pytest.mark.parametrize(("recipe", "left_open"), [("smoke", ()), ("folder-128", CHOSEN_OPTIONS)])
def test_only_recipes_for_folders_leave_options_open(recipe, left_open, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train_all.py", "--recipe", recipe])
    assert train_options().left_open == left_open


@pytest.mark.parametrize("limit", [1e-9, 1e9])
def test_probe_counts_images_of_a_step(rgb_file, monkeypatch, limit):
    # A step takes a second, and a tenth for each image.
    def time_of_step(step, _device):
        step.step(0)
        return 1 + 0.1 * step.config.batch_size

    monkeypatch.setattr(probe, "_time_of_step", time_of_step)
    monkeypatch.setattr(probe, "_TIME_LIMIT", limit)
    splits = load_splits(DataConfig(source=f"npz:{rgb_file}"))
    monkeypatch.setattr(sys, "argv", ["train_all.py", *SMALL])
    config = train_options().run
    found = measure_speed(config, splits, torch.device("cpu"))
    # At batches of 64, measured or expected: 64 images in 7.4 s.
    assert found.vqvae == pytest.approx(64 / 7.4)
    assert found.prior == pytest.approx(64 / 7.4)
