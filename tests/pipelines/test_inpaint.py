"""`python -m pipelines.inpaint`: originals, masked and inpainted images below each other."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_runs import TINY, command, pixels, status, tree

from pipelines.data.config import DataConfig
from pipelines.data.load import load_splits
from pipelines.files.images import image_grid
from pipelines.generation.pipeline import GenerationPipeline
from stage2_prior.sampling.settings import SamplingSettings


@pytest.fixture(scope="module")
def run(tmp_path_factory, photos):
    """A run of 8x10 images, 2x3 codes and the classes `cat` and `dog`, of any order."""
    run = tmp_path_factory.mktemp("trained") / "runs" / "photos"
    source = f"folder:{photos}"
    command("train_all", *TINY, "--prior.any-order", "--data.source", source, "--out", run)
    return run


@pytest.fixture(scope="module")
def pipeline(run):
    return GenerationPipeline.from_pretrained(run)


@pytest.fixture(scope="module")
def images(photos):
    """The first images of the test split."""
    return load_splits(DataConfig(source=f"folder:{photos}")).test.images[:8]


def inpaint(run, *options):
    command("inpaint", "--run", run, "--device", "cpu", *options)


def picture(pipeline, images, mask, seeds, label=None, **options):
    """The rows that a picture of inpainted images has."""
    given = torch.from_numpy(images)
    masked = np.where(mask, images, 128).astype(np.uint8)
    inpainted = [
        pipeline.inpaint(given, torch.from_numpy(mask), label, seed=seed, **options).numpy()
        for seed in seeds
    ]
    return image_grid(np.concatenate([images, masked, *inpainted]), columns=len(images))


def hiding(rows, columns):
    mask = np.ones((8, 10), dtype=bool)
    mask[rows, columns] = False
    return mask


ALL = slice(None)


@pytest.mark.parametrize(
    ("options", "mask"),
    [
        ((), hiding(ALL, slice(5, 10))),
        (("--hide", "right"), hiding(ALL, slice(5, 10))),
        (("--hide", "left"), hiding(ALL, slice(5))),
        (("--hide", "top"), hiding(slice(4), ALL)),
        (("--hide", "bottom"), hiding(slice(4, 8), ALL)),
        (("--hide", "center"), hiding(slice(2, 6), slice(2, 7))),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_picture_has_originals_masked_and_inpainted_images(
    options, mask, run, pipeline, images, tmp_path
):
    inpaint(run, *options, "--n", "2", "--seed", "5", "--out", tmp_path / "a.png")
    expected = picture(pipeline, images, mask, seeds=(5, 6))
    np.testing.assert_array_equal(pixels(tmp_path / "a.png"), expected)


def test_mask_from_a_file_is_known_where_it_is_not_black(run, pipeline, images, tmp_path):
    mask = hiding(slice(1, 3), slice(6, 9))
    drawn = np.where(mask[..., None], np.uint8([0, 0, 1]), np.uint8(0))
    Image.fromarray(drawn).save(tmp_path / "mask.png")
    inpaint(run, "--mask", tmp_path / "mask.png", "--n", "1", "--out", tmp_path / "a.png")
    expected = picture(pipeline, images, mask, seeds=(0,))
    np.testing.assert_array_equal(pixels(tmp_path / "a.png"), expected)


def test_mask_of_the_size_of_own_images_is_cropped_like_them(run, pipeline, tmp_path):
    # 16x30 to 16x20, then to 8x10: columns 5 to 24 remain, two by two.
    Image.new("L", (30, 16), 90).save(tmp_path / "mine.png")
    drawn = np.full((16, 30), 255, np.uint8)
    drawn[6, 14] = 0
    Image.fromarray(drawn).save(tmp_path / "mask.png")
    options = ("--images", tmp_path / "mine.png", "--mask", tmp_path / "mask.png", "--n", "1")
    inpaint(run, *options, "--out", tmp_path / "a.png")
    images = np.full((1, 3, 8, 10), 90, np.uint8)
    expected = picture(pipeline, images, hiding(3, 4), seeds=(0,))
    np.testing.assert_array_equal(pixels(tmp_path / "a.png"), expected)


def test_label_and_settings_reach_the_prior(run, pipeline, images, tmp_path):
    options = (
        "--label",
        "dog",
        "--temperature",
        "0.7",
        "--guidance-scale",
        "2",
        "--num-steps",
        "2",
    )
    inpaint(run, *options, "--n", "1", "--batch-size", "3", "--out", tmp_path / "a.png")
    settings = SamplingSettings(temperature=0.7, guidance_scale=2, num_steps=2)
    mask = hiding(ALL, slice(5, 10))
    expected = picture(pipeline, images, mask, (0,), 1, settings=settings, batch_size=3)
    np.testing.assert_array_equal(pixels(tmp_path / "a.png"), expected)


def test_own_images_are_brought_to_the_size_of_training(run, pipeline, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    for i in range(3):
        Image.new("L", (20, 16), 40 * i).save(tmp_path / "mine" / f"{i}.png")
    options = ("--images", tmp_path / "mine", "--num-images", "2", "--n", "1")
    inpaint(run, *options, "--out", tmp_path / "a.png")
    tones = np.uint8([0, 40]).reshape(2, 1, 1, 1)
    images = np.broadcast_to(tones, (2, 3, 8, 10)).copy()
    expected = picture(pipeline, images, hiding(ALL, slice(5, 10)), seeds=(0,))
    np.testing.assert_array_equal(pixels(tmp_path / "a.png"), expected)
    # Two of three codes per row see pixels 5 to 9 of 10.
    assert capsys.readouterr().out.splitlines() == [
        f"2 images of {tmp_path}/mine, 1 completions of each; sampled codes: 4 of 6, given the "
        "others",
        f"wrote originals, masked images and completions below each other to {tmp_path}/a.png",
    ]


def test_saved_pipeline_inpaints_own_images(run, photos, pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path / "saved")
    for path in (run, tmp_path / "saved"):
        options = ("--images", photos / "cat", "--num-images", "2")
        inpaint(path, *options, "--out", tmp_path / f"{path.name}.png")
    assert (tmp_path / "saved.png").read_bytes() == (tmp_path / "photos.png").read_bytes()


def test_default_outputs_are_numbered(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    for _ in range(2):
        inpaint(tmp_path / "run", "--num-images", "1", "--n", "1")
    assert tree(tmp_path / "run" / "inpainted") == ["0001.png", "0002.png"]


def test_prior_of_one_order_is_refused_in_one_sentence(rgb_run, capsys):
    before = tree(rgb_run)
    assert status("inpaint", "--run", rgb_run, "--device", "cpu") == 1
    error = capsys.readouterr().err
    assert "needs a prior that was trained in any order" in error
    assert error.endswith("train a transformer with any_order (--prior.any-order)\n")
    assert tree(rgb_run) == before


@pytest.fixture
def mask_files(tmp_path):
    Image.new("L", (8, 10), 0).save(tmp_path / "turned.png")
    Image.new("L", (10, 8), 1).save(tmp_path / "whole.png")
    (tmp_path / "text.png").write_text("not an image")


@pytest.mark.usefixtures("mask_files")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--n", "0"), "n must be at least 1, got 0"),
        (("--num-images", "0"), "num_images must be at least 1, got 0"),
        (("--batch-size", "0"), "batch_size must be at least 1, got 0"),
        (("--seed", "-1"), "seed must be in [0, 2^63), got -1"),
        (("--label", "cow"), "label must be a class name or number (cat, dog), got cow"),
        (("--guidance-scale", "2"), "guidance_scale 2.0 needs labels to guide towards"),
        (("--images", "gone"), "the image folder gone does not exist: check the path"),
        (("--out", "a.npz"), "an output must end in .png, got a.npz"),
        (("--mask", "gone.png"), "a mask is required in gone.png, but there is no such file"),
        (("--mask", "text.png"), "text.png must be a readable image, but it is not a PNG"),
        (
            ("--mask", "turned.png"),
            "the mask must be as large as the run's images, 8 high and 10 wide, got 10 and 8",
        ),
        (
            ("--mask", "turned.png", "--images", "whole.png"),
            "the mask must be as large as the run's images, 8 high and 10 wide, or all files of "
            "--images, got 10 and 8",
        ),
        (
            ("--mask", "whole.png"),
            "the mask must be black where pixels are unknown, but whole.png",
        ),
        (
            ("--mask", "whole.png", "--hide", "top"),
            "only one of --hide and --mask is possible, got both",
        ),
    ],
)
def test_bad_option_is_one_sentence_and_writes_nothing(
    run, options, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    before = tree(run), tree(tmp_path)
    assert status("inpaint", "--run", run, "--device", "cpu", *options) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}")
    assert error.count("\n") == 1
    assert (tree(run), tree(tmp_path)) == before


def test_saved_pipeline_without_own_images_is_refused(pipeline, tmp_path, capsys):
    pipeline.save_pretrained(tmp_path / "saved")
    assert status("inpaint", "--run", tmp_path / "saved") == 1
    assert "a run directory is required, but" in capsys.readouterr().err
