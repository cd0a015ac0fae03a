"""Floating-point operations: how many a training takes, and how many a device can do."""

from __future__ import annotations

from functools import partial

import torch
from torch.utils.flop_counter import FlopCounterMode

from pipelines.benchmarks.timing import measure
from pipelines.training.batches import BatchPlan
from pipelines.training.precision import Precision
from pipelines.training.task import Task

_SIDE, _SIDE_ON_GPU = 1024, 8192


def flops_per_example(task: Task, device: torch.device, batch_size: int) -> float:
    """Counts those of a forward and backward pass, per example, in products and convolutions.

    A multiplication and an addition are two. Neither the optimizer's are counted, nor what is done
    element by element.
    """
    batch = next(task.batches(BatchPlan(seed=0, batch_size=batch_size), device))
    with FlopCounterMode(display=False) as counter:
        for loss in task.objective(*batch).losses.values():
            loss.backward()
    task.objective.zero_grad()
    total: int = counter.get_total_flops()
    return total / batch_size


def peak_flops(precision: Precision, device: torch.device, repetitions: int) -> float:
    """Measures those per second of a large product of square matrices, in a training's precision.

    What the device does at best, rather than what its maker promises.
    """
    side = _SIDE if device.type == "cpu" else _SIDE_ON_GPU
    dtype = torch.bfloat16 if precision.name == "bf16" else torch.float32
    a, b = torch.randn(2, side, side, device=device).to(dtype)
    seconds = measure(partial(torch.mm, a, b), repetitions, device).median
    return float(2 * side**3 / seconds)
