"""What a run says about itself."""

import re
import shutil

import numpy as np
import pytest
from PIL import Image
from tiny_runs import TINY, command
from torch import nn

from pipelines.data.data_record import data_record
from pipelines.data.image_set import DataSplits, ImageSet
from pipelines.runs import messages
from pipelines.training.config import TrainingConfig
from pipelines.training.precision import Precision
from pipelines.training.result import TrainingResult

RESULT = {
    "step": 1200,
    "images_seen": 9600,
    "best_step": 1000,
    "best_metrics": {"loss": 0.1},
    "last_metrics": {"loss": 0.2},
    "seconds": 12.4,
    "precision": Precision(name="bf16", reason="it was asked for"),
}


@pytest.mark.parametrize("early", [False, True])
def test_line_after_a_training_has_metrics_time_and_best_step(early, capsys):
    result = TrainingResult(**RESULT, stopped_early=early)
    messages.say_training("prior", result, {"bits_per_code": 5.79416})
    (line,) = capsys.readouterr().out.splitlines()
    for part in ("prior: bits_per_code 5.794 ", "9,600 images in 12 s", "step 1,000 of 1,200"):
        assert part in line
    assert ("stopped early" in line) == early


@pytest.mark.parametrize(
    ("epochs", "batch_size", "expected"),
    [(1.0, 8, "1 epoch = 1 step of 8 images"), (1.5, 1, "1.5 epochs = 12 steps of 1 image")],
)
def test_length_of_a_training_has_plurals(epochs, batch_size, expected):
    training = TrainingConfig(epochs=epochs, batch_size=batch_size)
    assert messages._length(training, 8) == expected


@pytest.mark.parametrize(("width", "expected"), [(9, "90 parameters"), (999, "1.00 M parameters")])
def test_small_models_have_no_millions_of_parameters(width, expected):
    # A matrix and its bias.
    assert messages._count(nn.Linear(width, width, device="meta")) == expected


def test_plan_says_how_many_broken_files_were_skipped(photos, tmp_path, capsys):
    shutil.copytree(photos, tmp_path / "photos")
    for name in "abcdefgh":
        (tmp_path / "photos" / "cat" / f"{name}.png").write_text("not an image")
    source = f"folder:{tmp_path / 'photos'}"
    options = ("--data.source", source, "--data.skip-broken", "--dry-run")
    command("train_all", *TINY, *options)
    said = capsys.readouterr().out.splitlines()[0]
    assert said.endswith("; 8 broken files skipped")
    assert "8x10x3, 2 classes" in said


def planned(capsys, source, *options):
    """What `train_all --dry-run` says of the data, line by line."""
    command("train_all", *TINY, "--data.source", source, *options, "--dry-run")
    lines = capsys.readouterr().out.splitlines()
    return lines[: next(i for i, line in enumerate(lines) if line.startswith("vqvae:"))]


def test_plan_says_splits_classes_and_what_is_left_out(tmp_path, capsys):
    for i, name in enumerate(["cat", "dog", "dog"] * 9):
        for split in ("Training", "TEST"):
            path = tmp_path / "x" / split / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8), i).save(path)
            path.with_suffix(".xyz").touch()
    assert planned(capsys, f"folder:{tmp_path}") == [
        f"data:  folder:{tmp_path}, 8x8x1, 2 classes: train 26, validation 1, test 27",
        "       splits: train is x/Training/, test is x/TEST/",
        "       54 files of other endings (.xyz 54) are left out",
        "       training images per class: cat 9, dog 17",
    ]


def test_plan_says_which_classes_have_no_training_image(tmp_path, capsys):
    labels = np.arange(60) % 4 * 250
    np.savez(tmp_path / "gaps.npz", images=np.zeros((60, 8, 8), np.uint8), labels=labels)
    *_, counts, gaps = planned(capsys, f"npz:{tmp_path}/gaps.npz", "--data.limit", "30")
    assert re.fullmatch(r" +training images per class: 0 \d, 250 \d, 500 \d, 750 \d", counts)
    assert "747 of 751 classes have no training image (1, 2, 3, " in gaps
    assert "and 737 more)" in gaps


def test_plan_shortens_long_lists_and_keeps_to_its_lines(tmp_path, capsys):
    for i in range(30):
        path = tmp_path / f"class\n{i:02} {'x' * 100}" / "1.png"
        path.parent.mkdir()
        Image.new("L", (8, 8), i).save(path)
    *_, counts, gaps = planned(capsys, f"folder:{tmp_path}")
    assert r"class\n00 xxx" in counts
    assert counts.endswith("and 16 more")
    assert "4 of 30 classes have no training image" in gaps
    assert max(map(len, (counts, gaps))) < 600


def test_data_record_counts_the_training_images_of_each_class():
    images = ImageSet(np.zeros((3, 1, 2, 2), np.uint8), np.array([2, 0, 2]))
    record = data_record(DataSplits(images, images, images, ("a", "b", "c")))
    assert record.train_images_per_class == (1, 0, 2)
