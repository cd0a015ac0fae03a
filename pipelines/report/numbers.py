"""Numbers as people read them."""

from __future__ import annotations

import math

from pipelines.evaluation.evaluation_record import Figure

PLUS_MINUS = "\u00a0\u00b1\u00a0"
"""Between a value and its spread; no line breaks there."""
_MAX_DECIMALS = 6
_MINUS, _TIMES = "\u2212", "\u00d7"


def number(value: float, digits: int = 4) -> str:
    """`24.75`, `9,500`, `0.402`: `digits` significant digits, all digits of larger numbers."""
    if not math.isfinite(value):
        return {math.inf: "∞", -math.inf: _MINUS + "∞"}.get(value, "not a number")
    if 0 < abs(value) < 10**-_MAX_DECIMALS:
        return _minus(f"{value:.{digits}g}")
    written = f"{value:,.{_decimals(value, digits)}f}"
    return _minus(written.rstrip("0").rstrip(".") if "." in written else written)


def with_spread(value: float, spread: float | None) -> str:
    """`8.03 ± 0.12` on one line: to two digits of the spread, to four where there is none."""
    if spread is None or not (math.isfinite(spread) and math.isfinite(value)):
        return number(value)
    if spread == 0:
        return f"{number(value)}{PLUS_MINUS}0"
    decimals = _decimals(spread, 2)
    return _minus(f"{value:,.{decimals}f}{PLUS_MINUS}{spread:,.{decimals}f}")


def with_unit(figure: Figure) -> str:
    """A figure's value, spread and unit."""
    return joined(with_spread(figure.value, figure.spread), figure.unit)


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


def _decimals(value: float, digits: int) -> int:
    if value == 0:
        return 0
    return min(_MAX_DECIMALS, max(0, digits - 1 - math.floor(math.log10(abs(value)))))


def _minus(written: str) -> str:
    return written.replace("-", _MINUS)
