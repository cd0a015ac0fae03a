"""Runs whose prior learns from other views of the training images too."""

import shutil

import pytest
import torch
from tiny_runs import TINY, command, contents, edit_json, status, tree

from pipelines.augmentation import View
from pipelines.data.load import load_splits
from pipelines.run_dir import RunDirectory
from stage1_vqvae.code_dump import read_code_dump, read_views
from stage1_vqvae.model import VQVAE
from stage2_prior.base import CodePrior

VIEWS = ("--augmentation.flip", "--augmentation.shift", "2")


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
    views = read_views(run.codes, dump)
    assert len(views) == 5
    for view, seen in zip(views, expected, strict=True):
        assert view.codes[0].long().equal(model.encode(seen)[0])


def test_prior_knows_the_views(run):
    assert CodePrior.from_pretrained(run.prior).num_views == 6


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


def test_prior_without_views_learns_something_else(run, rgb_run):
    ours, theirs = (CodePrior.from_pretrained(path / "prior") for path in (run.path, rgb_run))
    assert not ours.start.equal(theirs.start)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--augmentation.shift", "1"), "(flipped, right-1, left-1, down-1, up-1), but they are"),
        (("--augmentation.no-flip",), "(right-2, left-2, down-2, up-2), but they are flipped, r"),
        (("--augmentation.no-flip", "--augmentation.shift", "0"), "(none), but they are flipped"),
    ],
)
def test_training_on_codes_of_other_views_is_refused(dumped, capsys, options, named):
    before = tree(dumped)
    said = refused(capsys, "train_prior", "--run", dumped, *options)
    assert named in said
    assert "dump them again with the same --augmentation options" in said
    assert tree(dumped) == before


def test_shares_are_an_option_of_the_prior_alone(dumped):
    command("train_prior", "--run", dumped, "--device", "cpu", "--augmentation.last-share", "0")
    assert RunDirectory(dumped).config().augmentation.last_share == 0


def test_missing_codes_of_a_view_are_named(dumped, capsys):
    (dumped / "codes" / "train-up-2.safetensors").unlink()
    assert "train-up-2.safetensors, which is missing" in refused(
        capsys, "train_prior", "--run", dumped
    )


def test_dump_for_another_prior_than_the_one_that_is_there_is_refused(tmp_path, run, capsys):
    copy = tmp_path / "run"
    shutil.copytree(run.path, copy)
    shutil.rmtree(copy / "codes")
    before = tree(copy)
    said = refused(capsys, "dump_codes", "--run", copy, "--augmentation.shift", "1")
    assert f"{copy}/prior was trained with other --augmentation options" in said
    assert tree(copy) == before
    command("dump_codes", "--run", copy, "--device", "cpu")  # with the same options
    assert tree(copy / "codes") == tree(run.codes)


def test_run_of_an_older_version_goes_on(tmp_path, rgb_run):
    copy = tmp_path / "run"
    shutil.copytree(rgb_run, copy)
    edit_json(copy / "config.json", lambda record: record["run"].pop("augmentation"))
    directory = RunDirectory(copy)
    assert directory.config().augmentation.views == ()
    directory.check(directory.config(), resume=True)  # finds no difference
