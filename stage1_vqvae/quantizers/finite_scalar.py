"""Finite scalar quantization: each dimension is bounded and rounded to a few levels.

Mentzer et al. 2023, "Finite scalar quantization: VQ-VAE made simple" (FSQ).
"""

from __future__ import annotations

import math

import torch
from einops import rearrange
from torch import Tensor

from stage1_vqvae.quantizers.base import Quantizer, QuantizerOutput
from stage1_vqvae.quantizers.config import FiniteScalarConfig
from stage1_vqvae.quantizers.estimators import straight_through

# Widens the tanh a little, so that the outermost levels lie within its range. The authors' code
# narrows it by as much, and shifts by tan(offset / half) instead of atanh.
_MARGIN = 1e-3


class FiniteScalarQuantizer(Quantizer):
    """z_e bounded by a tanh to L_d levels per dimension, rounded, and scaled to [-1, 1].

    The codebook is the grid of all combinations: nothing is learned, and there are no loss terms.
    An even number of levels lies off centre by half a step, and z_e is shifted so that 0 takes the
    middle level, as in the paper's appendix A.1. Two levels have no middle one, and that shift
    would put their boundary at z_e = -3.8, where the tanh is flat: theirs stays at 0, as with
    `preserve_symmetry` of vector-quantize-pytorch. The code is the number whose digits are the
    levels, the first dimension being the least significant.
    """

    levels: Tensor
    """float32 (D,): L."""
    basis: Tensor
    """int64 (D,): the value of a digit, prod of the levels before it."""
    offset: Tensor
    """float32 (D,): how far the levels lie off centre, in steps; 1/2 where L is even, else 0."""

    def __init__(self, config: FiniteScalarConfig) -> None:
        super().__init__()
        self.config = config
        per_dim = config.levels_per_dim
        self.codebook_dim = len(per_dim)
        self.codebook_sizes = (config.codebook_size,)
        basis = [math.prod(per_dim[:i]) for i in range(len(per_dim))]
        offset = [0.5 if size % 2 == 0 else 0.0 for size in per_dim]
        self.register_buffer("levels", torch.tensor(per_dim).float(), persistent=False)
        self.register_buffer("basis", torch.tensor(basis), persistent=False)
        self.register_buffer("offset", torch.tensor(offset), persistent=False)

    def to_code_space(self, z_e: Tensor) -> Tensor:
        """Bounds z_e so that rounding gives L levels, with a step of 1 / (L // 2)."""
        levels, offset = self._per_channel(self.levels), self._per_channel(self.offset)
        half = (levels - 1) * (1 + _MARGIN) / 2
        shift = torch.where(levels > 2, torch.atanh(offset / half), 0.0)
        return (torch.tanh(z_e + shift) * half - offset) / (levels // 2)

    def quantize(self, z: Tensor) -> QuantizerOutput:
        """Rounds, with a straight-through gradient."""
        digits = self._digits(z.detach())
        z_q = straight_through(z, self._values(digits))
        return QuantizerOutput(z_q, (self._codes(digits),), {})

    def assign(self, z: Tensor) -> tuple[Tensor, ...]:
        """See `Quantizer.assign`."""
        return (self._codes(self._digits(z)),)

    def decode(self, codes: tuple[Tensor, ...]) -> Tensor:
        """Returns the level of each digit: float32 (B, D, h, w)."""
        (grid,) = codes
        digits = (grid[..., None] // self.basis) % self.levels.long()  # (B, h, w, D)
        return self._values(rearrange(digits, "b h w d -> b d h w"))

    def code_vectors(self) -> tuple[Tensor, ...]:
        """Returns all combinations of levels: float32 (K, D)."""
        codes = torch.arange(self.codebook_sizes[0], device=self.basis.device)
        return (rearrange(self.decode((codes[None, None],)), "1 d 1 k -> k d"),)

    def residual_scale(self) -> Tensor:
        """Returns half a step, the largest residual, per dimension: 1 / (2 (L // 2)), (D,)."""
        return 1 / (2 * (self.levels // 2))

    def residual_offset(self) -> Tensor:
        """Returns half a step where L is even, which centres the levels, else 0: (D,)."""
        return self.offset / (self.levels // 2)

    def _digits(self, z: Tensor) -> Tensor:
        """Returns the index of each element's level, int64 in [0, L)."""
        levels = self._per_channel(self.levels)
        digits = torch.round(z * (levels // 2)) + levels // 2
        return digits.clamp(torch.zeros_like(levels), levels - 1).long()

    def _values(self, digits: Tensor) -> Tensor:
        half = self._per_channel(self.levels) // 2
        return (digits - half) / half

    def _codes(self, digits: Tensor) -> Tensor:
        return (digits * self._per_channel(self.basis)).sum(dim=1)

    @staticmethod
    def _per_channel(values: Tensor) -> Tensor:
        """Reshapes (D,) to (D, 1, 1), which broadcasts over (B, D, h, w)."""
        return values[:, None, None]
