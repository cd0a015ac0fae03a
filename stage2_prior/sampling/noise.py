"""Random numbers addressed by (seed, sample, position) instead of drawn from a stream.

A sample is then the same whichever other samples are drawn with it, in whatever batches, on
whatever device or machine.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Constants of splitmix64 (Steele, Lea, Flood 2014), as signed 64-bit integers.
_GOLDEN_GAMMA = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX_2 = 0x94D049BB133111EB - (1 << 64)


@dataclass(frozen=True)
class AddressedNoise:
    """The random numbers of a batch, in blocks of one per code.

    A code drawn once takes its number from block 0, whenever its turn comes.
    """

    seed: int
    """In [0, 2^63)."""
    samples: Tensor
    """int64 (B,), the indices of the samples."""
    num_codes: int
    """L."""

    def block(self, number: int) -> Tensor:
        """Returns the numbers addressed from number * L on: float64 (B, L) in [0, 1)."""
        first = number * self.num_codes
        return addressed_uniform(self.seed, self.samples, self.num_codes, first_position=first)


def addressed_uniform(
    seed: int, samples: Tensor, num_positions: int, first_position: int = 0
) -> Tensor:
    """Returns uniform random numbers in [0, 1), one per sample and position.

    With g and the bijection m of splitmix64, on unsigned 64-bit integers:

        u(seed, sample, position) = (m((m((m(seed + g) ^ sample) + g) ^ position) + g) >> 11) / 2^53

    Args:
        seed: Any integer in [0, 2^63).
        samples: int64 (B,), the indices of the samples.
        num_positions: L.
        first_position: The position of the first column.

    Returns:
        float64 (B, L); an entry depends on (seed, sample, position) alone.
    """
    end = first_position + num_positions
    positions = torch.arange(first_position, end, device=samples.device)
    state = _mix(torch.full_like(samples, seed) + _GOLDEN_GAMMA)
    state = _mix((state ^ samples) + _GOLDEN_GAMMA)
    bits = _mix((state[:, None] ^ positions) + _GOLDEN_GAMMA)  # (B, L)
    return _shift_right(bits, 11).double() * 2.0**-53


def _mix(x: Tensor) -> Tensor:
    """Computes splitmix64's output function, a bijection of 64 bits that scatters neighbours."""
    x = (x ^ _shift_right(x, 30)) * _MIX_1
    x = (x ^ _shift_right(x, 27)) * _MIX_2
    return x ^ _shift_right(x, 31)


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical shift: torch's own keeps the sign of an int64."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
