"""What a run says about itself."""

import shutil

import pytest
from tiny_runs import TINY, command

from pipelines import summaries
from pipelines.training.precision import Precision
from pipelines.training.result import TrainingResult

RESULT = {
    "step": 1200,
    "images_seen": 9600,
    "best_step": 1000,
    "best_metrics": {"loss": 0.1},
    "seconds": 12.4,
    "precision": Precision(name="bf16", reason="it was asked for"),
}


@pytest.mark.parametrize(("early", "end"), [(False, ""), (True, ", stopped early")])
def test_line_after_a_training_has_figures_rate_and_best_step(early, end, capsys):
    result = TrainingResult(**RESULT, stopped_early=early)
    summaries.say_training("prior", result, {"bits_per_code": 5.79416}, "on the test split")
    assert capsys.readouterr().out == (
        "prior: bits_per_code 5.794 on the test split; 9,600 images in 12 s (bf16), best weights "
        f"of step 1,000 of 1,200{end}\n"
    )


def test_row_of_the_test_split_bears_the_steps_of_the_training():
    result = TrainingResult(**RESULT, stopped_early=False)
    row = summaries.test_row("vqvae", result, {"psnr": 24.5})
    assert (row.phase, row.kind, row.values) == ("vqvae", "test", {"psnr": 24.5})
    assert (row.step, row.images_seen, row.seconds) == (1200, 9600, 12.4)


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
