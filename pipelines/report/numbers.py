"""Numbers as people read them."""

from __future__ import annotations

import math

from pipelines.evaluation.record import Metric
from pipelines.evaluation.rounding import MAX_DECIMALS, decimals_for, rounded_to_std

PLUS_MINUS = "\u00a0\u00b1\u00a0"
"""Between a value and its std; no line breaks there."""
_MINUS, _TIMES = "\u2212", "\u00d7"


def number(value: float, digits: int = 4) -> str:
    """`24.75`, `9,500`, `0.402`: `digits` significant digits, all digits of larger numbers."""
    if not math.isfinite(value):
        return {math.inf: "∞", -math.inf: _MINUS + "∞"}.get(value, "not a number")
    if 0 < abs(value) < 10**-MAX_DECIMALS:
        return _minus(f"{value:.{digits}g}")
    written = f"{value:,.{decimals_for(value, digits)}f}"
    return _minus(written.rstrip("0").rstrip(".") if "." in written else written)


def format_with_std(value: float, std: float | None) -> str:
    """`8.03 ± 0.12` on one line: to two digits of the std, to four where there is none."""
    if std is None or not (math.isfinite(std) and math.isfinite(value)):
        return number(value)
    rounded = rounded_to_std(value, std)
    if rounded is None:
        return f"{number(value)}{PLUS_MINUS}0"
    return _minus(PLUS_MINUS.join(rounded))


def with_unit(metric: Metric) -> str:
    """A metric's value, std and unit."""
    return joined(format_with_std(metric.value, metric.std), metric.unit)


def joined(value: str, unit: str) -> str:
    """A number and its unit, a space between them that does not break; none before `%`."""
    return value + ("" if unit in ("", "%") else "\u00a0") + unit


def by(*sides: int) -> str:
    """Sides with a multiplication sign between them: height, width."""
    return _TIMES.join(map(str, sides))


def duration(seconds: float) -> str:
    """`48 s`, `3 min 58 s`, `1 h 04 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _minus(written: str) -> str:
    return written.replace("-", _MINUS)
