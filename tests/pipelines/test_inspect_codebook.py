"""`python -m pipelines.inspect_codebook`, on a sound run and on runs broken on purpose."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_runs import TINY, command, edit_json, status, tree

from pipelines.codebook import inspect as inspection
from stage1_vqvae.model import VQVAE
from stage1_vqvae.quantizers.base import to_points

FILES = ["codebook.json", "decoded.png", "entropy.png", "map.png", "usage.png"]
K, FAR = 8, 100.0


def inspect(run, *options):
    command("inspect_codebook", "--run", run, "--device", "cpu", *options)


def record(directory):
    return json.loads((directory / "codebook.json").read_text())


def points_of(model, images):
    """float64 z_e of all positions, (N, 4)."""
    with torch.no_grad():
        z_e = model.encode_features(torch.from_numpy(images))
    return to_points(z_e).double().numpy()


def cluster_means(points, count):
    """Lloyd's algorithm from points far apart: the means of `count` clusters, none empty."""
    means = [points[0]]
    for _ in range(count - 1):
        distances = np.min([((points - mean) ** 2).sum(axis=1) for mean in means], axis=0)
        means.append(points[distances.argmax()])
    for _ in range(100):
        nearest = ((points[:, None] - np.array(means)) ** 2).sum(axis=2).argmin(axis=1)
        means = [points[nearest == i].mean(axis=0) for i in range(count)]
    return np.array(means)


def sound(model, points):
    set_codebook(model, cluster_means(points, K))


def collapsed(model, points):
    set_codebook(model, np.vstack([points.mean(axis=0), np.full((K - 1, 4), FAR)]))


def half_dead(model, points):
    set_codebook(model, np.vstack([cluster_means(points, K // 2), np.full((K // 2, 4), FAR)]))


def copied(model, points):
    set_codebook(model, np.tile(cluster_means(points, K // 2), (2, 1)))


def duplicated(model, points):
    means = cluster_means(points, K // 2)
    # So near that the error does not feel it, and across the direction in which z_e vary most.
    offset = 5e-4 * np.linalg.svd(points - points.mean(axis=0))[2][0]
    set_codebook(model, np.vstack([means - offset, means + offset]))


def drifting(model, points):
    """z_e move away, in the direction that they vary least in and no code lies in."""
    direction = np.linalg.svd(points - points.mean(axis=0))[2][-1]
    means = cluster_means(points, K)
    heights = (means - points.mean(axis=0)) @ direction
    set_codebook(model, means - heights[:, None] * direction)
    model.encoder.project.bias += torch.from_numpy(0.3 * direction).float()


@torch.no_grad()
def set_codebook(model, vectors):
    model.quantizer.codebook.copy_(torch.from_numpy(vectors))


@pytest.fixture
def changed_run(rgb_run, splits, tmp_path):
    """Copies the run with its VQ-VAE changed."""

    def make(change):
        run = tmp_path / "run"
        shutil.copytree(rgb_run, run, ignore=shutil.ignore_patterns("checkpoints", "vqvae"))
        model = VQVAE.from_pretrained(rgb_run / "vqvae")
        with torch.no_grad():
            change(model, points_of(model, splits["train"].images))
        model.save_pretrained(run / "vqvae")
        return run

    return make


@pytest.mark.parametrize(
    ("change", "names", "options"),
    [
        (sound, ["healthy"], set()),
        (collapsed, ["collapsed"], {"entropy-weight"}),
        (half_dead, ["partly_dead"], {"codebook-size", "entropy-weight"}),
        (copied, ["partly_dead"], {"codebook-size"}),
        (duplicated, ["duplicated"], {"codebook-size", "entropy-weight"}),
        (drifting, ["drifting"], {"commitment-weight", "cosine"}),
    ],
)
def test_run_broken_on_purpose_is_found_out(change, names, options, changed_run, capsys):
    run = changed_run(change)
    inspect(run)
    said = capsys.readouterr().out
    findings = record(run / "codebook")["findings"]
    assert [finding["name"] for finding in findings] == names
    named = set().union(*(finding["options"] for finding in findings))
    assert {f"--vqvae.quantizer.{option}" for option in options} <= named
    known = {f"--vqvae.quantizer.{name}" for name in quantizer_of(run)}
    assert named <= {name.replace("_", "-") for name in known}
    for finding in findings:
        assert f"\n{finding['name']} ({finding['severity']}). " in said
        for sentence in (finding["evidence"], finding["suggestion"]):
            assert f" {sentence[0].upper()}{sentence[1:]}." in said


def quantizer_of(run):
    return json.loads((run / "config.json").read_text())["run"]["vqvae"]["quantizer"]


def test_dead_copies_are_seen_to_be_copies(changed_run):
    run = changed_run(copied)
    inspect(run)
    (grid,) = record(run / "codebook")["statistics"]["grids"]
    assert grid["duplicates"] == [[code, code - K // 2] for code in range(K // 2, K)]
    assert (grid["used_duplicates"], grid["dead_duplicates"]) == (0, K // 2)


def test_run_trained_without_all_that_keeps_codes_alive_has_collapsed(rgb_file, tmp_path):
    # Only stage one: no dump, no prior.
    run = tmp_path / "run"
    without = ("--vqvae.quantizer.kmeans-batches", "0", "--vqvae.quantizer.restart-threshold", "0")
    command("train_vqvae", *TINY, *without, "--data.source", f"npz:{rgb_file}", "--out", run)
    inspect(run)
    finding = record(run / "codebook")["findings"][0]
    assert finding["name"] == "collapsed"
    assert finding["options"][:2] == [without[2], without[0]]
    assert f"{without[2]} to 0.03 (now 0)" in finding["suggestion"]


@pytest.mark.parametrize("split", ["validation", "test"])
def test_statistics_are_those_of_the_whole_split(split, rgb_run, splits, tmp_path, capsys):
    inspect(rgb_run, "--split", split, "--out", tmp_path / "out")
    model = VQVAE.from_pretrained(rgb_run / "vqvae")
    images = splits[split].images
    codes = model.encode(torch.from_numpy(images))[0].numpy()
    points, vectors = points_of(model, images), model.quantizer.codebook.double().numpy()
    written = record(tmp_path / "out")
    (grid,) = written["statistics"]["grids"]
    p = np.unique(codes, return_counts=True)[1] / codes.size
    assert written["split"] == split
    assert written["statistics"]["num_images"] == len(images)
    assert grid["counts"] == np.bincount(codes.ravel(), minlength=K).tolist()
    assert grid["perplexity"] == pytest.approx(np.prod(p**-p))
    error = ((points - vectors[codes.ravel()]) ** 2).sum(axis=1).mean()
    variance = points.var(axis=0).sum()
    # Convolutions round differently with another number of threads or images.
    assert written["statistics"]["relative_error"] == pytest.approx(error / variance, rel=1e-4)
    first = codes[:, 0, 0]
    q = np.unique(first, return_counts=True)[1] / len(first)
    assert grid["position_entropy"][0][0] == pytest.approx(-(q * np.log2(q)).sum(), abs=1e-9)
    said = capsys.readouterr().out
    assert said.startswith(f"codebook of {rgb_run} over {len(images)} images of the {split} split")
    assert re.search(rf"\n  usage +{len(p) / K:.1%}\n", said)
    assert re.search(rf"\n  perplexity +{grid['perplexity']:.1f}\n", said)


def test_split_is_the_training_split_by_default(rgb_run, splits, tmp_path):
    inspect(rgb_run, "--out", tmp_path / "out")
    written = record(tmp_path / "out")
    assert written["split"] == "train"
    assert written["statistics"]["num_images"] == len(splits["train"])


def test_record_tells_which_model_was_measured(rgb_run, tmp_path):
    inspect(rgb_run, "--out", tmp_path / "out")
    written = record(tmp_path / "out")
    assert (written["format_version"], written["kind"]) == (3, "codebook")
    assert written["vqvae_sha256"] == VQVAE.from_pretrained(rgb_run / "vqvae").weights_hash()
    assert written["quantizer"] == quantizer_of(rgb_run)


def test_several_grids_have_a_column_each_in_the_table(rgb_file, tmp_path, capsys):
    run = tmp_path / "run"
    options = [*TINY, "--data.source", f"npz:{rgb_file}", "--out", run]
    for name in ("codebook-size", "codebook-dim"):
        options[options.index(f"--vqvae.quantizer.{name}")] = f"--vqvae.quantizer.base.{name}"
    command("train_vqvae", "--vqvae.quantizer.kind", "residual", *options)
    capsys.readouterr()
    inspect(run)
    said = capsys.readouterr().out
    assert re.search(r"\n +grid 0 +grid 1\n", said)
    grids = record(run / "codebook")["statistics"]["grids"]
    columns = " +".join(re.escape(f"{grid['perplexity']:.1f}") for grid in grids)
    assert re.search(rf"\n  perplexity +{columns}\n", said)
    assert len(tree(run / "codebook")) == 9


def test_inspection_changes_nothing_but_its_own_directory(changed_run):
    run = changed_run(sound)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    inspect(run)
    assert tree(run / "codebook") == FILES
    assert all(path.read_bytes() == content for path, content in before.items())
    added = {path for path in run.rglob("*") if path.is_file()} - before.keys()
    assert {path.parent for path in added} == {run / "codebook"}


def test_every_plot_is_a_png_file(rgb_run, tmp_path):
    inspect(rgb_run, "--out", tmp_path / "out")
    assert tree(tmp_path / "out") == FILES
    for name in FILES[1:]:
        with Image.open(tmp_path / "out" / name) as image:
            assert image.format == "PNG"
            image.load()


def test_second_inspection_renews_the_whole_directory(changed_run):
    run = changed_run(collapsed)
    inspect(run)
    (run / "codebook" / "usage-1.png").write_bytes(b"of another number of grids")
    edit_json(run / "codebook" / "codebook.json", lambda content: content.update(split="old"))
    inspect(run)
    assert tree(run / "codebook") == FILES
    assert record(run / "codebook")["split"] == "train"
    assert [name for name in tree(run) if "partial" in name] == []


def test_failed_inspection_leaves_the_earlier_one_whole(changed_run, monkeypatch):
    run = changed_run(sound)
    inspect(run)
    before = {path: path.read_bytes() for path in (run / "codebook").iterdir()}

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(inspection, "save_plots", fail)
    with pytest.raises(OSError, match="disk full"):
        inspect(run)
    assert {path: path.read_bytes() for path in (run / "codebook").iterdir()} == before
    assert [name for name in tree(run) if "partial" in name] == []


def refused(capsys, *arguments):
    """The one sentence that the command refuses `arguments` with."""
    assert status("inspect_codebook", "--device", "cpu", *arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error.removeprefix("error: ")


def test_existing_output_is_refused(rgb_run, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    error = refused(capsys, "--run", rgb_run, "--out", tmp_path / "out")
    assert error.startswith(f"a new path is required for the output, but {tmp_path}/out exists")
    assert tree(tmp_path) == ["out", "out/mine.txt"]


def test_default_output_that_is_something_else_is_refused(changed_run, capsys):
    run = changed_run(sound)
    (run / "codebook").mkdir()
    (run / "codebook" / "mine.txt").write_text("mine")
    error = refused(capsys, "--run", run)
    assert error.startswith(f"{run}/codebook is for this command's output, but it holds something")
    assert tree(run / "codebook") == ["mine.txt"]


def test_directory_that_is_no_run_is_refused(tmp_path, capsys):
    error = refused(capsys, "--run", tmp_path / "gone")
    assert error.startswith(f"a run directory is required, but {tmp_path}/gone/config.json does")


def test_run_without_a_trained_vqvae_is_refused(rgb_run, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    shutil.copy(rgb_run / "config.json", tmp_path / "run")
    error = refused(capsys, "--run", tmp_path / "run")
    assert error.startswith(f"a saved vqvae is required in {tmp_path}/run/vqvae, but ")
    assert tree(tmp_path / "run") == ["config.json"]


def test_data_that_changed_since_training_are_refused(changed_run, capsys):
    run = changed_run(sound)
    edit_json(run / "config.json", lambda content: content["data"].update(fingerprint="0" * 16))
    assert f"the data of {run} must be those it was trained on" in refused(capsys, "--run", run)
    assert not (run / "codebook").exists()


def test_unknown_split_is_refused(rgb_run, capsys):
    assert status("inspect_codebook", "--run", rgb_run, "--split", "all") == 2
    assert "train" in capsys.readouterr().err
