"""Runs that are killed at random moments and resumed end as if nothing had happened.

A hundred kills: `KILLS=100 pytest tests/pipelines/test_kills.py -s`.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import pytest
from tiny_runs import TINY, contents, environment, tree

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX"),
]

KILLS = int(os.environ.get("KILLS", "6"))
KILLS_OF_ONE_RUN = 4
PATIENCE = 120
OPTIONS = (*TINY, "--data.limit", "200")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def start(run, processes):
    """`train_all --resume` as a new process group; it begins where there is nothing yet."""
    launcher = (*TORCHRUN, "--") if processes > 1 else ()
    arguments = ("-m", "pipelines.train_all", *OPTIONS, "--resume", "--out", str(run))
    return subprocess.Popen(
        [sys.executable, *launcher, *arguments],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process):
    """Waits for the end; gives what was printed to stderr."""
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    return errors


def results(run):
    """All names, and all content that does not depend on time."""
    files, rows = contents(run)
    names = [name for name in tree(run) if not name.startswith("tensorboard/")]
    return names, {n: c for n, c in files.items() if not n.startswith("tensorboard/")}, rows


def workers(process):
    """Process numbers of the ranks that torchrun started."""
    # Its status is 1 where there are none yet.
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.pid)],
        capture_output=True,
        text=True,
        check=False,
    )
    return [int(number) for number in children.stdout.split()]


def kill(process, rng, processes):
    """SIGKILL to all, or to one of several ranks; gives what was printed to stderr."""
    ranks = workers(process) if processes > 1 else []
    if ranks and rng.random() < 0.5:
        os.kill(rng.choice(ranks), signal.SIGKILL)
        _, errors = process.communicate(timeout=PATIENCE)
    else:
        os.killpg(process.pid, signal.SIGKILL)
        _, errors = process.communicate()
    return errors


@pytest.mark.parametrize("processes", [1, 2])
def test_killed_and_resumed_runs_equal_an_uninterrupted_one(tmp_path, processes):
    began = time.monotonic()
    finish(start(tmp_path / "reference", processes))
    seconds = time.monotonic() - began
    expected = results(tmp_path / "reference")
    rng, kills, trial = random.Random(processes), 0, 0
    while kills < KILLS // 2:
        trial += 1
        run = tmp_path / f"run-{trial}"
        for _ in range(min(KILLS_OF_ONE_RUN, KILLS // 2 - kills)):
            process = start(run, processes)
            try:
                process.wait(rng.uniform(0, seconds))
            except subprocess.TimeoutExpired:
                kills += 1
                errors = kill(process, rng, processes)
                assert "Traceback (most recent call last)" not in errors, errors
            else:
                finish(process)
                break
        errors = finish(start(run, processes))
        assert "Traceback (most recent call last)" not in errors, errors
        assert results(run) == expected
