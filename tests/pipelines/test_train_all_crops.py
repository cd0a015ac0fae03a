"""Runs whose stage one trains on random crops and mirrored images."""

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_runs import TINY, KilledError, command, contents, kill_at, status, tree

from pipelines.runs.directory import RunDirectory
from pipelines.runs.tasks import VQVAETask
from stage1_vqvae.code_dump import read_code_dump
from stage1_vqvae.model import VQVAE

CROPS = ("--vqvae-augmentation.crop", "4", "--vqvae-augmentation.flip")


@pytest.fixture(scope="module")
def run(tmp_path_factory, rgb_file):
    """A finished run on images of 8x10."""
    run = tmp_path_factory.mktemp("crops") / "run"
    command("train_all", *TINY, *CROPS, "--data.source", f"npz:{rgb_file}", "--out", run)
    return RunDirectory(run)


def test_codes_are_those_of_whole_images(run, splits):
    assert read_code_dump(run.codes).grid_shapes == ((2, 3),)
    assert VQVAE.from_pretrained(run.vqvae).image_shape == splits["train"].image_shape


def test_plan_and_report_say_what_stage_one_sees(run, rgb_file, tmp_path, capsys):
    said = "random 4x4 crops, half of the images mirrored"
    options = ("--data.source", f"npz:{rgb_file}", "--out", tmp_path / "other")
    command("train_all", *TINY, *CROPS, *options, "--dry-run")
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("vqvae:"))
    assert line.endswith(said)
    assert run.report.read_text().count(said) == 2


@pytest.mark.parametrize("call", [2, 5])
def test_resume_after_a_kill_equals_uninterrupted(tmp_path, monkeypatch, run, rgb_file, call):
    killed = tmp_path / "run"
    options = (*TINY, *CROPS, "--data.source", f"npz:{rgb_file}", "--out", killed)
    with monkeypatch.context() as patch:
        kill_at(patch, VQVAETask, "set_progress", call)
        with pytest.raises(KilledError):
            command("train_all", *options)
    command("train_all", *options, "--resume")
    assert contents(killed) == contents(run.path)


def test_resume_with_other_crops_is_refused(run, rgb_file, capsys):
    options = (*TINY, *CROPS, "--data.source", f"npz:{rgb_file}", "--out", run.path, "--resume")
    assert status("train_all", *options, "--vqvae-augmentation.crop", "8") == 1
    assert "--vqvae-augmentation.crop was 4, is now 8" in capsys.readouterr().err


def test_run_on_whole_images_starts_from_one_on_crops(run, rgb_file, tmp_path):
    options = ("--data.source", f"npz:{rgb_file}", "--out", tmp_path / "run")
    rate = ("--vqvae-training.learning-rate", "1e-30")
    command("train_vqvae", *TINY, *rate, *options, "--vqvae-from", run.path)
    before, after = (VQVAE.from_pretrained(p / "vqvae") for p in (run.path, tmp_path / "run"))
    torch.testing.assert_close(after.encoder.state_dict(), before.encoder.state_dict())


@pytest.mark.parametrize(
    ("crop", "message"), [("12", r"smaller side (8 pixels), got 12"), ("6", "(4), got 6: take 4")]
)
def test_crop_that_does_not_fit_is_refused_before_anything_is_written(
    tmp_path, rgb_file, capsys, crop, message
):
    options = ("--data.source", f"npz:{rgb_file}", "--out", tmp_path / "run")
    assert status("train_all", *TINY, *options, "--vqvae-augmentation.crop", crop) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert tree(tmp_path) == []


@pytest.fixture
def few_images(tmp_path):
    """Makes a folder of so many images of several shapes, some transparent."""

    def make(count):
        (tmp_path / "few").mkdir()
        for i in range(count):
            pixels = np.random.default_rng(i).integers(0, 256, (10 + 3 * i, 12, 4), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "few" / f"{i}.png")
        return tmp_path / "few"

    return make


def test_five_images_train_both_stages(few_images, tmp_path):
    form = ("--data.image-size", "8", "12", "--data.fit", "pad", "--data.background", "black")
    options = ("--data.source", f"folder:{few_images(5)}", "--out", tmp_path / "run")
    command("train_all", *TINY, *CROPS, *form, *options)
    assert (tmp_path / "run" / "report.html").exists()


def test_one_image_is_refused_in_one_sentence(few_images, tmp_path, capsys):
    options = ("--data.source", f"folder:{few_images(1)}", "--out", tmp_path / "run")
    assert status("train_all", *TINY, *CROPS, *options) == 1
    error = capsys.readouterr().err
    assert "at least 3 images are needed to make the splits, got 1" in error
    assert error.count("\n") == 1
