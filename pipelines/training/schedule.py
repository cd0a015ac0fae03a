"""Learning rate schedule."""

from __future__ import annotations

import math


def learning_rate_factor(
    step: int, *, total_steps: int, warmup_fraction: float, final_factor: float
) -> float:
    """Computes the share of the peak learning rate at optimizer step `step`.

    Linear warm-up (Goyal et al. 2017, section 2.2), then half a cosine (Loshchilov and Hutter
    2017, equation 5), with w warm-up steps of T in all:

        (step + 1) / w                                            step < w
        f + (1 - f) (1 + cos(pi (step - w) / (T - w))) / 2        step >= w

    The first step is not lost to a rate of zero, and neither is the last: the cosine would reach
    f one step after the end.

    Args:
        step: 0 for the first optimizer step, in [0, total_steps).
        total_steps: T, at least 1.
        warmup_fraction: W / T in [0, 1]; w is rounded to whole steps.
        final_factor: F in [0, 1].

    Returns:
        A factor in [0, 1].
    """
    warmup_steps = round(warmup_fraction * total_steps)
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    position = (step - warmup_steps) / (total_steps - warmup_steps)
    return final_factor + (1 - final_factor) * (1 + math.cos(math.pi * position)) / 2
