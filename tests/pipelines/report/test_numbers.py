"""Numbers as people read them."""

import math

import pytest

from pipelines.report.numbers import by, duration, format_with_std, joined, number


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (24.748348, "24.75"),
        (9500, "9,500"),
        (123456.7, "123,457"),
        (0.0132978, "0.0133"),
        (24.7, "24.7"),
        (441.0, "441"),
        (0, "0"),
        (-1.5, "\u22121.5"),
        (1e-5, "0.00001"),
        (1e-9, "1e\u221209"),
        (math.inf, "\u221e"),
        (-math.inf, "\u2212\u221e"),
        (math.nan, "not a number"),
    ],
)
def test_number_has_four_significant_digits(value, written):
    assert number(value) == written


@pytest.mark.parametrize(
    ("value", "std", "written"),
    [
        (8.0312, 0.1234, "8.03\u00a0\u00b1\u00a00.12"),
        (84.4, 0.31, "84.40\u00a0\u00b1\u00a00.31"),
        (1234.5, 56.7, "1,234\u00a0\u00b1\u00a057"),
        (8.0312, None, "8.031"),
        (8.0312, 0.0, "8.031\u00a0\u00b1\u00a00"),
        (0.1, 1.7e-17, "0.1\u00a0\u00b1\u00a00"),
        (8.0312, math.nan, "8.031"),
    ],
)
def test_value_is_rounded_to_two_digits_of_its_spread(value, std, written):
    assert format_with_std(value, std) == written


def test_unit_stands_apart_except_for_percent():
    assert [joined("5", unit) for unit in ("dB", "%", "")] == ["5\u00a0dB", "5%", "5"]


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0.94, "0.9 s"),
        (48.2, "48 s"),
        (119.6, "2 min 00 s"),
        (238, "3 min 58 s"),
        (3840, "64 min 00 s"),
        (7440, "2 h 04 min"),
    ],
)
def test_duration_is_in_units_that_fit(seconds, written):
    assert duration(seconds) == written


def test_sides_are_joined_by_a_multiplication_sign():
    assert by(28, 30) == "28\u00d730"
