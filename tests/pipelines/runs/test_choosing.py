"""What the images of a run choose, from the command line to its config."""

import json
import re
import shutil
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from tiny_runs import KilledError, command, contents, kill_at, train_options

from pipelines.data.config import DataConfig
from pipelines.data.load import load_splits
from pipelines.runs import choosing, probe, stage_one
from pipelines.runs.choices import Speed, value_of
from pipelines.runs.choosing import continued
from pipelines.runs.directory import RunDirectory
from pipelines.runs.options import TrainOptions
from pipelines.runs.probe import measure_speed
from pipelines.runs.recipes import RECIPES
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


def test_run_continues_with_what_it_needs_of_an_earlier_one(train, tmp_path):
    train("--vqvae.quantizer.codebook-size", "32", "--prior-augmentation.shift", "0")
    first = RunDirectory(tmp_path / "run")
    left_open = tuple(option for option in CHOSEN_OPTIONS if option not in SMALL)

    def taken(recipe="folder-64", *, resume=False, **start):
        run = replace(RECIPES[recipe], **start)
        options = TrainOptions(run=run, out=first.path, resume=resume, left_open=left_open)
        options = continued(options)
        closed = [option for option in left_open if option not in options.left_open]
        for option in closed:
            assert value_of(options.run, option) == value_of(first.config(), option)
        return closed

    grids = ["--vqvae.downsampling", "--vqvae.quantizer.codebook-size"]
    prior = ["--prior.dropout", "--prior-augmentation.flip", "--prior-augmentation.shift"]
    assert taken(vqvae_from=first.path) == grids
    assert taken(prior_from=first.path) == grids + prior
    assert taken(resume=True) == list(left_open)
    assert taken("folder-128", resume=True) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--recipe", "smoke", "--hours", "1"),
            "--hours goes with .*folder-64.*got --recipe smoke",
        ),
        (("--recipe", "folder-64", "--hours", "0"), "hours must be positive .*got 0"),
        (
            (
                *("--recipe", "folder-64", "--hours", "1"),
                *("--vqvae-training.epochs", "1", "--prior_training.epochs=1"),
            ),
            "--hours .*got --vqvae-training.epochs and --prior-training.epochs",
        ),
    ],
)
def test_hours_that_mean_nothing_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        command("train_all", *options, "--dry-run")


@pytest.mark.parametrize("given", [0, 1, 2])
def test_speed_is_measured_only_where_epochs_are_chosen(train, monkeypatch, given):
    calls = []
    measure = choosing.measure_speed
    monkeypatch.setattr(choosing, "measure_speed", lambda *a: calls.append(a) or measure(*a))
    monkeypatch.setattr(stage_one, "measure_speed", lambda *_: measure())
    epochs = ("--vqvae-training.epochs=1", "--prior-training.epochs=1")[:given]
    train("--dry-run", *epochs, *(("--hours", "None") if given == 2 else ()))
    assert len(calls) == (given < 2)


@pytest.mark.parametrize(("recipe", "left_open"), [("smoke", ()), ("folder-128", CHOSEN_OPTIONS)])
def test_only_recipes_for_folders_leave_options_open(recipe, left_open, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train_all.py", "--recipe", recipe])
    assert train_options().left_open == left_open


@pytest.mark.slow
def test_run_whose_settings_are_chosen_is_that_of_the_same_settings(photos, tmp_path, monkeypatch):
    def measured(*arguments):
        measure_speed(*arguments)
        return Speed(vqvae=1.0, prior=1.0)

    def argument(option, value):
        if isinstance(value, bool):
            return [option if value else option.replace(".", ".no-")]
        return [option, value]

    monkeypatch.setattr(choosing, "measure_speed", measured)
    source = ("--data.source", f"folder:{photos}")
    command("train_all", *SMALL, *source, "--out", tmp_path / "chosen")
    config = RunDirectory(tmp_path / "chosen").config()
    given = [option for option in CHOSEN_OPTIONS if option not in SMALL]
    values = [part for option in given for part in argument(option, value_of(config, option))]
    without_hours = SMALL[: SMALL.index("--hours")]
    command("train_all", *without_hours, *values, *source, "--out", tmp_path / "given")
    assert contents(tmp_path / "given") == contents(tmp_path / "chosen")


@pytest.fixture
def probed(rgb_file, monkeypatch):
    """Measures the speed of both stages where a step takes the time that a function gives it."""

    def probe_with(time_of_step, *options):
        monkeypatch.setattr(probe, "_time_of_step", time_of_step)
        monkeypatch.setattr(sys, "argv", ["train_all.py", *SMALL, *options])
        splits = load_splits(DataConfig(source=f"npz:{rgb_file}"))
        return measure_speed(train_options().run, splits, torch.device("cpu"))

    return probe_with


def time_of_step(step, _device):
    """A second, and a tenth for each image."""
    step.step(0)
    return 1 + 0.1 * step.config.batch_size


@pytest.mark.parametrize("limit", [1e-9, 1e9])
def test_probe_counts_images_of_a_step(probed, monkeypatch, limit):
    monkeypatch.setattr(probe, "_TIME_LIMIT", limit)
    found = probed(time_of_step)
    # At batches of 64, measured or expected: 64 images in 7.4 s.
    assert found.vqvae == pytest.approx(64 / 7.4)
    assert found.prior == pytest.approx(64 / 7.4)


def test_probe_does_not_count_the_start_of_a_device(probed):
    batches = []

    def slow_at_first(step, device):
        batches.append(step.config.batch_size)
        return time_of_step(step, device) + 100 * (len(batches) == 1)

    assert probed(slow_at_first).vqvae == pytest.approx(64 / 7.4)


def test_probe_measures_a_small_batch_once(probed):
    batches = []

    def counted(step, device):
        batches.append(step.config.batch_size)
        return time_of_step(step, device)

    sizes = ("--vqvae-training.batch-size", "4", "--prior-training.batch-size", "4")
    assert probed(counted, *sizes).prior == pytest.approx(4 / 1.4)
    # Of each stage a step that is not counted, the first of that size, and the measured one.
    assert batches == [1, 1, 4, 4] * 2


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_time_of_a_step_includes_what_a_device_has_queued(monkeypatch, device):
    now = [0.0]
    monkeypatch.setattr(probe.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda: now.append(now.pop() + 3.0))
    step = SimpleNamespace(step=lambda _: None)
    assert probe._time_of_step(step, torch.device(device)) == 3.0
