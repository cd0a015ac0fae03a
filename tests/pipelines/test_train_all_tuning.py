"""Sampling settings chosen at the end of `train_all`, and who uses them."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_runs import TINY, KilledError, command, contents, edit_json, kill_at, pixels

from pipelines.files.images import draw_grid
from pipelines.generation.pipeline import GenerationPipeline
from pipelines.tuning import after_training, measurement
from pipelines.tuning.record import SamplingTuning
from stage2_prior import SamplingSettings

pytestmark = pytest.mark.slow

TUNED = SamplingSettings(temperature=0.5, guidance_scale=2.0)


@pytest.fixture(scope="module", autouse=True)
def _few_images_are_enough():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(after_training, "_TRAINED_PER_SAMPLE", 1)
        patch.setattr(after_training, "_MIN_IMAGES", 2)
        patch.setattr(after_training, "_MIN_PER_SET", 2)
        yield


def train(rgb_file, out, *options):
    command("train_all", *TINY, "--data.source", f"npz:{rgb_file}", "--out", out, *options)


@pytest.fixture(scope="module")
def whole(rgb_file, tmp_path_factory):
    """A run that has chosen its settings."""
    run = tmp_path_factory.mktemp("tuned") / "runs" / "rgb"
    train(rgb_file, run, "--tune")
    return run


@pytest.fixture
def tuned(rgb_run, whole, tmp_path):
    """A run for which `TUNED` was chosen."""
    run = tmp_path / "runs" / "rgb"
    shutil.copytree(rgb_run, run)
    record = SamplingTuning.read(whole / "sampling_tuning.json")
    best = replace(record.measured[0], settings=replace(TUNED, compile="on"))
    replace(record, measured=(best,)).write(run / "sampling_tuning.json")
    return run


def test_temperatures_and_guidance_are_tried_on_the_validation_split(whole):
    record = SamplingTuning.read(whole / "sampling_tuning.json")
    tried = {(one.settings.temperature, one.settings.guidance_scale) for one in record.measured}
    assert tried == {(t, g) for t in (0.9, 1.0, 1.1) for g in (1.0, 1.5)}
    assert (record.metric, record.num_images) == ("KD-classifier", 3)
    assert all(len(one.distances) == 4 for one in record.measured)
    # 80 images seen, 6 settings and 4 sets of each.
    assert record.images_per_set == 80 // 6 // 4


def test_samples_of_the_run_have_the_chosen_settings(whole):
    settings = SamplingTuning.read(whole / "sampling_tuning.json").settings
    pipeline = GenerationPipeline.from_pretrained(whole)
    assert pipeline.settings == settings
    expected = np.asarray(draw_grid(pipeline(100, settings=settings).numpy())).transpose(2, 0, 1)
    assert np.array_equal(pixels(whole / "samples.png"), expected)


def test_run_killed_while_it_chooses_ends_like_another(whole, rgb_file, tmp_path, monkeypatch):
    run = tmp_path / "runs" / "rgb"
    with monkeypatch.context() as patch:
        kill_at(patch, measurement, "table_row", 3)
        with pytest.raises(KilledError):
            train(rgb_file, run, "--tune")
    assert not (run / "sampling_tuning.json").exists()
    assert not (run / "samples.png").exists()
    train(rgb_file, run, "--tune", "--resume")
    assert contents(run) == contents(whole)


def test_choice_made_later_renews_the_samples_and_the_report(whole, rgb_run, rgb_file, tmp_path):
    run = tmp_path / "runs" / "rgb"
    shutil.copytree(rgb_run, run)
    for name in ("samples.png", "report.html"):
        (run / name).write_text("of other settings")
    train(rgb_file, run, "--tune", "--resume")
    assert contents(run) == contents(whole)
    assert "of other settings" not in (run / "report.html").read_text()


def test_smoke_recipe_chooses_nothing_unless_told(rgb_run):
    assert not (rgb_run / "sampling_tuning.json").exists()
    assert GenerationPipeline.from_pretrained(rgb_run).settings == SamplingSettings()


@pytest.mark.parametrize("least", ["_MIN_IMAGES", "_MIN_PER_SET"])
def test_too_few_images_are_no_ground_for_a_choice(least, rgb_file, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(after_training, least, 4)
    train(rgb_file, tmp_path / "run", "--tune")
    said = capsys.readouterr().out
    assert "not chosen, since 3 validation images (or a training of 80) are too few" in said
    assert (tmp_path / "run" / "samples.png").exists()


def test_failed_choice_does_not_fail_the_run(rgb_file, tmp_path, monkeypatch, capsys):
    kill_at(monkeypatch, measurement, "table_row", 1, ValueError("no luck"))
    train(rgb_file, tmp_path / "run", "--tune")
    assert "sampling settings: not chosen (no luck)" in capsys.readouterr().out
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((), TUNED),
        (("--temperature", "1"), replace(TUNED, temperature=1.0)),
        (("--top-k", "2"), replace(TUNED, top_k=2)),
        (("--temperature", "1", "--guidance-scale", "1"), SamplingSettings()),
    ],
)
def test_sample_takes_the_chosen_settings_for_options_not_given(
    given, expected, tuned, tmp_path, capsys
):
    command(
        "sample", "--run", tuned, "--n", 4, "--device", "cpu", "--out", tmp_path / "a.npz", *given
    )
    said = capsys.readouterr().out
    assert f"sampling with temperature {expected.temperature:g}, guidance scale" in said
    assert ("chosen on the validation split" in said) == (not given)
    images = np.load(tmp_path / "a.npz")["images"].transpose(0, 3, 1, 2)
    pipeline = GenerationPipeline.from_pretrained(tuned)
    assert np.array_equal(images, pipeline(4, settings=expected).numpy())


def test_pipeline_has_the_chosen_settings_and_keeps_them_when_saved(tuned, tmp_path):
    pipeline = GenerationPipeline.from_pretrained(tuned)
    assert pipeline.settings == TUNED
    expected = pipeline(4, settings=TUNED)
    assert torch.equal(pipeline(4), expected)
    pipeline.save_pretrained(tmp_path / "saved")
    assert torch.equal(GenerationPipeline.from_pretrained(tmp_path / "saved")(4), expected)


def test_settings_chosen_for_other_models_are_not_taken(tuned):
    edit_json(tuned / "sampling_tuning.json", lambda record: record.update(prior="0" * 64))
    assert GenerationPipeline.from_pretrained(tuned).settings == SamplingSettings()


def test_report_says_which_settings_its_samples_have(tuned):
    from pipelines.report.page import write_report

    page = write_report(tuned).read_text()
    assert "not selected (temperature 0.5, guidance scale 2)" in page


def test_evaluation_says_that_sample_takes_other_settings(tuned, capsys):
    command("evaluate", "--run", tuned, "--quick", "--device", "cpu")
    note = "evaluate with --temperature 0.5 --guidance-scale 2.0"
    assert note in capsys.readouterr().out
