"""Numbers, standard deviations, units and times as text."""

import math
from decimal import Decimal

import pytest

from pipelines.report.formatting import (
    format_duration,
    format_number,
    format_size,
    format_with_std,
    join_unit,
    typeset,
)


@pytest.mark.parametrize("value", [0.000123, -0.0456, 9.996, 24.748348])
def test_number_has_four_significant_digits(value):
    # Decimal arithmetic: 4 digits from the leading one on, halves do not occur.
    exponent = Decimal(repr(value)).adjusted() - 3
    expected = round(Decimal(repr(value)), -exponent)
    # Not more than 6 decimals.
    assert Decimal(format_number(value)) == pytest.approx(expected, abs=Decimal("5e-7"))


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (9500, "9,500"),
        (123456.7, "123,457"),
        (0.0, "0"),
        (-0.0, "0"),
        (1e-6, "1e-06"),
        (1e7, "1e+07"),
        (-math.inf, "-inf"),
        (math.nan, "nan"),
    ],
)
def test_number_has_separators_and_no_trailing_zeros(value, written):
    assert format_number(value) == written


@pytest.mark.parametrize(
    ("value", "std", "written"),
    [
        (8.0312, 0.1234, "8.03 ± 0.12"),
        (1234.5, 56.7, "1,234 ± 57"),
        (0.5, 2.5e-9, "0.500000 ± 0.000000"),
        (0.1, 1.7e-17, "0.1 ± 0"),
        (8.0312, 0.0, "8.031 ± 0"),
        (8.0312, None, "8.031"),
        (8.0312, math.nan, "8.031"),
        (math.inf, 0.5, "inf"),
    ],
)
def test_value_is_rounded_to_two_digits_of_its_std(value, std, written):
    assert format_with_std(value, std) == written


def test_unit_is_separated_except_for_percent():
    assert [join_unit("5", unit) for unit in ("dB", "%", "")] == ["5 dB", "5%", "5"]


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0.94, "0.9 s"),
        (119.6, "2 min 00 s"),
        (3840, "64 min 00 s"),
        (7440, "2 h 04 min"),
    ],
)
def test_duration_has_units_that_fit(seconds, written):
    assert format_duration(seconds) == written


def test_sides_are_joined_by_a_multiplication_sign():
    assert format_size(28, 30) == "28\u00d730"


def test_typeset_number_has_its_signs_and_breaks_only_within_its_unit():
    assert typeset("-8.03 ± 0.12 bits per code") == (
        "\u22128.03\u00a0±\u00a00.12\u00a0bits per code"
    )
    assert typeset("inf dB") == "∞\u00a0dB"
