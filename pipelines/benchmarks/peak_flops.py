"""Floating-point operations per second that a device can do."""

from __future__ import annotations

from functools import partial

import torch

from pipelines.benchmarks.timing import measure
from pipelines.training.precision import Precision

_SIDE, _SIDE_ON_GPU = 1024, 8192


def peak_flops(precision: Precision, device: torch.device, repetitions: int) -> float:
    """Measures those per second of a large product of square matrices, in a training's precision.

    What the device does at best, rather than what its maker promises.
    """
    side = _SIDE if device.type == "cpu" else _SIDE_ON_GPU
    dtype = torch.bfloat16 if precision.name == "bf16" else torch.float32
    a, b = torch.randn(2, side, side, device=device).to(dtype)
    seconds = measure(partial(torch.mm, a, b), repetitions, device).median
    return float(2 * side**3 / seconds)
