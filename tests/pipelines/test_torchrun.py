"""`train_all` in two processes: one run directory, written once, as one process writes it."""

import sys

import pytest
from tiny_runs import TINY, command, python, rows_without_time, tree

from pipelines.run_dir import RunDirectory

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="gloo's store is another there")

DETERMINED = (
    *TINY,
    # What draws from each process's own random stream is left out, so that two can equal one.
    *("--vqvae.quantizer.kind", "gradient", "--vqvae.quantizer.restart-threshold", "0"),
    *("--prior.dropout", "0", "--prior.label-dropout", "0"),
    # All images are mirrored, and none by chance.
    *("--augmentation.flip", "--augmentation.first-share", "1", "--augmentation.last-share", "1"),
)

SCRIPT = """
import os, sys
from tiny_runs import command
from pipelines import run_dir
from pipelines.command import run_command
written, *arguments = sys.argv[1:]
write = run_dir.write_record
def counted(path, *arguments):
    with open(written, "a") as file:
        file.write(f"rank {os.environ['RANK']} {path.name}\\n")
    write(path, *arguments)
run_dir.write_record = counted
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
    heads = [line.partition(":")[0] for line in two[1].stdout.splitlines()]
    assert heads == [
        "data",
        "vqvae",
        "prior",
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


def test_two_processes_reach_the_figures_of_one(one, two):
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
