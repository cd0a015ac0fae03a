"""A run that lies in the folder it learns from does not learn from itself."""

import shutil

import pytest
from tiny_runs import TINY, command

from pipelines.runs.data import load_run_splits
from pipelines.runs.directory import RunDirectory


@pytest.fixture
def here(tmp_path, photos, monkeypatch):
    """A copy of the photos as the working directory."""
    shutil.copytree(photos, tmp_path / "photos")
    monkeypatch.chdir(tmp_path / "photos")


def flatten(folder):
    for path in list(folder.glob("*/*.png")):
        path.rename(folder / path.name)
    for name in ("cat", "dog"):
        (folder / name).rmdir()


@pytest.mark.slow
@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("flat", [False, True], ids=["classes", "flat"])
@pytest.mark.parametrize("out", ["runs/smoke", "second"])
def test_run_inside_its_data_leaves_them_as_they_are(tmp_path, capsys, flat, out):
    if flat:
        flatten(tmp_path / "photos")
    options = (*TINY, "--data.source", "folder:.", "--out", out)
    command("train_all", *options)
    before = capsys.readouterr().out.splitlines()[0]
    directory = RunDirectory(out)
    fingerprint = load_run_splits(directory).fingerprint
    assert fingerprint == directory.data().fingerprint
    command("train_all", *options, "--resume")
    again, note = capsys.readouterr().out.splitlines()[:2]
    assert again == before
    assert note.strip() == f"1 folder of trained runs ({out.split('/')[0]}) is left out"
