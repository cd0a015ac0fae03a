"""Temperatures that fall over training."""

from __future__ import annotations


def annealed_temperature(start: float, end: float, fraction: float) -> float:
    """start^(1 - t) end^t: falls geometrically from `start` at t = 0 to `end` at t = 1."""
    return float(start ** (1 - fraction) * end**fraction)
