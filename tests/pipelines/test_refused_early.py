"""What cannot end well is refused before anything is read, made or written."""

import errno
import os
import shutil
import tempfile
from contextlib import nullcontext

import pytest
from tiny_runs import TINY, KilledError, command, contents, edit_json, status, tree

from pipelines.runs import data, stage_one
from pipelines.sweeps import run_all
from stage1_vqvae.model import VQVAE

CPU = ("--device", "cpu")


@pytest.fixture
def no_work(monkeypatch):
    """Ends the test where data or models are read."""

    def work(*_, **__):
        raise KilledError

    monkeypatch.setattr(VQVAE, "from_pretrained", work)
    for module in (data, stage_one, run_all):
        monkeypatch.setattr(module, "load_splits", work)


@pytest.fixture
def read_only(monkeypatch):
    """A disk that takes nothing, as `refuse_unwritable` asks it."""

    def refuse(**_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)


def sentence(capsys, name, *arguments):
    assert status(name, *arguments, *CPU) == 1
    return capsys.readouterr().err


@pytest.mark.usefixtures("no_work", "read_only")
@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, ()) for name in ("sample", "reconstruct", "inpaint", "inspect_codebook")),
        *((name, ()) for name in ("evaluate", "tune_sampling")),
        *((name, ("--out", "elsewhere.png")) for name in ("sample", "reconstruct", "inpaint")),
        ("sample", ("--out", "elsewhere.npz")),
        ("sample", ("--out", "elsewhere")),
        ("inspect_codebook", ("--out", "elsewhere")),
    ],
)
def test_result_that_cannot_be_written(name, options, run, monkeypatch, capsys):
    monkeypatch.chdir(run)
    before = contents(run)
    assert "cannot be written in" in sentence(capsys, name, "--run", run, *options)
    assert contents(run) == before


@pytest.mark.usefixtures("no_work", "read_only")
@pytest.mark.parametrize(("name", "part"), [("dump_codes", "codes"), ("train_prior", "prior")])
def test_part_of_a_run_that_cannot_be_written(name, part, run, capsys):
    for path in {"prior", "checkpoints", part}:
        shutil.rmtree(run / path)
    before = contents(run)
    assert "cannot be written in" in sentence(capsys, name, "--run", run)
    assert contents(run) == before


@pytest.mark.usefixtures("no_work", "read_only")
@pytest.mark.parametrize("name", ["train_all", "train_vqvae", "sweep"])
def test_run_that_cannot_be_written(name, tmp_path, capsys):
    options = ("--recipe", "smoke", "--out", tmp_path / "new")
    assert f"{tmp_path}/new cannot be written in {tmp_path}" in sentence(capsys, name, *options)
    assert tree(tmp_path) == []


@pytest.mark.usefixtures("read_only")
@pytest.mark.parametrize("name", ["train_all", "train_vqvae", "train_prior"])
def test_finished_run_needs_no_room(name, rgb_run, rgb_file, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    where = (*TINY, "--data.source", f"npz:{rgb_file}", "--out", rgb_run)
    before = contents(rgb_run)
    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.mkdir", refuse)
        patch.setattr("pathlib.Path.replace", refuse)
        command(name, *(where if name != "train_prior" else ("--run", rgb_run)), "--resume")
    assert contents(rgb_run) == before


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("stage", ["vqvae-training", "prior-training"])
@pytest.mark.parametrize("name", ["train_all", "train_vqvae", "sweep"])
def test_batch_of_either_stage_that_processes_cannot_share(
    name, stage, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "0")
    options = [f"--{s}.batch-size={66 if s != stage else 64}" for s in STAGES]
    error = sentence(capsys, name, "--recipe", "smoke", "--out", tmp_path / "new", *options)
    assert f"--{stage}.batch-size must be a multiple of accumulation times" in error
    assert "64, 1 and 3" in error
    assert tree(tmp_path) == []


STAGES = ("vqvae-training", "prior-training")


@pytest.fixture
def three_processes(monkeypatch):
    """The environment of the first of three, which needs no others to be there."""
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(stage_one, "process_group", lambda _: nullcontext())


@pytest.mark.usefixtures("no_work", "three_processes")
def test_batch_that_the_data_will_choose_is_not_refused(tmp_path, capsys):
    options = ("--recipe", "folder-64", "--out", tmp_path / "new", *CPU)
    with pytest.raises(KilledError):
        command("train_all", *options)
    error = sentence(capsys, "train_all", *options, "--prior-training.batch-size", "64")
    assert "--prior-training.batch-size must be a multiple of" in error


@pytest.mark.usefixtures("no_work", "three_processes")
def test_batch_of_a_continued_run_that_processes_cannot_share(run, capsys):
    edit_json(run / "config.json", lambda record: record["run"].update(recipe="folder-64"))
    error = sentence(capsys, "train_all", "--recipe", "folder-64", "--out", run, "--resume")
    assert "--vqvae-training.batch-size must be a multiple of" in error
    assert "8, 1 and 3" in error


@pytest.mark.usefixtures("no_work")
def test_batch_of_a_prior_that_processes_cannot_share(run, monkeypatch, capsys):
    shutil.rmtree(run / "prior")
    shutil.rmtree(run / "checkpoints")
    before = contents(run)
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "0")
    error = sentence(capsys, "train_prior", "--run", run)
    assert "--prior-training.batch-size must be a multiple of" in error
    assert contents(run) == before


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "sample",
            ("--nearest", "--label", "7"),
            "label must be a class name or number (0, 1), got 7",
        ),
        ("sample", ("--nearest", "--seed", "-1"), "seed must be in [0, 2^63), got -1"),
        ("sample", ("--nearest", "--num-steps", "2"), "any order"),
        ("inpaint", (), "any order"),
        ("evaluate", ("--num-steps", "2"), "any order"),
        ("evaluate", ("--run", "RUN", "gone"), "gone/config.json does not exist"),
        ("tune_sampling", ("--temperatures", "1", "1"), "temperatures must name"),
    ],
)
def test_samples_that_cannot_be_drawn_before_images_are_read(
    name, options, message, run, monkeypatch, capsys
):
    def read(*_):
        raise KilledError

    monkeypatch.setattr(data, "load_splits", read)
    before = contents(run)
    options = tuple(run if option == "RUN" else option for option in options)
    where = () if "--run" in options else ("--run", run)
    assert message in sentence(capsys, name, *where, *options)
    assert contents(run) == before


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("name", ["sample", "reconstruct", "inpaint", "inspect_codebook"])
def test_output_among_the_data(name, run, tmp_path, monkeypatch, capsys):
    (tmp_path / "photos").mkdir()
    source = {"source": f"folder:{tmp_path}/photos"}
    edit_json(run / "config.json", lambda record: record["run"]["data"].update(source))
    monkeypatch.chdir(tmp_path / "photos")
    out = "new" if name == "inspect_codebook" else "new.png"
    error = sentence(capsys, name, "--run", run, "--out", out)
    assert error.startswith(f"error: {out} lies in {tmp_path}/photos, the images of the run")
    assert tree(tmp_path / "photos") == []


def test_run_that_ended_with_nothing_trained_gives_its_place_to_the_next(
    tmp_path, rgb_file, rgb_run, capsys
):
    options = (*TINY, "--data.source", f"npz:{rgb_file}", "--out", tmp_path / "run")
    failing = ("--vqvae-training.learning-rate", "1e6", "--vqvae-training.log-every", "1")
    error = sentence(capsys, "train_all", *options, *failing)
    assert "the loss is nan" in error
    assert "start a new run with a lower learning_rate" in error
    assert (tmp_path / "run" / "metrics.jsonl").exists()
    command("train_all", *options)
    assert contents(tmp_path / "run") == contents(rgb_run)
