"""`python -m pipelines.reconstruct`: metrics and pictures of reconstructions."""

import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_runs import TINY, command, pixels, status, tree

from pipelines.files.images import pair_grid
from stage1_vqvae.model import VQVAE


def reconstruct(run, *options):
    command("reconstruct", "--run", run, "--device", "cpu", *options)


def decoded(run, images):
    model = VQVAE.from_pretrained(run / "vqvae")
    return model.decode(model.encode(torch.from_numpy(images))).numpy()


def psnr(run, images):
    error = decoded(run, images).astype(float) - images
    return 10 * np.log10(255**2 / np.mean(error**2))


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_printed_metrics_are_those_of_the_whole_split(split, rgb_run, splits, tmp_path, capsys):
    reconstruct(rgb_run, "--split", split, "--n", "2", "--out", tmp_path / "a.png")
    images = splits[split].images
    l1 = np.mean(np.abs(decoded(rgb_run, images).astype(float) - images))
    said, wrote = capsys.readouterr().out.splitlines()
    assert said.startswith(f"psnr {psnr(rgb_run, images):.2f} dB, l1 {l1:.2f} of 255, usage ")
    assert said.endswith(f" over {len(images)} images of the {split} split")
    assert wrote == f"wrote 2 pairs to {tmp_path}/a.png"


def test_picture_shows_the_first_images_above_their_reconstructions(rgb_run, splits, tmp_path):
    reconstruct(rgb_run, "--split", "train", "--n", "11", "--out", tmp_path / "a.png")
    originals = splits["train"].images[:11]
    expected = pair_grid(originals, decoded(rgb_run, originals), columns=8)
    np.testing.assert_array_equal(pixels(tmp_path / "a.png"), expected)


def test_split_is_the_test_split_and_all_of_it_where_n_is_larger(rgb_run, tmp_path, capsys):
    reconstruct(rgb_run, "--n", "99", "--out", tmp_path / "a.png")
    said = capsys.readouterr().out
    assert "over 6 images of the test split" in said
    assert "wrote 6 pairs" in said


def test_folder_of_images_is_reconstructed(rgb_run, photos, tmp_path, capsys):
    reconstruct(rgb_run, "--images", photos, "--out", tmp_path / "a.png")
    images = np.stack([pixels(path) for path in sorted(photos.rglob("*.png"))])
    said = capsys.readouterr().out
    assert said.startswith(f"psnr {psnr(rgb_run, images):.2f} dB")
    assert f"over 40 images of {photos}" in said


def test_single_gray_file_of_another_size_is_brought_to_the_size_of_training(
    rgb_run, tmp_path, capsys
):
    Image.new("L", (40, 32), 90).save(tmp_path / "gray.jpg")
    reconstruct(rgb_run, "--images", tmp_path / "gray.jpg", "--out", tmp_path / "a.png")
    images = np.full((1, 3, 8, 10), 90, np.uint8)
    found = re.match(r"psnr ([\d.]+) dB", capsys.readouterr().out)
    assert found[1] == f"{psnr(rgb_run, images):.2f}"


def test_default_outputs_are_numbered_and_never_overwritten(rgb_run, tmp_path):
    shutil.copytree(rgb_run, tmp_path / "run")
    for n in (1, 2):
        reconstruct(tmp_path / "run", "--n", n)
    assert tree(tmp_path / "run" / "reconstructions") == ["0001.png", "0002.png"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--n", "0"), "n must be at least 1, got 0"),
        (("--images", "gone"), "the image folder gone does not exist: check the path"),
        (("--out", "a.npz"), "an output must end in .png, got a.npz"),
        (("--images", "text.png"), "text.png must be a readable image, but it is not a PNG"),
    ],
)
def test_bad_option_is_one_sentence_and_writes_nothing(
    rgb_run, options, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.png").write_text("not an image")
    before = tree(rgb_run)
    assert status("reconstruct", "--run", rgb_run, "--device", "cpu", *options) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}")
    assert error.count("\n") == 1
    assert (tree(rgb_run), tree(tmp_path)) == (before, ["text.png"])


def test_broken_file_of_a_folder_is_refused_without_options_of_training(
    rgb_run, photos, tmp_path, capsys
):
    shutil.copytree(photos, tmp_path / "photos")
    (tmp_path / "photos" / "cat" / "00.png").write_text("not an image")
    assert status("reconstruct", "--run", rgb_run, "--images", tmp_path / "photos") == 1
    error = capsys.readouterr().err
    assert "cat/00.png must be a readable image" in error
    assert error.endswith(": replace or remove it\n")


def test_files_that_are_left_out_are_said(rgb_run, photos, tmp_path, capsys):
    shutil.copytree(photos, tmp_path / "photos")
    (tmp_path / "photos" / "a.xyz").touch()
    reconstruct(rgb_run, "--images", tmp_path / "photos", "--out", tmp_path / "a.png")
    said = "photos; 1 file of other endings (.xyz 1) is left out"
    assert said in capsys.readouterr().out


def test_image_files_for_a_run_of_four_channels_are_refused(photos, tmp_path, capsys):
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 4), dtype=np.uint8)
    np.savez(tmp_path / "four.npz", images=images)
    source, run = f"npz:{tmp_path / 'four.npz'}", tmp_path / "run"
    command("train_vqvae", *TINY, "--data.source", source, "--out", run)
    assert status("reconstruct", "--run", run, "--images", photos) == 1
    message = "image files have 1 or 3 channels, but the run was trained on 4"
    assert message in capsys.readouterr().err
