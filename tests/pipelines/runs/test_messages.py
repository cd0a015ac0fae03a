"""What a run says about itself."""

import re
import shutil

import numpy as np
import pytest
from PIL import Image
from tiny_runs import TINY, command

from pipelines.data.data_record import data_record
from pipelines.data.image_set import DataSplits, ImageSet
from pipelines.runs import messages as summaries
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


@pytest.mark.parametrize(("early", "end"), [(False, ""), (True, ", stopped early")])
def test_line_after_a_training_has_figures_rate_and_best_step(early, end, capsys):
    result = TrainingResult(**RESULT, stopped_early=early)
    summaries.say_training("prior", result, {"bits_per_code": 5.79416})
    assert capsys.readouterr().out == (
        "prior: bits_per_code 5.794 on the test split; 9,600 images in 12 s (bf16), best weights "
        f"of step 1,000 of 1,200{end}\n"
    )


FIT = {
    "best_metrics": {"bits_per_code": 5.21234, "train_bits_per_code": 4.9},
    "last_metrics": {"bits_per_code": 5.9, "train_bits_per_code": 3.1},
}
BEST = (
    "prior: bits_per_code of the best weights 5.212 on the validation split, 4.9 on as many "
    "training images"
)


def test_fit_says_the_bits_of_training_and_validation_side_by_side():
    result = TrainingResult(**RESULT | FIT, stopped_early=False)
    assert summaries.describe_fit("prior", result, "bits_per_code") == BEST


@pytest.mark.parametrize(("step", "turned"), [(1240, False), (1250, True), (9000, True)])
def test_fit_says_when_validation_has_turned_up(step, turned):
    # The best step is 1,000: four fifths of 1,250.
    result = TrainingResult(**RESULT | FIT | {"step": step}, stopped_early=False)
    expected = (
        f"; validation has turned up since step 1,000, to 5.9 at step {step:,} (3.1 on training "
        "images): more training only learns these by heart"
    )
    said = summaries.describe_fit("prior", result, "bits_per_code")
    assert said == BEST + (expected if turned else "")


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
