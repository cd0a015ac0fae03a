"""Lookup-free quantization: one bit per dimension, the sign.

Yu et al. 2023, "Language model beats diffusion: tokenizer is key to visual generation" (LFQ);
spherical: Zhao et al. 2024, "Image and video tokenization with binary spherical quantization".
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from stage1_vqvae.quantizers.base import Quantizer, QuantizerOutput, to_points
from stage1_vqvae.quantizers.config import LookupFreeConfig
from stage1_vqvae.quantizers.entropy import binary_entropy_penalty
from stage1_vqvae.quantizers.estimators import straight_through
from stage1_vqvae.quantizers.search import unit_length


class LookupFreeQuantizer(Quantizer):
    """sign(z_e), as the bits of a code; scaled to unit length on both sides if spherical.

    The entropy regularisation is over p(c | z) = softmax_c(-||z - c||^2 / temperature), which the
    bits share as independent factors (LFQ, equation 4; BSQ, equations 7 and 8), so that even its
    term over all codes is exact without a table of them. The sign of 0 counts as +1.
    """

    bits: Tensor
    """int64 (D,): the value of each bit."""

    def __init__(self, config: LookupFreeConfig) -> None:
        super().__init__()
        self.config = config
        self.codebook_dim = config.codebook_dim
        self.codebook_sizes = (config.codebook_size,)
        self._magnitude = self.codebook_dim**-0.5 if config.spherical else 1.0
        bits = [1 << i for i in range(self.codebook_dim)]
        self.register_buffer("bits", torch.tensor(bits), persistent=False)

    def to_code_space(self, z_e: Tensor) -> Tensor:
        """Scales z_e to unit length if spherical."""
        return unit_length(z_e, dim=1) if self.config.spherical else z_e

    def quantize(self, z: Tensor) -> QuantizerOutput:
        """Takes the sign, with a straight-through gradient."""
        signs = z.detach() >= 0
        z_q = self._values(signs)
        losses = {}
        if self.config.commitment_weight:
            losses["commitment"] = self.config.commitment_weight * F.mse_loss(z, z_q)
        if self.config.entropy_weight:
            # ||z + m||^2 - ||z - m||^2 = 4 m z in each dimension.
            log_odds = 4 * self._magnitude * to_points(z) / self.config.entropy_temperature
            losses["entropy"] = self.config.entropy_weight * binary_entropy_penalty(log_odds)
        return QuantizerOutput(straight_through(z, z_q), (self._codes(signs),), losses)

    def assign(self, z: Tensor) -> tuple[Tensor, ...]:
        """See `Quantizer.assign`."""
        return (self._codes(z >= 0),)

    def decode(self, codes: tuple[Tensor, ...]) -> Tensor:
        """Returns the signs of the bits of codes: float32 (B, D, h, w)."""
        (grid,) = codes
        signs = (grid[..., None] & self.bits) != 0  # (B, h, w, D)
        return self._values(rearrange(signs, "b h w d -> b d h w"))

    def code_vectors(self) -> tuple[Tensor, ...]:
        """Returns the corners of the cube: float32 (K, D)."""
        codes = torch.arange(self.codebook_sizes[0], device=self.bits.device)
        return (rearrange(self.decode((codes[None, None],)), "1 d 1 k -> k d"),)

    def residual_scale(self) -> float:
        """Returns 1/2: the residual of points near +-1 is about half as large."""
        return 0.5

    def _values(self, signs: Tensor) -> Tensor:
        return (2 * signs.float() - 1) * self._magnitude

    def _codes(self, signs: Tensor) -> Tensor:
        return (signs * self.bits[:, None, None]).sum(dim=1)
