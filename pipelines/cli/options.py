"""Options that several commands have, and their checks."""

from __future__ import annotations

from typing import Annotated, Any

import tyro

Device = Annotated[
    str,
    tyro.conf.arg(
        help="Where to compute: auto (the first of cuda, mps, cpu), cpu, mps, cuda or cuda:N."
    ),
]
SampleSeed = Annotated[
    int,
    tyro.conf.arg(
        help="Of the samples: same seed, same images, whatever the batch size; in [0, 2^63)."
    ),
]


def check_seed(seed: int) -> None:
    """Makes sure that `seed` is in [0, 2^63)."""
    if not 0 <= seed < 1 << 63:
        raise ValueError(f"seed must be in [0, 2^63), got {seed}")


def require_positive(options: Any, *names: str) -> None:
    """Makes sure that options which count something are at least 1."""
    for name in names:
        if getattr(options, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(options, name)}")
