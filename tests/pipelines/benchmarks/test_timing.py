"""Timing of calls, on a clock of known times."""

import time

import torch

from pipelines.benchmarks.timing import Timing, measure


def test_timing_gives_rates_slowest_to_fastest():
    assert Timing(0.5, 0.25, 1.0).per_second(100) == "200 (100 to 400)"


def test_timing_gives_milliseconds_fastest_to_slowest():
    assert Timing(0.5, 0.25, 1.0).milliseconds() == "500.00 (250.00 to 1000.00)"


def test_measure_leaves_the_first_call_out_and_takes_the_median(monkeypatch):
    clock = iter([0.0, 5.0, 10.0, 11.0, 20.0, 23.0])  # three calls: 5, 1 and 3 seconds
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    calls = []
    timing = measure(lambda: calls.append(1), 3, torch.device("cpu"))
    assert len(calls) == 4
    assert timing == Timing(median=3.0, fastest=1.0, slowest=5.0)
