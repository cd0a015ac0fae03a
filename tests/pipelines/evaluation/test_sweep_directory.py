"""The directory of a sweep: what it takes, what it refuses, and what it says then."""

import json
import re
from dataclasses import replace

import pytest

from pipelines.evaluation.sweep_directory import SweepDirectory, SweepRun
from pipelines.evaluation.sweep_table import SweepRow
from pipelines.recipes import smoke

OPTIONS = {
    "quantizers": ["ema", "gumbel"],
    "codebook_sizes": [64, 256],
    "with_prior": True,
    "device": "cpu",
    "seed": 0,
    "vqvae": {"width": 8},
    "augmentation": {"flip": False, "shift": 0, "first_share": 0.75, "last_share": 0.25},
}


@pytest.fixture
def directory(tmp_path):
    return SweepDirectory(tmp_path / "sweep")


@pytest.fixture
def begun(directory):
    directory.begin(OPTIONS, "bf16")
    return directory


def test_sweep_from_before_there_was_augmentation_is_one_without(directory):
    directory.begin({n: v for n, v in OPTIONS.items() if n != "augmentation"}, "bf16")
    directory.check(OPTIONS, resume=True)
    augmented = OPTIONS | {"augmentation": OPTIONS["augmentation"] | {"flip": True}}
    with pytest.raises(ValueError, match=r"--augmentation.flip was False, is now True: repeat"):
        directory.check(augmented, resume=True)


@pytest.mark.parametrize("resume", [False, True])
def test_new_directory_is_taken(directory, resume):
    directory.check(OPTIONS, resume=resume)
    assert not directory.path.exists()


@pytest.mark.parametrize("resume", [False, True])
def test_empty_directory_and_what_a_kill_left_in_it_are_taken(directory, resume):
    directory.path.mkdir()
    (directory.path / ".sweep.partial-123.json").write_text("{")
    directory.check(OPTIONS, resume=resume)
    directory.begin(OPTIONS, None)
    assert [path.name for path in directory.path.iterdir()] == ["sweep.json"]


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("is_file", [False, True])
def test_something_else_is_refused(directory, resume, is_file):
    if is_file:
        directory.path.write_text("mine")
    else:
        directory.path.mkdir()
        (directory.path / "config.json").write_text("{}")
    with pytest.raises(
        FileExistsError,
        match=r"a sweep needs a new or empty directory, but .*sweep holds something else: name "
        r"another with --out",
    ):
        directory.check(OPTIONS, resume=resume)


def test_sweep_without_resume_is_refused(begun):
    with pytest.raises(
        FileExistsError,
        match=r"a new sweep needs a new directory, but .*sweep holds a sweep: add --resume to go "
        r"on with it, or name another with --out",
    ):
        begun.check(OPTIONS, resume=False)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"quantizers": ["product", "gumbel", "ema"]},
        {"codebook_sizes": [64, 128, 256]},
        {"device": "cuda:1"},
    ],
)
def test_sweep_may_be_resumed_and_extended(begun, change):
    begun.check(OPTIONS | change, resume=True)


def test_prior_may_be_added(directory):
    directory.begin(OPTIONS | {"with_prior": False}, None)
    directory.check(OPTIONS | {"with_prior": True}, resume=True)


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"quantizers": ["ema"]}, "--quantizers was ['ema', 'gumbel'], is now ['ema']"),
        ({"codebook_sizes": [64, 512]}, "--codebook-sizes was [64, 256], is now [64, 512]"),
        ({"with_prior": False}, "--with-prior was True, is now False"),
        (
            {"seed": 1, "vqvae": {"width": 9}},
            "--seed was 0, is now 1; --vqvae.width was 8, is now 9",
        ),
    ],
)
def test_changed_options_are_refused_by_name(begun, change, difference):
    sentence = (
        f"to resume {begun.path} the options must be those it was started with, but {difference}: "
        "repeat the original options or begin another sweep"
    )
    with pytest.raises(ValueError, match=re.escape(sentence)):
        begun.check(OPTIONS | change, resume=True)


@pytest.mark.parametrize("precision", ["bf16", "fp32", None])
def test_precision_is_remembered(directory, precision):
    assert directory.precision() is None
    directory.begin(OPTIONS, precision)
    assert directory.precision() == precision


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"format_version": 1, "precision": null, "options": []}',
        '{"format_version": 1, "precision": "auto", "options": {}}',
    ],
)
def test_damaged_record_is_refused(begun, text):
    begun.record_file.write_text(text)
    with pytest.raises(ValueError, match=r"sweep\.json is damaged \(.*\): restore it"):
        begun.check(OPTIONS, resume=True)


def test_record_of_another_version_is_refused(begun):
    record = json.loads(begun.record_file.read_text())
    begun.record_file.write_text(json.dumps(record | {"format_version": 99}))
    with pytest.raises(
        ValueError, match=r"has format version 99, but this version of the software reads 1: use"
    ):
        begun.precision()


@pytest.fixture
def run(directory):
    return SweepRun(kind="ema", size=64, config=smoke(), directory=directory.run("ema", 64))


ROW = SweepRow(kind="ema", codebook_size=64, codebook_sizes=(64,), psnr=20.0, ssim=0.5)


def test_row_is_kept_and_replaced_in_the_run_directory(run, directory):
    assert run.read_row() is None
    run.write_row(ROW)
    run.write_row(replace(ROW, ssim=0.75))
    assert run.read_row() == replace(ROW, ssim=0.75)
    assert [path.name for path in (directory.path / "ema-64").iterdir()] == ["sweep_row.json"]


@pytest.mark.parametrize("text", ["{", "[]", '{"kind": "ema"}'])
def test_damaged_row_is_refused(run, text):
    run.write_row(ROW)
    run.row_file.write_text(text)
    with pytest.raises(
        ValueError,
        match=r"sweep_row\.json is damaged or of another version \(.*\): remove it to have the run",
    ):
        run.read_row()
