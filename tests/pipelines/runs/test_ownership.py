"""A run, a sweep and a shared cache have one writer at a time."""

import os
import shutil
import socket
from contextlib import ExitStack

import numpy as np
import pytest
import torch
from tiny_runs import TINY, command, contents, python, status, tree

from pipelines.data.image_set import ImageSet
from pipelines.evaluation.metrics import encoder_cache
from pipelines.evaluation.metrics.encoder_cache import cached_encoder
from pipelines.evaluation.metrics.feature_classifier import train_classifier
from pipelines.files import ownership
from pipelines.runs import codes, stage_two
from pipelines.runs.directory import RunDirectory
from pipelines.sweeps.directory import SweepDirectory
from pipelines.training.precision import Precision

THIS_PROCESS = f"by process {os.getpid()} on {socket.gethostname()}"
CPU = ("--device", "cpu")


def copy_without(run, target, *parts):
    shutil.copytree(run, target)
    for part in parts:
        shutil.rmtree(target / part)
    return target


@pytest.fixture
def end_of_waiting(monkeypatch):
    """What is owned in here is given up once somebody says that it waits for it."""
    with ExitStack() as owned, monkeypatch.context() as patch:
        patch.setattr(ownership.logger, "warning", lambda *_: owned.close())
        yield owned


@pytest.mark.parametrize(
    ("name", "missing", "options"),
    [
        ("train_all", ("prior", "checkpoints/prior"), ("--resume",)),
        ("train_all", ("vqvae", "codes", "prior", "checkpoints"), ()),
        ("train_vqvae", ("vqvae", "codes", "prior", "checkpoints/prior"), ("--resume",)),
        ("dump_codes", ("codes", "prior", "checkpoints/prior"), ()),
        ("train_prior", ("prior", "checkpoints/prior"), ()),
        ("evaluate", (), ()),
        ("tune_sampling", (), ()),
        ("inspect_codebook", (), ()),
    ],
)
def test_second_writer_is_refused_at_once(
    name, missing, options, tmp_path, rgb_run, rgb_file, capsys
):
    run = copy_without(rgb_run, tmp_path / "run", *missing)
    if not options and name == "train_all":  # a directory in which nothing was trained
        for file in ("samples.png", "reconstructions.png", "report.html"):
            (run / file).unlink()
    where = ("--run", run)
    if name in ("train_all", "train_vqvae"):
        where = (*TINY, "--data.source", f"npz:{rgb_file}", "--out", run)
    with RunDirectory(run).owned("trained"):
        before = tree(run)
        assert status(name, *where, *CPU, *options) == 1
        printed = capsys.readouterr()
        assert printed.err == (
            f"error: {run} is being trained {THIS_PROCESS}: wait for it, or end it\n"
        )
        assert "already" not in printed.out
        assert tree(run) == before


@pytest.mark.parametrize(
    ("name", "part", "option"),
    [
        ("dump_codes", "codes", ("--prior-augmentation.flip",)),
        ("train_prior", "prior", ("--prior-training.epochs", "2")),
    ],
)
def test_work_that_was_done_before_the_lock_is_not_begun_again(
    name, part, option, tmp_path, rgb_run, monkeypatch, capsys
):
    run = copy_without(rgb_run, tmp_path / "run", *{part, "prior"}, "checkpoints/prior")
    module = {"dump_codes": codes, "train_prior": stage_two}[name]

    def finish(path):  # the last call before the lock
        shutil.copytree(rgb_run / part, path / part)

    monkeypatch.setattr(module, "require_shared", finish)
    before = (run / "config.json").read_bytes()
    assert status(name, "--run", run, *CPU, *option) == 1
    assert f"{run / part} exists" in capsys.readouterr().err
    assert (run / "config.json").read_bytes() == before


def test_second_sweep_is_refused_at_once(tmp_path, rgb_file, capsys):
    options = ("--data.source", f"npz:{rgb_file}", "--out", tmp_path / "sweep")
    with SweepDirectory(tmp_path / "sweep").owned("trained"):
        assert status("sweep", "--recipe", "smoke", *CPU, *options) == 1
    assert f"sweep is being trained {THIS_PROCESS}: wait" in capsys.readouterr().err
    assert tree(tmp_path) == []


def test_commands_that_do_not_write_into_a_run_need_no_lock(tmp_path, rgb_run):
    with RunDirectory(rgb_run).owned("trained"):
        command("sample", "--run", rgb_run, *CPU, "--n", "1", "--out", tmp_path / "a.png")
        command("inspect_codebook", "--run", rgb_run, *CPU, "--out", tmp_path / "codebook")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["evaluate", "inspect_codebook"])
def test_measurements_of_one_run_take_turns(name, tmp_path, rgb_run, end_of_waiting):
    run = copy_without(rgb_run, tmp_path / "run")
    end_of_waiting.enter_context(RunDirectory(run).owned("measured"))
    command(name, "--run", run, *CPU)
    assert (run / {"evaluate": "evaluation.json", "inspect_codebook": "codebook"}[name]).exists()


def test_classifier_that_another_process_trains_is_waited_for_and_used(
    tmp_path, monkeypatch, end_of_waiting
):
    images = np.random.default_rng(0).integers(0, 256, (8, 1, 4, 4), dtype=np.uint8)
    data = (ImageSet(images, np.arange(8) % 2), 2)
    options = {"device": torch.device("cpu"), "precision": Precision(name="fp32", reason="")}
    model, key = cached_encoder(tmp_path / "theirs", *data, fingerprint="0123", **options)
    (path,) = (tmp_path / "theirs").iterdir()

    def finish():
        shutil.copytree(path, tmp_path / "shared" / path.name)

    monkeypatch.setattr(encoder_cache, "train_classifier", None)
    end_of_waiting.enter_context(
        ownership.owned(path, "trained", lock_file=tmp_path / "shared" / f".{path.name}.lock")
    )
    end_of_waiting.callback(finish)
    found, found_key = cached_encoder(tmp_path / "shared", *data, fingerprint="0123", **options)
    assert found_key == key
    assert found.features(images).equal(model.features(images))
    assert tree(tmp_path / "shared") == [path.name, *(f"{path.name}/{p}" for p in tree(path))]
    monkeypatch.setattr(encoder_cache, "train_classifier", train_classifier)


SCRIPT = """
import sys
from tiny_runs import command
from pipelines.cli.command import run_command
run_command(lambda: command("train_all", *sys.argv[1:]))
"""


@pytest.mark.slow
def test_refusal_of_the_first_process_ends_all(tmp_path, rgb_run, rgb_file):
    run = copy_without(rgb_run, tmp_path / "run", "prior", "checkpoints/prior")
    (tmp_path / "script.py").write_text(SCRIPT)
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    options = (*TINY, "--data.source", f"npz:{rgb_file}", "--out", run, "--resume")
    with RunDirectory(run).owned("trained"):
        before = contents(run)
        ended = python(*launcher, tmp_path / "script.py", *options)
        assert ended.returncode == 1
        assert f"error: {run} is being trained {THIS_PROCESS}" in ended.stderr
        assert contents(run) == before
