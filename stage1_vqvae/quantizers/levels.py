"""Default numbers of levels of finite scalar quantization. Imports no torch."""

from __future__ import annotations


def balanced_levels(codebook_size: int) -> tuple[int, ...]:
    """Returns the fewest factors of `codebook_size` in 2..8, as equal as can be, descending.

    Equal means the smallest sum of squares. Fives and sevens have a level each, and so have threes,
    alone or as sixes. The other twos are spread evenly over levels of 2, 4 and 8. Only the number
    of sixes is free: up to two fewer than there can be may still need as few levels.

    Raises:
        ValueError: It is below 2 or has a prime factor above 7.
    """
    rest, powers = codebook_size, dict.fromkeys((2, 3, 5, 7), 0)
    for prime in powers:
        while rest > 1 and rest % prime == 0:
            rest //= prime
            powers[prime] += 1
    if codebook_size < 2 or rest != 1:
        raise ValueError(
            f"codebook_size must be a product of levels from 2 to 8, got {codebook_size}: take "
            "another size, or name the levels"
        )
    twos, threes = powers[2], powers[3]
    most_sixes = min(twos, threes)
    candidates = [
        [7] * powers[7]
        + [6] * sixes
        + [5] * powers[5]
        + [3] * (threes - sixes)
        + _powers_of_two(twos - sixes)
        for sixes in range(max(0, most_sixes - 2), most_sixes + 1)
    ]
    best = min(candidates, key=lambda levels: (len(levels), sum(level**2 for level in levels)))
    return tuple(sorted(best, reverse=True))


def _powers_of_two(exponent: int) -> list[int]:
    """Returns the fewest levels of 2, 4 and 8 with product 2 ** exponent, as equal as can be."""
    count = -(-exponent // 3)
    return [2 ** ((exponent + i) // count) for i in range(count)]
