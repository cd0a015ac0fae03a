"""Timing of calls."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Timing:
    """Seconds of one call."""

    median: float
    fastest: float
    slowest: float

    def per_second(self, things: int) -> str:
        """Formats rates of `things` per call, as `1,050 (980 to 1,100)`."""
        rates = (things / self.median, things / self.slowest, things / self.fastest)
        return "{:,.0f} ({:,.0f} to {:,.0f})".format(*rates)

    def milliseconds(self) -> str:
        """Formats milliseconds, as `4.1 (4.0 to 4.9)`."""
        times = (self.median, self.fastest, self.slowest)
        return "{:.2f} ({:.2f} to {:.2f})".format(*(1000 * t for t in times))


def measure(call: Callable[[], object], repetitions: int, device: torch.device) -> Timing:
    """Times `call` after one run that is not counted."""

    def finish() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    call()
    seconds = []
    for _ in range(repetitions):
        finish()
        start = time.perf_counter()
        call()
        finish()
        seconds.append(time.perf_counter() - start)
    return Timing(statistics.median(seconds), min(seconds), max(seconds))
