"""`python -m pipelines.tune_sampling`: what it measures, what it chooses, what it refuses."""

import json
import shutil

import numpy as np
import pytest
import torch
from tiny_runs import TINY, command, status

from pipelines.data.config import DataConfig
from pipelines.data.load import load_splits
from pipelines.evaluation.metrics import feature_networks
from pipelines.evaluation.metrics.encoder_cache import EncoderRecord
from pipelines.evaluation.metrics.feature_classifier import FeatureClassifier
from pipelines.evaluation.metrics.feature_networks import FeatureNetwork
from pipelines.evaluation.metrics.frechet import whole_kernel_distance
from pipelines.generation.pipeline import GenerationPipeline
from pipelines.report.formatting import format_with_std, typeset
from pipelines.tuning import measurement
from pipelines.tuning.record import (
    MeasuredSettings,
    SamplingTuning,
    arguments,
    describe_choice,
    table_row,
)
from stage1_vqvae.artifact import load_artifact
from stage2_prior import SamplingSettings

pytestmark = pytest.mark.slow


@pytest.fixture
def run(rgb_run, tmp_path):
    target = tmp_path / "runs" / "rgb"
    shutil.copytree(rgb_run, target, ignore=shutil.ignore_patterns("checkpoints"))
    return target


def tune(run, *options):
    command("tune_sampling", "--run", run, "--device", "cpu", *options)
    return json.loads((run / "sampling_tuning.json").read_text())


def kept_classifier(run):
    """The feature classifier that the command left beside the run."""
    (folder,) = (run.parent / ".feature-networks").iterdir()
    return load_artifact(
        folder, "feature_encoder", EncoderRecord, lambda _: FeatureClassifier(3, 2)
    ).eval()


def test_distances_are_those_of_such_samples_from_the_validation_split(run, rgb_file):
    record = tune(run, "--temperatures", 0.5, 2, "--guidance-scales", 1, 3, "--seed", 5)
    tried = [row["settings"] for row in record["measured"]]
    assert [(t["temperature"], t["guidance_scale"]) for t in tried] == [
        (0.5, 1), (0.5, 3), (2, 1), (2, 3)
    ]  # fmt: skip
    splits = load_splits(DataConfig(source=f"npz:{rgb_file}", validation_fraction=0.05))
    validation = splits.validation
    network = kept_classifier(run)
    real = network.features(validation.images)
    count = len(validation)
    labels = np.tile(validation.labels[np.random.default_rng(0).permutation(count)], 2)
    for row in record["measured"]:
        images = GenerationPipeline.from_pretrained(run)(
            2 * count,
            torch.from_numpy(labels),
            settings=SamplingSettings(**row["settings"]),
            seed=5,
        ).numpy()
        expected = [
            whole_kernel_distance(real, network.features(part))
            for part in np.array_split(images, 2)
        ]
        assert row["distances"] == pytest.approx(expected, rel=1e-6)
        found = network(network.prepare(torch.from_numpy(images))).argmax(dim=1).numpy()
        assert row["agreement"] == (found == labels).mean()
    assert (record["metric"], record["num_images"]) == ("KD-classifier", count)


def test_next_command_names_the_chosen(run, capsys):
    tune(run, "--temperatures", 0.3, 1.5, "--guidance-scales", 1)
    best = SamplingTuning.read(run / "sampling_tuning.json").chosen
    last = capsys.readouterr().out.splitlines()[-1]
    temperature = best.settings.temperature
    assert last == f"next: python -m pipelines.evaluate --run {run} --temperature {temperature}"


def test_a_second_try_replaces_the_first(run):
    first = tune(run, "--temperatures", 1, "--guidance-scales", 1)
    second = tune(run, "--temperatures", 1.3, "--guidance-scales", 1)
    assert [row["settings"]["temperature"] for row in first["measured"]] == [1]
    assert [row["settings"]["temperature"] for row in second["measured"]] == [1.3]
    assert first["feature_network"] == second["feature_network"]


def test_a_damaged_record_is_replaced(run):
    (run / "sampling_tuning.json").write_text("{")
    tune(run)
    assert SamplingTuning.read(run / "sampling_tuning.json").measured


def test_default_scales_are_those_the_prior_can_be_guided_by(run, rgb_file, tmp_path):
    record = tune(run, "--temperatures", 1)
    assert [row["settings"]["guidance_scale"] for row in record["measured"]] == [1, 1.25, 1.5]
    unguided = tmp_path / "runs" / "unguided"
    options = ("--data.source", f"npz:{rgb_file}", "--prior.label-dropout", 0)
    command("train_all", *TINY, *options, "--out", unguided)
    record = tune(unguided, "--temperatures", 1)
    assert [row["settings"]["guidance_scale"] for row in record["measured"]] == [1]


def tuning(*measured):
    return SamplingTuning(
        vqvae="a", prior="b", metric="KD-classifier", feature_network="c", num_images=7,
        images_per_set=5, seed=0, floor=0.1, measured=measured,
    )  # fmt: skip


def measured(temperature, *distances):
    return MeasuredSettings(SamplingSettings(temperature=temperature), distances, 0.5)


def test_what_chance_may_have_put_behind_is_named():
    # Differences set by set, from the nearest (temperature 2): 0.3 and 0.5; 0.1 and -0.1; their
    # pooled standard error is 0.1.
    tried = tuning(measured(1, 2.2, 2.6), measured(2, 1.9, 2.1), measured(3, 2.0, 2.0))
    nearest, others, chosen = describe_choice(tried).split(";")
    assert "temperature 2," in nearest
    assert "temperature 3," in others
    assert "temperature 1," not in others
    assert "temperature 2," in chosen


def test_the_same_difference_in_every_set_is_no_chance():
    tried = tuning(measured(1, 1.0, 2.0, 3.0), measured(2, 1.1, 2.1, 3.1))
    assert tried.within_noise == []


def test_equals_are_within_noise():
    tried = tuning(measured(1, 1.0, 2.0), measured(2, 1.0, 2.0), measured(3, 9.0, 9.0))
    assert [one.settings.temperature for one in tried.within_noise] == [2]


def test_plain_settings_are_chosen_unless_others_are_significantly_nearer():
    near = tuning(measured(1, 2.1, 2.0), measured(2, 1.9, 2.1), measured(3, 2.0, 2.2))
    far = tuning(measured(1, 3.0, 3.4), measured(2, 1.9, 2.1), measured(3, 2.0, 2.2))
    assert [one.chosen.settings.temperature for one in (near, far)] == [1, 2]
    assert near.settings == SamplingSettings()


def test_what_all_settings_have_in_common_is_no_reason_to_leave_the_plain_ones():
    one, two = (
        MeasuredSettings(SamplingSettings(temperature=t, top_p=0.9), distances, None)
        for t, distances in ((1, (2.1, 2.0)), (2, (1.9, 2.1)))
    )
    assert tuning(one, two).settings == SamplingSettings(top_p=0.9)


def test_settings_hold_for_any_number_of_samples():
    compiled = SamplingSettings(temperature=2, compile="on")
    tried = tuning(MeasuredSettings(compiled, (1.0,), None))
    assert tried.settings == SamplingSettings(temperature=2)


def test_nothing_is_said_of_chance_after_one_set():
    said = describe_choice(tuning(measured(1, 2.0), measured(2, 2.0)))
    assert "temperature 1," in said
    assert "temperature 2," not in said
    assert "--sets 2" in said


def test_record_is_read_as_it_was_written(tmp_path):
    tried = tuning(measured(1, 2.0, 2.5), measured(0.5, 3.0, 3.5))
    tried.write(tmp_path / "tuning.json")
    assert SamplingTuning.read(tmp_path / "tuning.json") == tried


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.update(format_version=99),
        lambda record: record.update(measured=[]),
        lambda record: record["measured"][0].update(distances=[]),
        lambda record: record["measured"][0]["settings"].update(temperature=-1),
        lambda record: record.pop("floor"),
        lambda record: record.update(floor=None),
        lambda record: record.update(images_per_set="5"),
        lambda record: record.update(prior=None),
        lambda record: record["measured"][0].update(agreement="x"),
        lambda record: record.update(metric=None),
        lambda record: record["measured"][0].update(distances="12"),
        lambda record: record["measured"][0].update(distances=[float("nan")]),
        lambda record: record["measured"][0].update(distances=[1e308]),
    ],
)
def test_damaged_record_is_refused(change, tmp_path):
    path = tmp_path / "tuning.json"
    tuning(measured(1, 2.0)).write(path)
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"cannot be read .*: try again with `python -m pip"):
        SamplingTuning.read(path)


def test_report_shows_what_was_tried(run):
    tune(run, "--temperatures", 0.3, 1.5, "--guidance-scales", 1)
    page = (run / "report.html").read_text()
    best = SamplingTuning.read(run / "sampling_tuning.json").nearest
    assert "<h3>Sampling settings</h3>" in page
    row = page[page.index(f'<th scope="row">{best.settings.temperature}</th>') :]
    distance = typeset(format_with_std(best.distance, best.spread))
    assert f"<strong>{distance}</strong>" in row[: row.index("</tr>")]
    assert page.count("<strong>" + distance) == 1


def test_report_leaves_out_what_was_tried_with_other_models(run):
    from pipelines.report.page import write_report

    tune(run, "--temperatures", 1, "--guidance-scales", 1)
    path = run / "sampling_tuning.json"
    path.write_text(path.read_text().replace('"prior": "', '"prior": "0'))
    page = write_report(run).read_text()
    assert "sampling_tuning.json is of another prior than the run has now" in page
    assert "Right class" not in page


def test_arguments_are_the_options_that_differ_from_the_defaults():
    settings = SamplingSettings(
        temperature=1.1,
        first_temperature=0.9,
        guidance_scale=1.5,
        guidance_schedule="linear",
        first_guidance_scale=0.9,
        guidance_power=2.0,
        top_p=0.9,
        compile="on",
    )
    assert arguments(settings) == (
        " --temperature 1.1 --first-temperature 0.9 --top-p 0.9 --guidance-scale 1.5"
        " --guidance-schedule linear --first-guidance-scale 0.9 --guidance-power 2.0"
    )
    assert arguments(SamplingSettings(compile="on")) == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--temperatures", 1, 1), "temperatures must name at least one value, each once, got 1.0"),
        (("--temperatures", -1), "temperature must be at least 0, got -1.0"),
        (("--sets", 0), "sets must be at least 1, got 0"),
        (("--batch-size", 0), "batch_size must be at least 1, got 0"),
        (("--top-p", 2), "top_p must be in (0, 1], got 2.0"),
        (("--first-temperature", 0), "first_temperature must be above 0 and finite, or None"),
        (("--temperatures", 0), "temperature 0 samples one image per class"),
        (
            ("--guidance-schedule", "linear", "--guidance-scales", 1),
            "guidance_schedule linear needs a guidance scale other than 1",
        ),
        (("--first-guidance-scale", 0), "first_guidance_scale 0.0 needs a guidance_schedule"),
        (
            ("--guidance-scales", 1, "--first-guidance-scale", 0.5),
            "first_guidance_scale 0.5 needs a guidance_schedule",
        ),
        (
            ("--guidance-scales", 1, "--guidance-power", 2),
            "guidance_power 2.0 needs a guidance_schedule",
        ),
        (("--guidance-power", 2), "guidance_power 2.0 needs a guidance_schedule to shape"),
        (("--seed", -1), "seed must be in [0, 2^63), got -1"),
    ],
)
def test_what_cannot_be_tried_is_refused_before_any_work(run, options, message, capsys):
    assert status("tune_sampling", "--run", run, *options) == 1
    assert message in capsys.readouterr().err
    assert not (run / "sampling_tuning.json").exists()
    assert not (run.parent / ".feature-networks").exists()


def test_settings_are_those_asked_for_and_the_report_names_them(run, capsys):
    options = ("--temperatures", 1.5, "--guidance-scales", 2, "--guidance-schedule", "linear")
    options += ("--guidance-power", 0.5, "--first-temperature", 0.75, "--first-guidance-scale", 0.5)
    record = tune(run, *options, "--precision", "bfloat16", "--top-p", 0.9, "--sets", 3)
    (row,) = record["measured"]
    settings = SamplingSettings(**row["settings"])
    assert settings == SamplingSettings(
        temperature=1.5,
        first_temperature=0.75,
        guidance_scale=2.0,
        guidance_schedule="linear",
        first_guidance_scale=0.5,
        guidance_power=0.5,
        precision="bfloat16",
        top_p=0.9,
    )
    assert len(row["distances"]) == 3
    page = (run / "report.html").read_text()
    shared = page.partition("All with ")[2].partition("</p>")[0]
    for setting in ("first temperature 0.75", "guidance schedule linear", "guidance power 0.5"):
        assert setting in shared
    for setting in ("first guidance scale 0.5", "top p 0.9", "precision bfloat16"):
        assert setting in shared
    one = MeasuredSettings(settings, tuple(row["distances"]), row["agreement"])
    assert [f"{one.distance:.3g}", f"{one.spread:.3g}", f"{one.agreement:.1%}"] == (
        table_row(one).split()[2:]
    )
    assert table_row(one).split()[:2] == ["1.5", "2"]
    assert table_row(one) in capsys.readouterr().out


def test_a_scale_of_one_has_no_schedule_and_the_report_names_that_of_the_others(run):
    record = tune(
        run, "--temperatures", 1, "--guidance-scales", 1, 2, "--guidance-schedule", "cosine"
    )
    schedules = [row["settings"]["guidance_schedule"] for row in record["measured"]]
    assert schedules == ["constant", "cosine"]
    assert "All with guidance schedule cosine." in (run / "report.html").read_text()


def test_a_schedule_may_end_without_guidance(run):
    options = ("--guidance-schedule", "linear", "--first-guidance-scale", 0.5)
    (row,) = tune(run, "--temperatures", 1, "--guidance-scales", 1, *options)["measured"]
    assert row["settings"]["guidance_schedule"] == "linear"
    assert row["settings"]["first_guidance_scale"] == 0.5


def test_floor_is_that_of_as_many_training_images(run, rgb_file):
    record = tune(run, "--temperatures", 1, "--guidance-scales", 1)
    splits = load_splits(DataConfig(source=f"npz:{rgb_file}", validation_fraction=0.05))
    network = kept_classifier(run)
    count, total = len(splits.validation), len(splits.train)
    first = splits.validation.images
    second = splits.train.images[np.random.default_rng(0).permutation(total)[:count]]
    expected = whole_kernel_distance(network.features(first), network.features(second))
    assert record["floor"] == pytest.approx(expected, rel=1e-6)
    assert record["images_per_set"] == count


def test_guidance_of_a_prior_without_label_dropout_is_refused(rgb_file, tmp_path, capsys):
    run = tmp_path / "unguided"
    options = ("--data.source", f"npz:{rgb_file}", "--prior.label-dropout", 0)
    command("train_all", *TINY, *options, "--out", run)
    assert status("tune_sampling", "--run", run, "--guidance-scales", 2) == 1
    assert "label" in capsys.readouterr().err
    assert status("tune_sampling", "--run", run, "--guidance-schedule", "linear") == 1
    assert "linear needs a prior that can be guided" in capsys.readouterr().err
    assert not (tmp_path / ".feature-networks").exists()  # before any work


def test_what_lies_in_the_way_is_not_written_over(run, capsys):
    (run / "sampling_tuning.json").mkdir()
    assert status("tune_sampling", "--run", run) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_data_without_labels_are_judged_by_a_network_trained_on_the_images(gray_file, tmp_path):
    run = tmp_path / "runs" / "gray"
    command("train_all", *TINY, "--data.source", f"npz:{gray_file}", "--out", run)
    record = tune(run, "--temperatures", 1, 1.5)
    assert record["metric"] == "KD-images"
    assert [row["settings"]["guidance_scale"] for row in record["measured"]] == [1, 1]
    assert [row["agreement"] for row in record["measured"]] == [None, None]
    page = (run / "report.html").read_text()
    assert "KD-images, the kernel distance" in page


def test_colour_without_labels_is_judged_by_efficientnet(rgb_file, tmp_path, monkeypatch):
    network = FeatureNetwork(
        name="efficientnet", label="E", frechet="FD-E", kernel="KD-E", hash="12", num_features=4,
        features=lambda images: torch.from_numpy(images).flatten(1)[:, :4].float(),
    )  # fmt: skip
    run, unlabelled = tmp_path / "runs" / "rgb", tmp_path / "rgb.npz"
    np.savez(unlabelled, images=np.load(rgb_file)["images"])
    command("train_all", *TINY, "--data.source", f"npz:{unlabelled}", "--out", run)
    monkeypatch.setattr(feature_networks, "efficientnet_weights", lambda: "weights.pth")
    monkeypatch.setattr(measurement, "efficientnet_network", lambda *_: network)
    record = tune(run, "--temperatures", 1)
    assert (record["metric"], record["feature_network"]) == ("KD-E", "12")
    assert not (run.parent / ".feature-networks").exists()


def test_a_run_without_prior_is_refused(run, capsys):
    shutil.rmtree(run / "prior")
    assert status("tune_sampling", "--run", run) == 1
    assert "prior" in capsys.readouterr().err
