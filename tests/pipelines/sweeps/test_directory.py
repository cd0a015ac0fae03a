"""The directory of a sweep: what it takes, what it refuses, and what it says then."""

import json
import math
import re
from dataclasses import replace

import pytest
from tiny_runs import edit_json

from pipelines.data.data_record import DataRecord, SplitSizes
from pipelines.runs.recipes import RECIPES
from pipelines.sweeps.directory import SweepConfig, SweepDirectory, SweepRun
from pipelines.sweeps.row import SweepRow

SWEEP = SweepConfig(
    quantizers=("ema", "gumbel"),
    codebook_sizes=(64, 256),
    with_prior=True,
    run=replace(RECIPES["smoke"], device="cpu"),
)
DATA = DataRecord(
    image_shape=(1, 4, 4),
    num_images=SplitSizes(train=8, validation=2, test=3),
    num_classes=None,
    class_names=(),
    train_images_per_class=(),
    fingerprint="0123",
)


@pytest.fixture
def directory(tmp_path):
    return SweepDirectory(tmp_path / "sweep")


@pytest.fixture
def begun(directory):
    directory.begin(SWEEP, "bf16")
    return directory


def train_something(directory):
    run = directory.run("ema", 64)
    run.begin(RECIPES["smoke"], DATA)
    run.vqvae.mkdir()


@pytest.fixture
def trained(begun):
    train_something(begun)
    return begun


@pytest.mark.parametrize("resume", [False, True])
def test_new_directory_is_taken(directory, resume):
    directory.check(SWEEP, resume=resume)
    assert not directory.path.exists()


@pytest.mark.parametrize("resume", [False, True])
def test_empty_directory_and_what_a_kill_left_in_it_are_taken(directory, resume):
    directory.path.mkdir()
    (directory.path / ".sweep.partial-123.json").write_text("{")
    directory.check(SWEEP, resume=resume)
    directory.begin(SWEEP, None)
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
        directory.check(SWEEP, resume=resume)


def test_sweep_without_resume_is_refused(trained):
    with pytest.raises(
        FileExistsError,
        match=r"a new sweep needs a new directory, but .*sweep holds a sweep: add --resume to go "
        r"on with it, or name another with --out",
    ):
        trained.check(SWEEP, resume=False)


@pytest.mark.parametrize("resume", [False, True])
def test_sweep_in_which_nothing_was_trained_is_begun_anew(begun, resume):
    begun.run("ema", 64).begin(RECIPES["smoke"], DATA)
    corrected = replace(SWEEP, run=replace(SWEEP.run, seed=1))
    begun.check(corrected, resume=resume)
    begun.begin(corrected, None)
    assert json.loads(begun.record_file.read_text())["sweep"]["run"]["seed"] == 1


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"quantizers": ("product", "gumbel", "ema")},
        {"codebook_sizes": (64, 128, 256)},
        {"run": replace(SWEEP.run, device="cuda:1")},
        {"run": replace(SWEEP.run, data=replace(SWEEP.run.data, source="folder:/moved"))},
    ],
)
def test_sweep_may_be_resumed_and_extended(trained, change):
    trained.check(replace(SWEEP, **change), resume=True)


def test_prior_may_be_added(directory):
    directory.begin(replace(SWEEP, with_prior=False), None)
    train_something(directory)
    directory.check(SWEEP, resume=True)


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"quantizers": ("ema",)}, "--quantizers was ['ema', 'gumbel'], is now ['ema']"),
        ({"codebook_sizes": (64, 512)}, "--codebook-sizes was [64, 256], is now [64, 512]"),
        ({"with_prior": False}, "--with-prior was True, is now False"),
        (
            {"run": replace(SWEEP.run, seed=1, vqvae=replace(SWEEP.run.vqvae, width=9))},
            "--seed was 0, is now 1; --vqvae.width was 32, is now 9",
        ),
    ],
)
def test_changed_options_are_refused_by_name(trained, change, difference):
    sentence = (
        f"to resume {trained.path} the options must be those it was started with, but "
        f"{difference}: repeat the original options or begin another sweep"
    )
    with pytest.raises(ValueError, match=re.escape(sentence)):
        trained.check(replace(SWEEP, **change), resume=True)


@pytest.mark.parametrize("precision", ["bf16", "fp32", None])
def test_precision_is_remembered(directory, precision):
    assert directory.precision() is None
    directory.begin(SWEEP, precision)
    assert directory.precision() == precision


@pytest.mark.parametrize("text", ["{", "[]", "{}", "[" * 100_000])
def test_damaged_record_is_refused(begun, text):
    begun.record_file.write_text(text)
    with pytest.raises(ValueError, match=r"sweep\.json cannot be read \(.*\): restore it, or"):
        begun.check(SWEEP, resume=True)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda record: record.update(format_version=99), "version 3 is required, got 99"),
        (lambda record: record.update(precision="auto"), "precision"),
        (lambda record: record["sweep"].update(quantizers=[1]), r"sweep\.quantizers\.0"),
        (lambda record: record["sweep"]["run"].pop("seed"), r"sweep\.run\.seed"),
    ],
)
def test_record_that_does_not_fit_is_refused_by_name(begun, change, field):
    edit_json(begun.record_file, change)
    with pytest.raises(ValueError, match=rf"sweep\.json cannot be read \(.*{field}"):
        begun.precision()


@pytest.fixture
def run(directory):
    return SweepRun(
        kind="ema", size=64, config=RECIPES["smoke"], directory=directory.run("ema", 64)
    )


ROW = SweepRow(
    kind="ema",
    codebook_size=64,
    codebook_sizes=(64,),
    values={"psnr": math.inf, "ssim": 0.5},
)


def test_row_is_kept_and_replaced_in_the_run_directory(run, directory):
    assert run.read_row() is None
    run.write_row(ROW)
    run.write_row(replace(ROW, failure="no"))
    assert run.read_row() == replace(ROW, failure="no")
    assert [path.name for path in (directory.path / "ema-64").iterdir()] == ["sweep_row.json"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda record: record.pop("row"), "row"),
        (lambda record: record["row"].update(extra=1), r"row\.extra"),
        (lambda record: record["row"]["values"].update(ssim="0.9"), r"row\.values\.ssim"),
        (lambda record: record["row"].update(codebook_sizes=["512"]), r"row\.codebook_sizes\.0"),
    ],
)
def test_damaged_row_is_refused(run, change, field):
    run.write_row(ROW)
    edit_json(run.row_file, change)
    with pytest.raises(
        ValueError, match=rf"sweep_row\.json cannot be read \({field}.*: remove it to have the run"
    ):
        run.read_row()
