"""`train_all` in two processes: one run directory, written once, as one process writes it."""

import re
import shutil
import sys

import pytest
from processes import errors_of, start
from tiny_runs import TINY, command, python, rows_without_time, tree

from pipelines.runs.directory import RunDirectory

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="gloo's store is another there"),
]

DETERMINED = (
    *TINY,
    # What draws from each process's own random stream is left out, so that two can equal one.
    *("--vqvae.quantizer.kind", "gradient", "--vqvae.quantizer.restart-threshold", "0"),
    *("--prior.dropout", "0", "--prior.label-dropout", "0"),
    # All images are mirrored, and none by chance.
    *(
        "--prior-augmentation.flip",
        "--prior-augmentation.first-share",
        "1",
        "--prior-augmentation.last-share",
        "1",
    ),
)

SCRIPT = """
import os, sys
from tiny_runs import command
from pipelines.runs import directory as run_directory
from pipelines.cli.command import run_command
written, *arguments = sys.argv[1:]
write = run_directory.write_record
def counted(path, *arguments):
    with open(written, "a") as file:
        file.write(f"rank {os.environ['RANK']} {path.name}\\n")
    write(path, *arguments)
run_directory.write_record = counted
run_command(lambda: command("train_all", *arguments))
"""


def torchrun(folder, *arguments):
    script = folder / "script.py"
    script.write_text(SCRIPT)
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    return python(*launcher, script, folder / "written.txt", *arguments)


@pytest.fixture(scope="module")
def two(tmp_path_factory, rgb_file):
    """The folder that holds the run of two processes, and how they ended."""
    folder = tmp_path_factory.mktemp("two")
    options = ("--data.source", f"npz:{rgb_file}", "--out", folder / "run")
    ended = torchrun(folder, *DETERMINED, *options)
    assert ended.returncode == 0, ended.stderr
    return folder, ended


@pytest.fixture(scope="module")
def one(tmp_path_factory, rgb_file):
    """The same run by one process."""
    run = tmp_path_factory.mktemp("one") / "run"
    command("train_all", *DETERMINED, "--data.source", f"npz:{rgb_file}", "--out", run)
    return run


def test_two_processes_write_the_files_of_one(one, two):
    assert tree(two[0] / "run") == tree(one)


def test_config_is_written_once_by_the_first_process(one, two):
    assert (two[0] / "written.txt").read_text() == "rank 0 config.json\n"
    assert RunDirectory(two[0] / "run").config() == RunDirectory(one).config()


def test_each_line_is_said_once(two):
    heads = [line.partition(":")[0].strip() for line in two[1].stdout.splitlines()]
    assert heads == [
        "data",
        "training images per class",
        "vqvae",
        "prior",
        "vqvae",
        "vqvae",
        "codes",
        "prior",
        "prior",
        "report",
        "images",
        "next",
    ]


def test_two_processes_log_the_steps_of_one(one, two):
    rows = [rows_without_time(run) for run in (two[0] / "run", one)]
    steps = [[(row.phase, row.kind, row.step) for row in log] for log in rows]
    assert steps[0] == steps[1]


def test_two_processes_reach_the_metrics_of_one(one, two):
    rows = [rows_without_time(run) for run in (two[0] / "run", one)]
    test, expected = ([row.values for row in log if row.kind == "test"] for log in rows)
    # Gradients are the same sums in another order, in float32, over ten steps.
    assert test == [pytest.approx(values, rel=1e-3) for values in expected]


def test_existing_run_is_refused_by_two_processes(two, rgb_file):
    folder, _ = two
    before = tree(folder)
    options = ("--data.source", f"npz:{rgb_file}", "--out", folder / "run")
    ended = torchrun(folder, *DETERMINED, *options)
    assert ended.returncode == 1
    assert f"error: a new run needs a new directory, but {folder}/run holds a run" in ended.stderr
    assert tree(folder) == before


def refused(commands, folders):
    """What both processes say, the same, before they end with status 1."""
    processes = start([["-m", "pipelines.train_all", *options] for options in commands], folders)
    first, second = errors_of(processes)
    assert [process.returncode for process in processes] == [1, 1]
    assert first == second
    return first


@pytest.mark.parametrize("resume", [False, True], ids=["fresh", "resumed"])
def test_processes_in_different_working_directories_are_refused(tmp_path, rgb_file, one, resume):
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    if resume:
        shutil.copytree(one, folders[0] / "run")
        shutil.rmtree(folders[0] / "run" / "prior")
    before = tree(tmp_path)
    options = [*DETERMINED, "--data.source", f"npz:{rgb_file}", "--out", "run"]
    error = refused([options + ["--resume"] * resume] * 2, folders)
    assert re.search(rf"'{folders[1]}/run.* on rank 1 .*'{folders[0]}/run' on rank 0", error)
    assert tree(tmp_path) == before


def test_processes_with_different_options_are_refused(tmp_path, rgb_file):
    options = [*DETERMINED, "--data.source", f"npz:{rgb_file}", "--out", tmp_path / "run"]
    error = refused([options, [*options, "--data.limit", "30"]], [tmp_path] * 2)
    assert re.search(r"data\.limit, which is 30 on rank 1 \(.*\) and 1024 on rank 0", error)
    assert tree(tmp_path) == []


def test_processes_with_different_images_are_refused(tmp_path, rgb_file, gray_file):
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder, file in zip(folders, (rgb_file, gray_file), strict=True):
        folder.mkdir()
        shutil.copy(file, folder / "images.npz")
    options = [*DETERMINED, "--data.source", "npz:images.npz", "--out", tmp_path / "run"]
    error = refused([options] * 2, folders)
    assert re.search(r"data\.image_shape, which is \[1, 7, 9\] on rank 1 .* \[3, 8, 10\]", error)
    assert not (tmp_path / "run").exists()


def test_both_processes_choose_by_the_speed_that_the_first_one_measures(tmp_path, photos):
    options = (
        *("--recipe", "folder-64", "--data.image-size", "8", "8", "--device", "cpu"),
        *("--vqvae.width", "8", "--vqvae.fine-width", "4", "--prior.width", "8"),
        *("--vqvae-training.precision", "fp32", "--prior-training.precision", "fp32"),
        *("--hours", "1e-5", "--data.source", f"folder:{photos}", "--out", tmp_path / "run"),
    )
    ended = torchrun(tmp_path, *options)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("chosen: vqvae-training.epochs") == 1
    config = RunDirectory(tmp_path / "run").config()
    assert config.vqvae_training.epochs < 10
    assert config.vqvae_training.batch_size == 8
