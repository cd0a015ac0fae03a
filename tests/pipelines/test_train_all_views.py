"""Runs whose prior learns from other views of the training images too."""

import shutil

import pytest
import torch
from tiny_runs import (
    TINY,
    KilledError,
    command,
    contents,
    kill_at,
    status,
    tree,
)

from pipelines.data.load import load_splits
from pipelines.runs.directory import RunDirectory
from pipelines.runs.prior_augmentation import View
from pipelines.runs.tasks import PriorTask
from pipelines.training.train_step import TrainStep
from stage1_vqvae import code_dump
from stage1_vqvae.code_dump import read_code_dump, read_other_views
from stage1_vqvae.model import VQVAE
from stage2_prior.pretrained import load_prior

VIEWS = ("--prior-augmentation.flip", "--prior-augmentation.shift", "2")


@pytest.fixture(scope="module")
def run(tmp_path_factory, rgb_file):
    """A finished run with five views besides the images."""
    run = tmp_path_factory.mktemp("views") / "run"
    command("train_all", *TINY, *VIEWS, "--data.source", f"npz:{rgb_file}", "--out", run)
    return RunDirectory(run)


@pytest.fixture
def dumped(tmp_path, run):
    """A copy of the run as `dump_codes` leaves it."""
    copy = tmp_path / "run"
    shutil.copytree(run.path, copy)
    shutil.rmtree(copy / "prior")
    shutil.rmtree(copy / "checkpoints" / "prior")
    return copy


def refused(capsys, *arguments):
    assert status(*arguments, "--device", "cpu") == 1
    return capsys.readouterr().err


def test_dump_has_the_codes_of_every_view_of_the_training_images(run):
    images = torch.from_numpy(load_splits(run.config().data).train.images)
    model, dump = VQVAE.from_pretrained(run.vqvae), read_code_dump(run.codes)
    expected = [images.flip(3)] + [
        View("-", right=right, down=down)(images)
        for right, down in [(2, 0), (-2, 0), (0, 2), (0, -2)]
    ]
    views = list(read_other_views(run.codes, dump))
    assert len(views) == 5
    for view, seen in zip(views, expected, strict=True):
        assert view.codes[0].long().equal(model.encode(seen)[0])


def test_prior_knows_the_views(run):
    spec = load_prior(run.prior).spec
    assert spec.num_extra_labels == 5 * (spec.num_classes + 1)


def test_stages_one_by_one_give_the_run_of_all(tmp_path, run, rgb_file):
    one_by_one = tmp_path / "run"
    command("train_vqvae", *TINY, "--data.source", f"npz:{rgb_file}", "--out", one_by_one)
    command("dump_codes", "--run", one_by_one, "--device", "cpu", *VIEWS)
    command("train_prior", "--run", one_by_one, "--device", "cpu")
    files, rows = contents(one_by_one)
    expected_files, expected_rows = contents(run.path)
    del expected_files["samples.png"]
    assert files == expected_files
    assert rows == expected_rows


@pytest.mark.parametrize(("share", "learned"), [("0", False), ("1", True)])
def test_prior_learns_from_as_many_views_as_the_shares_say(dumped, monkeypatch, share, learned):
    seen = []
    batches = PriorTask.batches

    def watched(*arguments):
        for batch in batches(*arguments):
            seen.extend((batch[3] // 3).tolist())  # two classes and no label in each view
            yield batch

    monkeypatch.setattr(PriorTask, "batches", watched)
    shares = ("--prior-augmentation.first-share", share, "--prior-augmentation.last-share", share)
    command("train_prior", "--run", dumped, "--device", "cpu", *shares)
    assert set(seen) == ({1, 2, 3, 4, 5} if learned else {0})


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (
            ("--prior-augmentation.shift", "1"),
            "(flipped, right-1, left-1, down-1, up-1), but they are",
        ),
        (
            ("--prior-augmentation.no-flip",),
            "(right-2, left-2, down-2, up-2), but they are flipped, r",
        ),
        (
            ("--prior-augmentation.no-flip", "--prior-augmentation.shift", "0"),
            "(none), but they are flipped",
        ),
    ],
)
def test_training_on_codes_of_other_views_is_refused(dumped, capsys, options, named):
    before = tree(dumped)
    said = refused(capsys, "train_prior", "--run", dumped, *options)
    assert named in said
    assert "give the --prior-augmentation options that the codes were dumped with" in said
    assert tree(dumped) == before


def test_shares_are_an_option_of_the_prior_alone(dumped):
    command(
        "train_prior", "--run", dumped, "--device", "cpu", "--prior-augmentation.last-share", "0"
    )
    assert RunDirectory(dumped).config().prior_augmentation.last_share == 0


def test_missing_codes_of_a_view_are_named(dumped, capsys):
    (dumped / "codes" / "train-up-2.safetensors").unlink()
    assert "train-up-2.safetensors, which is missing" in refused(
        capsys, "train_prior", "--run", dumped
    )


def test_killed_prior_asks_for_its_own_options_first(tmp_path, run, capsys):
    copy = tmp_path / "run"
    shutil.copytree(run.path, copy)
    shutil.rmtree(copy / "prior")
    other = ("--prior-augmentation.shift", "1")
    said = refused(capsys, "train_prior", "--run", copy, "--resume", *other)
    assert "--prior-augmentation.shift was 2, is now 1: repeat the original options" in said
    assert "is to be trained, but" in refused(capsys, "train_prior", "--run", copy, *other)


@pytest.mark.parametrize(
    ("owner", "name", "call"), [(code_dump, "_encode_split", 7), (TrainStep, "step", 18)]
)
def test_resume_after_a_kill_equals_uninterrupted(
    tmp_path, monkeypatch, run, rgb_file, owner, name, call
):
    killed = tmp_path / "run"
    options = (*TINY, *VIEWS, "--data.source", f"npz:{rgb_file}", "--out", killed)
    with monkeypatch.context() as patch:
        kill_at(patch, owner, name, call)
        with pytest.raises(KilledError):
            command("train_all", *options)
    command("train_all", *options, "--resume")
    assert contents(killed) == contents(run.path)


def test_killed_dump_goes_on_with_the_views_it_was_asked_for(tmp_path, monkeypatch, rgb_run, run):
    copy = tmp_path / "run"
    shutil.copytree(rgb_run, copy)
    for name in ("codes", "prior", "checkpoints/prior"):
        shutil.rmtree(copy / name)
    with monkeypatch.context() as patch:
        kill_at(patch, code_dump, "_encode_split", 7)
        with pytest.raises(KilledError):
            command("dump_codes", "--run", copy, "--device", "cpu", *VIEWS)
    command("dump_codes", "--run", copy, "--device", "cpu")
    assert tree(copy / "codes") == tree(run.codes)
    for path in run.codes.iterdir():
        assert (copy / "codes" / path.name).read_bytes() == path.read_bytes()


def test_run_without_labels_learns_views_too(tmp_path, gray_file, capsys):
    path = tmp_path / "run"
    options = (*TINY, "--prior.kind", "pixelcnn", "--prior-augmentation.flip")
    command("train_all", *options, "--data.source", f"npz:{gray_file}", "--out", path)
    said = capsys.readouterr().out
    assert said.count("training images also flipped") == 2  # in the plan, and after the dump
    spec = load_prior(path / "prior").spec
    assert (spec.num_classes, spec.num_extra_labels) == (None, 1)
    assert "training images also flipped" in (path / "report.html").read_text()


def test_image_is_not_moved_out_of_its_frame(tmp_path, rgb_file, capsys):
    options = (*TINY, "--data.source", f"npz:{rgb_file}", "--out", tmp_path / "run")
    said = refused(capsys, "train_all", *options, "--prior-augmentation.shift", "8")
    assert "must be below the images' smaller side (8 pixels), got 8" in said
    assert not (tmp_path / "run").exists()


def test_dump_for_another_prior_than_the_one_that_is_there_is_refused(tmp_path, run, capsys):
    copy = tmp_path / "run"
    shutil.copytree(run.path, copy)
    shutil.rmtree(copy / "codes")
    before = tree(copy)
    said = refused(capsys, "dump_codes", "--run", copy, "--prior-augmentation.shift", "1")
    assert f"{copy}/prior was trained with other --prior-augmentation options" in said
    assert tree(copy) == before
    command("dump_codes", "--run", copy, "--device", "cpu")  # with the same options
    assert tree(copy / "codes") == tree(run.codes)
