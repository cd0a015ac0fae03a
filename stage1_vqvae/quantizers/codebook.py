"""What every quantizer that looks codes up in a table of K vectors has in common."""

from __future__ import annotations

from abc import abstractmethod

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from stage1_vqvae.quantizers.base import Quantizer, QuantizerOutput, to_grid, to_map, to_points
from stage1_vqvae.quantizers.search import best_codes, half_squared_norms, unit_length


class CodebookQuantizer(Quantizer):
    """One grid of codes, each standing for a vector; the code with the highest score is chosen.

    A kind says what the vectors are, how a code scores (`scores`: the nearest vector unless it
    says otherwise), and in `quantize_points` what training does with the choice.

    Args:
        codebook_size: K.
        codebook_dim: D.
        cosine: Whether z and the vectors are scaled to unit length.
    """

    def __init__(self, codebook_size: int, codebook_dim: int, *, cosine: bool = False) -> None:
        super().__init__()
        self.codebook_dim = codebook_dim
        self.codebook_sizes = (codebook_size,)
        self._cosine = cosine

    @abstractmethod
    def vectors(self) -> Tensor:
        """The code vectors, float32 (K, D)."""

    @abstractmethod
    def quantize_points(self, z: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Quantizes points z (N, D): z_q (N, D), codes int64 (N,) and weighted loss terms."""

    def scores(self) -> tuple[Tensor, Tensor]:
        """Weights (K, D) and bias (K,): code k of z scores w_k . z + b_k, the highest is chosen."""
        vectors = self.vectors()
        return vectors, -half_squared_norms(vectors)

    def to_code_space(self, z_e: Tensor) -> Tensor:
        """z_e itself, or its direction with `cosine`."""
        return unit_length(z_e, dim=1) if self._cosine else z_e

    def quantize(self, z: Tensor) -> QuantizerOutput:
        """See `Quantizer.quantize`."""
        z_q, codes, losses = self.quantize_points(to_points(z))
        return QuantizerOutput(to_map(z_q, z.shape), (to_grid(codes, z.shape),), losses)

    def assign(self, z: Tensor) -> tuple[Tensor, ...]:
        """The code with the highest score at each position."""
        return (to_grid(best_codes(to_points(z), *self.scores()), z.shape),)

    def decode(self, codes: tuple[Tensor, ...]) -> Tensor:
        """The code vectors of one grid (B, h, w): float32 (B, D, h, w)."""
        (grid,) = codes
        return rearrange(F.embedding(grid, self.vectors()), "b h w d -> b d h w")

    def code_vectors(self) -> tuple[Tensor, ...]:
        """See `Quantizer.code_vectors`."""
        return (self.vectors(),)
