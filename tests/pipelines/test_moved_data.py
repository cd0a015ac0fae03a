"""A run's data are known by what they are, wherever they lie and whatever they are called."""

import shutil

import numpy as np
import pytest
from tiny_runs import TINY, command, contents, edit_json, status, tree

from pipelines.data.config import DataConfig
from pipelines.data.location import DataLocation, with_absolute_paths
from pipelines.evaluation.record import Evaluation
from pipelines.runs.directory import RunDirectory

CPU = ("--device", "cpu")
READERS = {
    "reconstruct": (),
    "inspect_codebook": (),
    "dump_codes": (),
    "evaluate": (),
    "tune_sampling": ("--temperatures", "1", "--guidance-scales", "1"),
    "sample": ("--nearest", "--n", "2"),
}


@pytest.fixture
def moved(tmp_path, rgb_file):
    path = tmp_path / "moved.npz"
    shutil.copy(rgb_file, path)
    return path


@pytest.fixture
def run(tmp_path, rgb_run):
    """A run whose data are no longer where they were."""
    shutil.copytree(rgb_run, tmp_path / "runs" / "run")
    config = tmp_path / "runs" / "run" / "config.json"
    gone = {"source": f"npz:{tmp_path}/gone.npz"}
    edit_json(config, lambda record: record["run"]["data"].update(gone))
    return tmp_path / "runs" / "run"


@pytest.mark.parametrize("name", READERS)
def test_command_is_told_where_the_data_are_now(name, run, moved, capsys):
    if name == "dump_codes":
        for part in ("codes", "prior", "checkpoints"):
            shutil.rmtree(run / part)
    options = ("--run", run, *CPU, *READERS[name])
    assert status(name, *options) == 1
    error = capsys.readouterr().err
    assert f"gone.npz does not exist: check the path; if the images of {run} have moved" in error
    assert "--data.source" in error
    command(name, *options, "--data.source", f"npz:{moved}")


def test_other_data_are_refused_with_both_fingerprints(run, moved, capsys):
    with np.load(moved) as arrays:
        np.savez(moved, images=arrays["images"] ^ 1, labels=arrays["labels"])
    before = contents(run)
    assert status("reconstruct", "--run", run, *CPU, "--data.source", f"npz:{moved}") == 1
    fingerprint = RunDirectory(run).data().fingerprint
    error = capsys.readouterr().err
    assert f"trained on (fingerprint {fingerprint}), but npz:{moved} holds others" in error
    assert contents(run) == before


@pytest.mark.slow
def test_evaluation_of_moved_data_renews_the_whole_report(run, moved):
    command("evaluate", "--run", run, *CPU, "--data.source", f"npz:{moved}")
    assert Evaluation.read(run / "evaluation.json").metrics
    page = (run / "report.html").read_text()
    assert "Pictures of the data need its images" not in page
    assert "gone.npz" in RunDirectory(run).config().data.source  # only a training records the place


def test_resumed_training_takes_moved_data_and_records_their_place(run, moved, rgb_run):
    shutil.rmtree(run / "prior")
    shutil.rmtree(run / "checkpoints" / "prior")
    for name in ("samples.png", "report.html"):
        (run / name).unlink()
    command("train_all", *TINY, "--data.source", f"npz:{moved}", "--out", run, "--resume")
    assert RunDirectory(run).config().data.source == f"npz:{moved}"
    files, rows = contents(run)
    expected_files, expected_rows = contents(rgb_run)
    del files["config.json"], expected_files["config.json"]
    assert files == expected_files
    assert [row for row in rows if row.phase == "prior"] == [
        row for row in expected_rows if row.phase == "prior"
    ]


def test_finished_run_is_told_where_its_data_are_for_good(run, moved, rgb_run):
    command("train_all", *TINY, "--data.source", f"npz:{moved}", "--out", run, "--resume")
    command("reconstruct", "--run", run, *CPU)
    files, rows = contents(run)
    expected_files, expected_rows = contents(rgb_run)
    del files["config.json"], files["reconstructions/0001.png"], expected_files["config.json"]
    assert (files, rows) == (expected_files, expected_rows)


def test_dump_of_moved_data_records_their_place(run, moved):
    for part in ("codes", "prior", "checkpoints"):
        shutil.rmtree(run / part)
    command("dump_codes", "--run", run, *CPU, "--data.source", f"npz:{moved}")
    assert RunDirectory(run).config().data.source == f"npz:{moved}"


def test_relative_data_are_found_from_another_working_directory(tmp_path, rgb_file, monkeypatch):
    (tmp_path / "here" / "below").mkdir(parents=True)
    shutil.copy(rgb_file, tmp_path / "here" / "a.npz")
    monkeypatch.chdir(tmp_path / "here" / "below")
    options = (*TINY, "--out", tmp_path / "run")
    command("train_vqvae", *options, "--data.source", "npz:../a.npz")
    assert RunDirectory(tmp_path / "run").config().data.source == f"npz:{tmp_path}/here/a.npz"
    monkeypatch.chdir(tmp_path)
    command("reconstruct", "--run", "run", *CPU)
    # Another spelling of the same place.
    command("train_vqvae", *options, "--data.source", "npz:here/a.npz", "--resume")
    assert "run/reconstructions/0001.png" in tree(tmp_path)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (DataConfig(source="folder:a"), DataConfig(source="folder:{here}/a")),
        (DataConfig(source="npz:../b.npz"), DataConfig(source="npz:{above}/b.npz")),
        (DataConfig(source="folder:/a"), DataConfig(source="folder:/a")),
        # Looked for in the data folder.
        (DataConfig(source="mnist"), DataConfig(source="mnist", root="{here}/data")),
        (DataConfig(), DataConfig()),
    ],
)
def test_places_are_absolute_where_they_matter(config, expected, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    found = with_absolute_paths(config)
    places = {"here": tmp_path / "here", "above": tmp_path}
    assert found.source == expected.source.format(**places)
    assert str(found.root) == str(expected.root).format(**places)


def test_location_replaces_only_what_it_names(tmp_path):
    config = DataConfig(source="mnist", root=tmp_path / "old", limit=3)
    found = DataLocation(root=tmp_path / "new").of(config)
    assert found == DataConfig(source="mnist", root=tmp_path / "new", limit=3)
    assert DataLocation().of(config) == config
