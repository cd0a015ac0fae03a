"""How many digits of a figure its spread lets one believe."""

from __future__ import annotations

import math

MAX_DECIMALS = 6


def decimals_for(value: float, digits: int) -> int:
    """Decimals that give `value` so many significant digits, at most `MAX_DECIMALS`."""
    if value == 0:
        return 0
    return min(MAX_DECIMALS, max(0, digits - 1 - math.floor(math.log10(abs(value)))))


def rounded_to_spread(value: float, spread: float) -> tuple[str, str] | None:
    """Both to two digits of the spread, e.g. `8.03` and `0.12`.

    Both must be finite. None where the spread says nothing of digits: it is zero, or what rounding
    makes of equal values.
    """
    assert math.isfinite(value)
    assert math.isfinite(spread)
    if spread == 0 or spread < 1e-9 * abs(value):
        return None
    decimals = decimals_for(spread, 2)
    return f"{value:,.{decimals}f}", f"{spread:,.{decimals}f}"
