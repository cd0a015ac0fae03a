"""Every command on a full disk: one sentence with the path and the cure, nothing half-written."""

import shutil

import pytest
from faulty_disks import full_disk, on_linux
from tiny_runs import TINY, status, tree

from pipelines.files import atomic as atomic_files


@pytest.fixture(autouse=True)
def _filled_up_by_others(monkeypatch):
    """The disk is found to have room before the work."""
    monkeypatch.setattr(atomic_files, "_PROBE_BYTES", 1)


@pytest.fixture
def stage_one(tmp_path, rgb_run):
    """A run with a VQ-VAE alone."""
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(rgb_run / "config.json", run)
    shutil.copytree(rgb_run / "vqvae", run / "vqvae")
    return run


@on_linux
@pytest.mark.parametrize(
    ("name", "output"), [("dump_codes", "codes"), ("reconstruct", "reconstructions/0001.png")]
)
def test_command_on_a_full_disk_names_its_output(stage_one, capsys, name, output):
    before = tree(stage_one)
    with full_disk(free=100):
        assert status(name, "--run", stage_one, "--device", "cpu") == 1
    message = f"error: {stage_one}/{output} could not be written (File too large): make room"
    assert capsys.readouterr().err.startswith(message)
    assert [path for path in tree(stage_one) if path != "reconstructions"] == before


@on_linux
@pytest.mark.parametrize(
    ("free", "output"),
    [
        (100, "config.json"),
        (6_000, "checkpoints/vqvae/step-00000003"),
    ],
)
def test_training_on_a_full_disk_names_what_it_could_not_write(
    tmp_path, rgb_file, capsys, free, output
):
    run = tmp_path / "run"
    with full_disk(free):
        assert status("train_vqvae", *TINY, "--data.source", f"npz:{rgb_file}", "--out", run) == 1
    message = f"error: {run}/{output} could not be written (File too large): make room"
    assert message in capsys.readouterr().err
    assert not [path for path in tree(run) if "partial" in path]
