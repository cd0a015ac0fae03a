import math
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stage1_vqvae.quantizers.levels import balanced_levels


@cache
def fewest_levels(size):
    """How many factors in 2..8 `size` needs and the sum of their squares, by trying all.

    None where it is no such product.
    """
    if size == 1:
        return 0, 0
    rests = [(level, fewest_levels(size // level)) for level in range(2, 9) if size % level == 0]
    found = [(rest[0] + 1, rest[1] + level**2) for level, rest in rests if rest]
    return min(found, default=None)


def count_and_squares(size):
    """The same of `balanced_levels`."""
    try:
        levels = balanced_levels(size)
    except ValueError:
        return None
    assert math.prod(levels) == size
    return len(levels), sum(level**2 for level in levels)


def test_balanced_levels_are_as_few_and_as_equal_as_can_be():
    sizes = range(2, 5001)
    wrong = {size for size in sizes if count_and_squares(size) != fewest_levels(size)}
    assert not wrong


def test_balanced_levels_of_a_huge_size_are_found_at_once():
    # 40 sixes take all threes and 20 of the twos are left: seven levels. A search has no end.
    levels = balanced_levels(2**60 * 3**40 * 5**25 * 7**20)
    assert math.prod(levels) == 2**60 * 3**40 * 5**25 * 7**20
    assert len(levels) == 40 + 7 + 25 + 20


@given(st.lists(st.integers(2, 8), min_size=1, max_size=12))
@settings(deadline=None, max_examples=60)
def test_balanced_levels_of_any_product_are_levels_in_descending_order(factors):
    levels = balanced_levels(math.prod(factors))
    assert math.prod(levels) == math.prod(factors)
    assert len(levels) <= len(factors)
    assert all(2 <= level <= 8 for level in levels)
    assert list(levels) == sorted(levels, reverse=True)


@pytest.mark.parametrize("size", [0, 1, -8, 11, 22, 997, 2 * 3 * 5 * 7 * 11])
def test_balanced_levels_of_what_is_no_product_are_refused(size):
    with pytest.raises(
        ValueError, match=f"product of levels from 2 to 8, got {size}: take another"
    ):
        balanced_levels(size)
