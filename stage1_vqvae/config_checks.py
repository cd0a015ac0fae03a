"""Refusing impossible settings: the rule, what came. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any


def require(holds: bool, name: str, requirement: str, value: object) -> None:
    """Refuses a value with the rule it breaks.

    Raises:
        ValueError: `holds` is False.
    """
    if not holds:
        raise ValueError(f"{name} must be {requirement}, got {value}")


def require_directions(unit_length: bool, codebook_dim: int, name: str = "cosine") -> None:
    """Refuses codes of unit length in one dimension.

    Raises:
        ValueError: There are only two directions.
    """
    require(
        not (unit_length and codebook_dim == 1),
        "codebook_dim",
        f"at least 2 with {name}=True (one dimension has only two directions)",
        codebook_dim,
    )


def require_temperatures(start: float, end: float) -> None:
    """Refuses temperatures that are not positive or that rise.

    Raises:
        ValueError: They are not positive, or `end` is above `start`.
    """
    require(0 < start < math.inf, "temperature", "above 0", start)
    require(0 < end <= start, "final_temperature", f"above 0, at most temperature={start}", end)


def require_fields(cls: type[Any], values: Mapping[str, Any]) -> None:
    """Refuses a saved config with other fields than the class has.

    Raises:
        ValueError: A field is missing or unknown.
    """
    expected = {f.name for f in fields(cls)}
    if expected != values.keys():
        raise ValueError(
            f"a {cls.__name__} must have exactly the fields it was saved with, but "
            f"{sorted(expected ^ values.keys())} are missing or unknown: "
            "the config is of another version"
        )
