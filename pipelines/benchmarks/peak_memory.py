"""Peak memory of a call, measured in a process of its own.

The peak of a process never falls, and its libraries take memory when they are first used. So a new
process prepares, does the call once on little, forgets its peak, and then does what is measured.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

_PROGRAM = """
import sys
from importlib import import_module
from pipelines.benchmarks.peak_memory import rise_of_peak

module, name, *numbers = sys.argv[1:]
print(rise_of_peak(getattr(import_module(module), name)(*map(int, numbers))))
"""


def memory_of(prepare: Callable[..., Callable[[], object]], *numbers: int) -> float:
    """Measures the megabytes by which the peak of a new process rises in a call.

    `prepare`, a function of a module, returns the call from `numbers`. Its own allocations do not
    count.
    """
    arguments = [prepare.__module__, prepare.__name__, *map(str, numbers)]
    result = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *arguments], capture_output=True, text=True, check=False
    )
    if result.returncode:
        raise RuntimeError(f"memory could not be measured: {result.stderr}")
    return float(result.stdout)


def rise_of_peak(call: Callable[[], object]) -> float:
    """Measures the megabytes by which this process's peak rises in a call."""
    _forget_peak()
    before = _peak()
    call()
    return _peak() - before


def _peak() -> float:
    """Returns the peak memory in megabytes.

    On Linux not from getrusage, which counts the parent's memory.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text(encoding="utf-8").split("VmHWM:")[1].split()[0]) / 1e3
    import resource

    unit = 1e6 if sys.platform == "darwin" else 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _forget_peak() -> None:
    """Resets the recorded peak; on Linux only."""
    references = Path("/proc/self/clear_refs")
    if references.exists():
        references.write_text("5", encoding="utf-8")
