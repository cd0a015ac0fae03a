"""Where a process of a run fails, dies or hangs, or is unlike the others, all of them say so."""

import re
import sys
from pathlib import Path

import pytest
from processes import errors_of, start
from tiny_runs import python

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX"),
]
SCRIPT = Path(__file__).with_name("lost_processes.py")


def survivors(mode, size, lost):
    """What is said by the other processes, which must all end with status 1."""
    processes = start([[SCRIPT, mode]] * size)
    others = [process for rank, process in enumerate(processes) if rank != lost]
    errors = errors_of(others)
    processes[lost].kill()
    processes[lost].communicate()
    assert [process.returncode for process in others] == [1] * len(others)
    return errors


@pytest.mark.parametrize(
    ("mode", "lost", "message"),
    [
        ("die", 2, r"rank 2 \(on .*\) has ended .*--resume"),
        ("main dies", 0, r"rank 0 \(on .*\) has ended .*--resume"),
        ("hang", 2, r"rank 2 \(on .*\) has not answered for 3 seconds.*--resume"),
        ("main hangs", 0, r"rank 0 \(on .*\) has not answered for 3 seconds.*--resume"),
        ("fail", 2, r"rank 2 \(on .*\) ended \(the image folder photos .*\).*--resume"),
    ],
)
def test_the_others_name_the_process_that_is_lost(mode, lost, message):
    for error in survivors(mode, 3, lost):
        assert re.fullmatch(f"error: {message}\n", error)


def test_under_torchrun_the_others_name_the_process_that_is_lost():
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    ended = python(*launcher, SCRIPT, "die while others compute")
    assert ended.returncode == 1
    assert re.search(r"^error: rank 1 \(on .*\) has ended .*--resume$", ended.stderr, re.MULTILINE)
    assert "gloo" not in ended.stderr


def test_all_are_told_to_stop_where_one_is():
    processes = start([[SCRIPT, "terminate"]] * 2)
    for error in errors_of(processes):
        assert re.fullmatch(r"error: the run was told to stop \(SIGTERM\).*--resume\n", error)
    assert [process.returncode for process in processes] == [1, 1]


def test_a_process_may_work_longer_than_a_process_may_be_silent():
    processes = start([[SCRIPT, "be busy"]] * 2)
    assert errors_of(processes) == ["", ""]
    assert [process.returncode for process in processes] == [0, 0]


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("fail on main", "missing: No such file or directory"),
        ("lose the network", r"cannot be reached \(no route to host\): .*--resume"),
        ("differ", r"data\.limit, which is 300 on rank 1 \(.*\) and 600 on rank 0"),
        ("old torch", r"torch, which is '2\.9\.0' on rank 1 \(.*\) and '.*' on rank 0"),
    ],
)
def test_all_end_with_the_same_sentence(mode, message):
    processes = start([[SCRIPT, mode]] * 2)
    first, second = errors_of(processes)
    assert [process.returncode for process in processes] == [1, 1]
    assert first == second
    assert re.fullmatch(f"error: .*{message}.*\n", first)


def test_a_directory_that_is_not_shared_is_refused_and_left_as_it_was(tmp_path):
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    processes = start([[SCRIPT, "share"]] * 2, folders)
    first, second = errors_of(processes)
    assert [process.returncode for process in processes] == [1, 1]
    assert first == second
    assert f"{folders[1]}/runs/a" in first
    assert f"{folders[0]}/runs/a" in first
    assert [list(folder.iterdir()) for folder in folders] == [[], []]


def test_a_directory_that_is_shared_is_left_as_it_was(tmp_path):
    processes = start([[SCRIPT, "share"]] * 2, [tmp_path] * 2)
    assert errors_of(processes) == ["", ""]
    assert list(tmp_path.iterdir()) == []
