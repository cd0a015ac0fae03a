"""Range checks that the config dataclasses share."""

from __future__ import annotations


def require(holds: bool, name: str, requirement: str, value: object) -> None:
    """Raises a ValueError that names an option, what it must be and what it is, unless `holds`."""
    if not holds:
        raise ValueError(f"{name} must be {requirement}, got {value}")


def require_between(name: str, value: int, least: int, most: int) -> None:
    """Raises a ValueError unless `value` is in [least, most]."""
    require(value >= least, name, f"at least {least}", value)
    require(value <= most, name, f"at most {most:,}", value)
