"""A new run that starts from the weights of a finished one."""

import shutil

import pytest
from safetensors.torch import load_file
from tiny_runs import TINY, KilledError, command, status, tree

from pipelines.runs.directory import RunDirectory
from pipelines.runs.tasks import PriorTask, VQVAETask


@pytest.fixture
def options(tmp_path, rgb_file):
    return (*TINY, "--data.source", f"npz:{rgb_file}", "--out", tmp_path / "new")


def weights(run, model):
    return load_file(run / model / "model.safetensors")


@pytest.mark.parametrize(("task", "model"), [(VQVAETask, "vqvae"), (PriorTask, "prior")])
def test_stage_starts_from_the_weights_of_the_run(task, model, options, rgb_run, monkeypatch):
    """Also from its codebook, which a new training would take from the data."""
    seen = {}

    def first_step(self, *_):
        part = self.objective.model if model == "vqvae" else self.objective.prior
        seen.update({name: tensor.clone() for name, tensor in part.state_dict().items()})
        raise KilledError

    monkeypatch.setattr(task, "set_progress", first_step)
    with pytest.raises(KilledError):
        command("train_all", *options, "--start-from", rgb_run)
    expected = weights(rgb_run, model)
    assert seen.keys() == expected.keys()
    # Counts of use follow the size of the new batches.
    expected = {name: tensor for name, tensor in expected.items() if "usage" not in name}
    assert all(seen[name].equal(expected[name]) for name in expected)


def test_run_has_a_new_schedule_and_records_where_it_started(
    options, tmp_path, rgb_run, monkeypatch
):
    monkeypatch.chdir(rgb_run.parent)
    longer = ("--vqvae-training.epochs", "2")
    command("train_all", *options, *longer, "--start-from", rgb_run.name)
    config = RunDirectory(tmp_path / "new").config()
    assert (config.vqvae_from, config.prior_from) == (rgb_run, rgb_run)
    assert config.vqvae_training.epochs == 2
    before, after = (weights(run, "vqvae") for run in (rgb_run, tmp_path / "new"))
    assert any(not before[name].equal(after[name]) for name in before)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (("--vqvae.fine-width", "2"), "vqvae must have the config of the model that starts from"),
        (("--prior.width", "16"), "prior must have the config of the model that starts from"),
        (("--data.image-size", "8", "8"), "vqvae must have the image shape of the model that st"),
        (("--data.no-labels",), "prior must have the num classes of the model that starts from"),
    ],
)
def test_other_model_is_refused_before_anything_is_written(
    changed, message, options, tmp_path, rgb_run, capsys
):
    assert status("train_all", *options, *changed, "--start-from", rgb_run) == 1
    assert f"error: {rgb_run}/{message}" in capsys.readouterr().err
    assert tree(tmp_path) == []


@pytest.mark.parametrize("missing", ["vqvae", "prior"])
def test_unfinished_run_is_refused_before_the_data_are_read(
    missing, options, tmp_path, rgb_run, capsys
):
    shutil.copytree(rgb_run, tmp_path / "old")
    shutil.rmtree(tmp_path / "old" / missing)
    gone = ("--data.source", "npz:gone.npz")
    assert status("train_all", *options, *gone, "--start-from", tmp_path / "old") == 1
    message = f"a run with a trained {missing} is required to start from, but {tmp_path}/old/"
    assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_prior_alone_starts_from_another_run(tmp_path, rgb_run):
    run = tmp_path / "run"
    shutil.copytree(rgb_run, run)
    for part in ("prior", "checkpoints/prior"):
        shutil.rmtree(run / part)
    before = tree(run)
    options = ("--run", run, "--device", "cpu", "--prior-from", rgb_run)
    assert status("train_prior", *options, "--prior.width", "16") == 1
    assert tree(run) == before
    assert RunDirectory(run).config().prior_from is None
    command("train_prior", *options)
    assert RunDirectory(run).config().prior_from == rgb_run


def test_sweep_starts_from_no_run(tmp_path, rgb_run, capsys):
    options = ("--recipe", "smoke", "--out", tmp_path / "sweep", "--prior-from", rgb_run)
    assert status("sweep", *options) == 1
    assert "leave --vqvae-from and --prior-from out" in capsys.readouterr().err
