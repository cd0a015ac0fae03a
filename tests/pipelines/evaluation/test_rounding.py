"""Digits of a metric, against decimal arithmetic and by hand."""

from decimal import Decimal

import pytest

from pipelines.evaluation.rounding import decimals_for, rounded_to_std


@pytest.mark.parametrize("digits", [1, 2, 4])
@pytest.mark.parametrize("value", [0.000123, -0.0456, 0.9, 1.0, 9.99, -123.4, 5e7])
def test_decimals_give_so_many_significant_digits(value, digits):
    # The exponent of the leading digit, as decimal arithmetic has it.
    expected = digits - 1 - Decimal(repr(value)).adjusted()
    assert decimals_for(value, digits) == max(0, min(6, expected))


@pytest.mark.parametrize(
    ("value", "std", "written"),
    [
        (8.0312, 0.1234, ("8.03", "0.12")),
        (1234.5, 56.7, ("1,234", "57")),
        (-0.0131, 0.019, ("-0.013", "0.019")),
        (0.5, 2.5e-9, ("0.500000", "0.000000")),
        (0.0, 0.25, ("0.00", "0.25")),
        (3.0, 0.0, None),
        (0.0, 0.0, None),
        (1e6, 1e-4, None),
    ],
)
def test_both_have_two_digits_of_a_spread_that_says_something(value, std, written):
    assert rounded_to_std(value, std) == written
