"""Peak memory of a call: that of what it allocates, in this process or in one of its own."""

import sys

import numpy as np
import pytest

from pipelines.peak_memory import memory_of, rise_of_peak

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peaks fall on Linux only")


@linux
@pytest.mark.parametrize("megabytes", [64, 128])
def test_rise_is_that_of_the_array(megabytes):
    np.ones(200 * 125_000)  # an earlier, higher peak
    rise = rise_of_peak(lambda: np.ones(megabytes * 125_000))
    assert abs(rise - megabytes) < 8  # what the interpreter takes and gives back meanwhile


def fails():
    """Is not in a module that another process could import."""


def test_failing_process_is_said():
    with pytest.raises(RuntimeError, match="memory could not be measured"):
        memory_of(fails)
