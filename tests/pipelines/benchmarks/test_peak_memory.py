"""Peak memory of a call: that of what it allocates, in a process of its own."""

import importlib
import sys

import pytest

from pipelines.benchmarks.peak_memory import memory_of

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peaks fall on Linux only")

MODULE = """
import numpy as np

def ones(megabytes):
    np.ones(200 * 125_000)  # an earlier, higher peak
    return lambda: np.ones(megabytes * 125_000)

def fails():
    raise ValueError("no memory today")
"""


@pytest.fixture
def allocations(tmp_path, monkeypatch):
    """A module that this process and others can import."""
    (tmp_path / "allocations.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    yield importlib.import_module("allocations")
    del sys.modules["allocations"]


@linux
@pytest.mark.parametrize("megabytes", [64, 128])
def test_rise_is_that_of_the_array(megabytes, allocations):
    rise = memory_of(allocations.ones, megabytes)
    assert abs(rise - megabytes) < 8  # what the interpreter takes and gives back meanwhile


def test_failing_process_is_said(allocations):
    with pytest.raises(RuntimeError, match="memory could not be measured"):
        memory_of(allocations.fails)
