"""Running the commands inside the test's process, on models of a few weights."""

import importlib
import json
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.cli.command import run_command
from pipelines.runs.kinds import recipe_defaults
from pipelines.runs.options import TrainOptions, read_train_options
from pipelines.training.metrics_log import MetricsLog, read_metrics

TINY = (
    *("--recipe", "smoke", "--device", "cpu", "--data.validation-fraction", "0.05"),
    *("--vqvae.width", "8", "--vqvae.fine-width", "4", "--vqvae.num-layers", "1"),
    *("--vqvae.quantizer.codebook-size", "8", "--vqvae.quantizer.codebook-dim", "4"),
    *("--vqvae-training.batch-size", "8", "--vqvae-training.epochs", "1.5"),
    *("--vqvae-training.precision", "fp32", "--vqvae-training.checkpoint-every", "3"),
    *("--prior.num-layers", "1", "--prior.width", "8"),
    *("--prior-training.batch-size", "8", "--prior-training.epochs", "1.5"),
    *("--prior-training.precision", "fp32", "--prior-training.checkpoint-every", "3"),
)
"""Options of a run of about ten steps in each stage."""


class KilledError(BaseException):
    """Stands for a kill: nothing in the code under test catches it."""


def kill_at(monkeypatch, owner, name, call, error=KilledError):
    """Makes the `call`-th call of `owner.name` raise `error`."""
    real, calls = getattr(owner, name), []

    def failing(*arguments, **keywords):
        calls.append(name)
        if len(calls) == call:
            raise error
        return real(*arguments, **keywords)

    monkeypatch.setattr(owner, name, failing)


def train_options():
    """The options of `train_vqvae` for the command line in `sys.argv`."""
    return read_train_options(TrainOptions(run=recipe_defaults(sys.argv[1:])), "")


def command(name, *arguments):
    """`python -m pipelines.NAME ARGUMENTS`; its errors come out as the exceptions they are."""
    module = importlib.import_module(f"pipelines.{name}")
    argv = [f"{name}.py", *map(str, arguments)]
    # TensorBoard takes seconds to import, and has tests of its own.
    with (
        one_thread(),
        mock.patch.object(sys, "argv", argv),
        mock.patch.object(MetricsLog, "_writer", return_value=None),
    ):
        module.main()


@contextmanager
def one_thread():
    """So little work is done sooner by one thread, above all where other programs are busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def status(name, *arguments):
    """The exit status of `python -m pipelines.NAME ARGUMENTS`."""
    with pytest.raises(SystemExit) as leaving:
        run_command(lambda: command(name, *arguments))
    return leaving.value.code


def environment():
    """Of a new Python that finds the packages and the modules beside this file."""
    here = Path(__file__).resolve()
    found = os.pathsep.join([str(here.parents[2]), str(here.parent)])
    return os.environ | {"PYTHONPATH": found, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}


def python(*arguments, **options):
    """Runs a new Python to its end, or for two minutes."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **options,
    )


def tree(directory):
    """Every path below `directory`, to see that nothing was added or lost."""
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def contents(run):
    """What must not depend on interruptions: every file by its bytes, without timings."""
    files = {
        str(path.relative_to(run)): path.read_bytes()
        for path in sorted(run.rglob("*"))
        if path.is_file() and path.name not in ("metrics.jsonl", "state.json", "report.html")
    }
    return files, rows_without_time(run)


def rows_without_time(run):
    """The lines of a run's metrics, without the seconds they took."""
    rows = read_metrics(run / "metrics.jsonl")
    return [replace(row, seconds=0.0) for row in rows]


def write_metrics(run, rows):
    """Replaces the lines of a run's metrics."""
    (run / "metrics.jsonl").unlink()
    for row in rows:
        MetricsLog(run / "metrics.jsonl").write(row)


def pixels(path):
    """The RGB pixels of a picture, uint8 (C, H, W)."""
    with Image.open(path) as image:
        return np.asarray(image).transpose(2, 0, 1)


def edit_json(path, change):
    """Rewrites a JSON file after `change` has changed its content in place."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
