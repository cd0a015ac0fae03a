"""Numbers as text: significant digits, standard deviations, units and times."""

from __future__ import annotations

import math
import re

_MAX_DECIMALS = 6
_NO_BREAK = "\u00a0"


def format_number(value: float, digits: int = 4) -> str:
    """Formats a number with `digits` significant digits: `24.75`, `9,500`, `0.402`, `1e-06`.

    The digits before the decimal point are all kept, without trailing zeros behind it. Numbers
    below 1e-4 and from 1e7 on have an exponent.
    """
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e7:  # also inf and nan
        return f"{value:.{digits}g}"
    written = f"{value:,.{_decimals(value, digits)}f}"
    return written.rstrip("0").rstrip(".") if "." in written else written


def format_with_std(value: float, std: float | None) -> str:
    """Formats `8.03 ± 0.12`, both to two significant digits of the standard deviation.

    A standard deviation that is None or not finite is left out. One that is 0, or a rounding error
    of equal values, is `0`.
    """
    if std is None or not (math.isfinite(std) and math.isfinite(value)):
        return format_number(value)
    if std == 0 or std < 1e-9 * abs(value):
        return f"{format_number(value)} ± 0"
    decimals = _decimals(std, 2)
    return f"{value:,.{decimals}f} ± {std:,.{decimals}f}"


def join_unit(value: str, unit: str) -> str:
    """Joins a number and its unit: `24.75 dB`, `95%`."""
    return value + ("" if unit in ("", "%") else " ") + unit


def format_size(*sides: int) -> str:
    """Joins sides by multiplication signs."""
    return "\u00d7".join(map(str, sides))


def format_duration(seconds: float) -> str:
    """Formats `48 s`, `3 min 58 s`, `1 h 04 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def typeset(number: str) -> str:
    """Replaces minus and infinity by their signs, and the spaces in and after a number.

    No line breaks at the new spaces. Other spaces, as in `bits per image`, stay.
    """
    number = number.replace("-", "\u2212").replace("inf", "∞").replace("nan", "not a number")
    return re.sub(r"(?<=[\d∞±]) | (?=±)", _NO_BREAK, number)


def _decimals(value: float, digits: int) -> int:
    """Counts the decimals that show `digits` significant digits of a number other than 0."""
    return min(_MAX_DECIMALS, max(0, digits - 1 - math.floor(math.log10(abs(value)))))
