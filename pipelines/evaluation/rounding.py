"""How many digits of a metric its std lets one believe."""

from __future__ import annotations

import math

MAX_DECIMALS = 6


def decimals_for(value: float, digits: int) -> int:
    """Decimals that give `value` so many significant digits, at most `MAX_DECIMALS`."""
    if value == 0:
        return 0
    return min(MAX_DECIMALS, max(0, digits - 1 - math.floor(math.log10(abs(value)))))


def rounded_to_std(value: float, std: float) -> tuple[str, str] | None:
    """Both to two digits of the std, e.g. `8.03` and `0.12`.

    Both must be finite. None where the std says nothing of digits: it is zero, or what rounding
    makes of equal values.
    """
    assert math.isfinite(value)
    assert math.isfinite(std)
    if std == 0 or std < 1e-9 * abs(value):
        return None
    decimals = decimals_for(std, 2)
    return f"{value:,.{decimals}f}", f"{std:,.{decimals}f}"
