"""Checks of settings, with messages that name the rule and the value. Imports no torch."""

from __future__ import annotations

import math

# Far above what anyone trains, but low enough that a config from a stranger can neither keep the
# construction of its model busy nor overflow the size of a tensor.
MAX_LAYERS = 256
MAX_WIDTH = 1 << 16
MAX_CODEBOOK_DIM = 1 << 12  # SimVQ starts from an orthogonal matrix, which takes D^3
MAX_CODEBOOK_SIZE = 1 << 24  # float32, in which the search ranks the codes, counts exactly so far
MAX_GRIDS = 256
MAX_BATCHES = 1_000_000
MAX_CLASSES = 1 << 24
MAX_SIDE = 1 << 16  # of an image; also channels
MAX_POSITIONS = 1 << 18  # of a code grid


def require(holds: bool, name: str, requirement: str, value: object) -> None:
    """Raises a ValueError that names an option, what it must be and what it is, unless `holds`."""
    if not holds:
        raise ValueError(f"{name} must be {requirement}, got {value}")


def require_between(name: str, value: int, least: int, most: int) -> None:
    """Raises a ValueError unless `value` is in [least, most]."""
    require(value >= least, name, f"at least {least}", value)
    require(value <= most, name, f"at most {most:,}", value)


def require_at_least_zero(config: object, *names: str) -> None:
    """Raises a ValueError unless these fields of `config` are at least 0."""
    for name in names:
        require(getattr(config, name) >= 0, name, "at least 0", getattr(config, name))


def require_above_zero(config: object, *names: str) -> None:
    """Raises a ValueError unless these fields of `config` are above 0."""
    for name in names:
        require(getattr(config, name) > 0, name, "above 0", getattr(config, name))


def require_directions(unit_length: bool, codebook_dim: int, name: str = "cosine") -> None:
    """Raises a ValueError unless codes of unit length have more than one dimension."""
    requirement = f"at least 2 with {name}=True (one dimension has only two directions)"
    require(not unit_length or codebook_dim > 1, "codebook_dim", requirement, codebook_dim)


def require_temperatures(start: float, end: float) -> None:
    """Raises a ValueError unless temperatures are positive, finite and do not rise."""
    require(0 < start < math.inf, "temperature", "above 0", start)
    require(0 < end <= start, "final_temperature", f"above 0, at most temperature={start}", end)
