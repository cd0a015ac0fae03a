"""What is missing or broken is said in one sentence, and leaves everything as it was."""

import shutil

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from tiny_runs import TINY, edit_json, status, tree


def refused(capsys, name, *arguments):
    """Runs a command that must fail, and returns its sentence."""
    capsys.readouterr()
    assert status(name, *arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error.removeprefix("error: ").rstrip("\n")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dump_codes", "a run directory is required, but gone/config.json does not exist: name"),
        ("train_prior", "a run directory is required, but gone/config.json does not exist: name"),
        ("reconstruct", "a run directory is required, but gone/config.json does not exist: name"),
        ("sample", "a finished run is required, but gone does not exist: name one, or train one"),
        ("inpaint", "a finished run is required, but gone does not exist: name one, or train one"),
    ],
)
def test_missing_run_is_refused(name, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert refused(capsys, name, "--run", "gone").startswith(message)
    assert tree(tmp_path) == []


@pytest.mark.parametrize("name", ["dump_codes", "train_prior", "reconstruct", "sample", "inpaint"])
def test_missing_latest_run_is_refused(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert "runs/latest" in refused(capsys, name)
    assert tree(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("sample", "prior"),
        ("sample", "vqvae"),
        ("reconstruct", "vqvae"),
        ("dump_codes", "vqvae"),
        ("train_prior", "codes"),
    ],
)
def test_run_without_a_part_is_refused(name, part, run, capsys):
    for missing in {part, "codes", "prior"} if name != "sample" else {part}:
        shutil.rmtree(run / missing)
    shutil.rmtree(run / "checkpoints")
    before = tree(run)
    sentence = refused(capsys, name, "--run", run)
    assert f"is required in {run}/{part}, but {run}/{part}" in sentence
    assert tree(run) == before


@pytest.mark.parametrize("part", ["vqvae", "prior"])
def test_truncated_model_is_refused(part, run, capsys):
    path = run / part / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    before = tree(run)
    sentence = refused(capsys, "sample", "--run", run, "--device", "cpu")
    assert sentence.startswith(f"{path} must be a whole safetensors file, but it is damaged")
    assert tree(run) == before


def test_model_with_another_ones_weights_is_refused(run, capsys):
    path = run / "vqvae" / "model.safetensors"
    weights = load_file(path)
    save_file({name: tensor.flip(0) for name, tensor in weights.items()}, path)
    assert "do not belong together" in refused(capsys, "reconstruct", "--run", run)


def test_model_with_a_damaged_config_is_refused(run, capsys):
    (run / "prior" / "config.json").write_text("{")
    sentence = refused(capsys, "sample", "--run", run)
    assert sentence.startswith(f"{run}/prior/config.json must be the config of a saved prior")


@pytest.mark.parametrize("name", ["dump_codes", "train_prior", "reconstruct"])
def test_damaged_run_config_is_refused(name, run, capsys):
    (run / "config.json").write_text('{"format_version": 1')
    before = tree(run)
    sentence = refused(capsys, name, "--run", run)
    assert sentence.startswith(f"{run}/config.json cannot be read (")
    assert tree(run) == before


def test_run_of_another_version_is_refused(run, capsys):
    edit_json(run / "config.json", lambda record: record.update(format_version=99))
    assert "format version 3 is required, got 99" in refused(capsys, "reconstruct", "--run", run)


def test_truncated_codes_are_refused(run, capsys):
    shutil.rmtree(run / "prior")
    shutil.rmtree(run / "checkpoints")
    path = run / "codes" / "train.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    before = tree(run)
    sentence = refused(capsys, "train_prior", "--run", run)
    assert sentence.startswith(f"{path} was changed after it was written")
    assert sentence.endswith("remove the codes and dump them again")
    assert tree(run) == before


def test_finished_codes_are_not_dumped_again(run, capsys):
    before = tree(run)
    assert f"{run}/codes exists" in refused(capsys, "dump_codes", "--run", run)
    assert tree(run) == before


def test_finished_prior_is_not_trained_again(run, capsys):
    before = tree(run)
    assert f"{run}/prior exists" in refused(capsys, "train_prior", "--run", run)
    assert tree(run) == before


def broken_npz(folder):
    (folder / "a.npz").write_bytes(b"PK rubbish")
    return f"npz:{folder / 'a.npz'}"


def float_npz(folder):
    np.savez(folder / "a.npz", images=np.zeros((9, 8, 8)))
    return f"npz:{folder / 'a.npz'}"


def broken_photo(folder):
    (folder / "photos").mkdir()
    for i in range(5):
        (folder / "photos" / f"{i}.png").write_text("not an image")
    return f"folder:{folder / 'photos'}"


def no_photos(folder):
    (folder / "photos").mkdir()
    return f"folder:{folder / 'photos'}"


@pytest.mark.parametrize("name", ["train_all", "train_vqvae"])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: f"npz:{folder}/gone.npz", "gone.npz does not exist: check the path"),
        (lambda folder: f"folder:{folder}/gone", "gone does not exist: check the path"),
        (broken_npz, "a.npz must be an npz file of plain arrays, but"),
        (float_npz, "a.npz must be uint8 in 0..255, got float64"),
        (broken_photo, "must be a readable image, but it is not a PNG, JPEG, WebP"),
        (no_photos, "photos must hold PNG, JPEG, WebP"),
    ],
)
def test_bad_data_are_refused_and_leave_no_run(name, make, message, tmp_path, capsys):
    source = make(tmp_path)
    before = tree(tmp_path)
    options = (*TINY, "--data.source", source, "--out", tmp_path / "runs" / "new")
    assert message in refused(capsys, name, *options)
    assert tree(tmp_path) == before


def test_data_missing_when_codes_are_dumped_are_refused(run, tmp_path, capsys):
    shutil.rmtree(run / "codes")
    source = f"npz:{tmp_path / 'gone.npz'}"
    edit_json(run / "config.json", lambda record: record["run"]["data"].update(source=source))
    before = tree(run)
    assert "gone.npz does not exist" in refused(capsys, "dump_codes", "--run", run)
    assert tree(run) == before


def test_unknown_device_leaves_no_run(tmp_path, rgb_file, capsys):
    options = (*TINY, "--data.source", f"npz:{rgb_file}", "--out", tmp_path / "new")
    sentence = refused(capsys, "train_all", *options, "--device", "tpu")
    assert sentence.startswith("device must be auto, cpu")
    assert tree(tmp_path) == []


def test_batch_that_cannot_be_cut_is_refused_at_once(tmp_path, rgb_file, capsys):
    options = (*TINY, "--data.source", f"npz:{rgb_file}", "--out", tmp_path / "new")
    assert status("train_all", *options, "--vqvae-training.accumulation", "3") == 2
    error = " ".join(line.strip("│ ") for line in capsys.readouterr().err.splitlines())
    assert "batch_size must be a multiple of accumulation, got 8 and 3" in error
    assert tree(tmp_path) == []
