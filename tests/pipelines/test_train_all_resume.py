"""Killed at any moment and resumed by the same command, a run ends as if it had not been."""

import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from tiny_runs import TINY, KilledError, command, contents, environment, kill_at, status, tree

from pipelines.runs import both_stages, stage_one
from pipelines.runs.directory import RunDirectory
from pipelines.runs.tasks import PriorTask, VQVAETask
from stage1_vqvae import code_dump
from stage1_vqvae.model import VQVAE
from stage2_prior.base import CodePrior

pytestmark = pytest.mark.slow

MOMENTS = {
    "before the config is written": (RunDirectory, "begin", 1),
    "before the first step": (VQVAETask, "prepare", 1),
    "in stage one before its first checkpoint": (VQVAETask, "set_progress", 2),
    "in stage one": (VQVAETask, "set_progress", 5),
    "in stage one's validation": (VQVAETask, "validate", 1),
    "between stage one's metrics and its images": (stage_one, "save_reconstructions", 1),
    "before the VQ-VAE is saved": (VQVAE, "save_pretrained", 1),
    "between the VQ-VAE and the dump": (both_stages, "dump_codes", 1),
    "in the dump": (code_dump, "_encode_split", 3),
    "between the dump and stage two": (both_stages, "train_prior", 1),
    "in stage two before its first checkpoint": (PriorTask, "set_progress", 1),
    "in stage two": (PriorTask, "set_progress", 8),
    "between stage two's metrics and the prior": (CodePrior, "save_pretrained", 1),
    "before the samples": (both_stages, "save_grid", 1),
    "before the run is the latest": (RunDirectory, "mark_latest", 1),
}


def options(rgb_file, run, *others):
    return (*TINY, "--data.source", f"npz:{rgb_file}", "--out", run, *others)


def run_until(moment, monkeypatch, *arguments):
    """Runs a command that is killed at `moment`."""
    with monkeypatch.context() as patch:
        kill_at(patch, *MOMENTS[moment])
        with pytest.raises(KilledError):
            command(*arguments)


@pytest.mark.parametrize("moment", MOMENTS)
def test_resume_after_a_kill_equals_uninterrupted(moment, tmp_path, monkeypatch, rgb_file, rgb_run):
    run = tmp_path / "runs" / "run"
    run_until(moment, monkeypatch, "train_all", *options(rgb_file, run))
    command("train_all", *options(rgb_file, run), "--resume")
    assert contents(run) == contents(rgb_run)
    assert run.with_name("latest").resolve() == run


def test_resume_after_three_kills_equals_uninterrupted(tmp_path, monkeypatch, rgb_file, rgb_run):
    run = tmp_path / "run"
    for moment in ("in stage one", "in the dump", "in stage two"):
        run_until(moment, monkeypatch, "train_all", *options(rgb_file, run), "--resume")
    command("train_all", *options(rgb_file, run), "--resume")
    assert contents(run) == contents(rgb_run)


def test_stopped_by_the_keyboard_and_resumed_equals_uninterrupted(
    tmp_path, monkeypatch, rgb_file, rgb_run
):
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        kill_at(patch, *MOMENTS["in stage two"], KeyboardInterrupt)
        assert status("train_all", *options(rgb_file, run)) == 130
    command("train_all", *options(rgb_file, run), "--resume")
    assert contents(run) == contents(rgb_run)


WAITING_RUN = """
import sys
from unittest import mock
from tiny_runs import command
from stage1_vqvae import code_dump
real, calls = code_dump._encode_split, []
def waiting(path, *rest):
    calls.append(path)
    if len(calls) == 2:
        path.write_bytes(b"half")
        print("now", flush=True)
        sys.stdin.read()
    return real(path, *rest)
with mock.patch.object(code_dump, "_encode_split", waiting):
    command("train_all", *sys.argv[1:])
"""


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX")
def test_resume_after_sigkill_in_the_dump_equals_uninterrupted(tmp_path, rgb_file, rgb_run):
    run = tmp_path / "run"
    arguments = map(str, options(rgb_file, run))
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING_RUN, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(),
    )
    with process:
        assert b"now\n" in iter(process.stdout.readline, b"")
        process.send_signal(signal.SIGKILL)
    assert any(path.name.startswith(".codes.partial") for path in run.iterdir())
    command("train_all", *options(rgb_file, run), "--resume")
    assert contents(run) == contents(rgb_run)


def test_resume_of_a_finished_run_changes_nothing(tmp_path, rgb_file, rgb_run, capsys):
    run = tmp_path / "run"
    shutil.copytree(rgb_run, run)
    command("train_all", *options(rgb_file, run), "--resume")
    assert contents(run) == contents(rgb_run)
    said = capsys.readouterr().out
    assert f"vqvae: already trained, in {run}/vqvae" in said
    assert f"prior: already trained, in {run}/prior" in said


def test_resume_without_a_run_begins_one(tmp_path, rgb_file, rgb_run):
    command("train_all", *options(rgb_file, tmp_path / "run", "--resume"))
    assert contents(tmp_path / "run") == contents(rgb_run)


@pytest.mark.parametrize("name", ["train_all", "train_vqvae"])
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (("--seed", "3"), "--seed was 0, is now 3"),
        (("--vqvae.quantizer.decay", "0.5"), "--vqvae.quantizer.decay was 0.99, is now 0.5"),
        (("--prior.kind=pixelcnn",), "--prior.kind was transformer, is now pixelcnn"),
        (("--data.no-labels",), "--data.labels was True, is now False"),
    ],
)
def test_resume_with_a_changed_option_is_refused_by_its_name(
    name, changed, message, rgb_file, rgb_run, capsys
):
    before = contents(rgb_run)
    assert status(name, *options(rgb_file, rgb_run, "--resume"), *changed) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"error: to resume {rgb_run} the settings must be those")
    assert message in printed.err
    assert contents(rgb_run) == before


def test_resume_on_changed_data_is_refused(tmp_path, rgb_file, capsys):
    source, run = tmp_path / "images.npz", tmp_path / "run"
    shutil.copy(rgb_file, source)
    command("train_all", *options(source, run))
    before = contents(run)
    with np.load(rgb_file) as arrays:
        np.savez(source, images=arrays["images"] ^ 1, labels=arrays["labels"])
    capsys.readouterr()
    assert status("train_all", *options(source, run, "--resume")) == 1
    assert "but data fingerprint was " in capsys.readouterr().err
    assert contents(run) == before


@pytest.mark.parametrize("name", ["dump_codes", "reconstruct"])
def test_later_command_on_changed_data_is_refused(name, tmp_path, rgb_file, capsys):
    source, run = tmp_path / "images.npz", tmp_path / "run"
    shutil.copy(rgb_file, source)
    command("train_vqvae", *options(source, run))
    with np.load(rgb_file) as arrays:
        np.savez(source, images=arrays["images"][:-1], labels=arrays["labels"][:-1])
    before = tree(run)
    assert status(name, "--run", run, "--device", "cpu") == 1
    assert f"the data of {run} must be those it was trained on" in capsys.readouterr().err
    assert tree(run) == before


def test_dump_of_another_vqvae_is_refused(tmp_path, rgb_file, rgb_run, capsys):
    run = tmp_path / "run"
    command("train_vqvae", *options(rgb_file, run, "--seed", "1"))
    shutil.copytree(rgb_run / "codes", run / "codes")
    assert status("train_all", *options(rgb_file, run, "--seed", "1", "--resume")) == 1
    assert f"{run}/codes must hold the codes of {run}/vqvae, but" in capsys.readouterr().err
    assert not (run / "prior").exists()


def with_another_vqvae(run, rgb_run):
    """A copy of `rgb_run` with another model, whose codes are still to be dumped."""
    shutil.copytree(rgb_run, run)
    model = VQVAE.from_pretrained(run / "vqvae")
    with torch.no_grad():
        next(model.parameters()).add_(1.0)
    for name in ("vqvae", "codes"):
        shutil.rmtree(run / name)
    model.save_pretrained(run / "vqvae")


def test_prior_of_another_vqvae_is_refused(tmp_path, rgb_file, rgb_run, capsys):
    run = tmp_path / "run"
    with_another_vqvae(run, rgb_run)
    assert status("train_all", *options(rgb_file, run, "--resume")) == 1
    assert f"{run}/prior must be trained on {run}/codes, but" in capsys.readouterr().err


def test_checkpoint_of_a_prior_of_another_vqvae_is_refused(tmp_path, rgb_file, rgb_run, capsys):
    run = tmp_path / "run"
    with_another_vqvae(run, rgb_run)
    shutil.rmtree(run / "prior")
    assert status("train_all", *options(rgb_file, run, "--resume")) == 1
    assert "cannot resume: origin was model" in capsys.readouterr().err
    assert not (run / "prior").exists()


@pytest.fixture
def half_a_prior(tmp_path, monkeypatch, rgb_run):
    """A run whose prior was killed in training by `train_prior`, with other settings."""
    run = tmp_path / "run"
    shutil.copytree(rgb_run, run)
    shutil.rmtree(run / "prior")
    shutil.rmtree(run / "checkpoints" / "prior")
    settings = ("--device", "cpu", "--prior.dropout", "0.3")
    run_until("in stage two", monkeypatch, "train_prior", "--run", run, *settings)
    return run


def test_killed_prior_resumes_with_the_settings_it_was_started_with(half_a_prior, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(half_a_prior, other)
    shutil.rmtree(other / "checkpoints" / "prior")
    command("train_prior", "--run", other, "--device", "cpu", "--prior.dropout", "0.3")
    command("train_prior", "--run", half_a_prior, "--device", "cpu", "--resume")
    assert contents(half_a_prior) == contents(other)


def test_killed_prior_does_not_resume_with_other_settings(half_a_prior, capsys):
    before = tree(half_a_prior)
    changed = ("--resume", "--prior.dropout", "0.2")
    assert status("train_prior", "--run", half_a_prior, "--device", "cpu", *changed) == 1
    assert "--prior.dropout was 0.3, is now 0.2" in capsys.readouterr().err
    assert tree(half_a_prior) == before


def test_killed_prior_is_not_begun_again_unasked(half_a_prior, capsys):
    before = contents(half_a_prior)
    again = ("--run", half_a_prior, "--device", "cpu", "--prior.dropout", "0.2")
    assert status("train_prior", *again) == 1
    assert f"{half_a_prior}/checkpoints/prior exists: add --resume" in capsys.readouterr().err
    assert contents(half_a_prior) == before
