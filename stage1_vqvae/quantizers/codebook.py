"""Base class of the quantizers that look codes up in a table of K vectors."""

from __future__ import annotations

from abc import abstractmethod

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from stage1_vqvae.quantizers.base import Quantizer, QuantizerOutput, to_grid, to_map, to_points
from stage1_vqvae.quantizers.codebook_config import CodebookConfig
from stage1_vqvae.quantizers.search import best_codes, half_squared_norms, unit_length


class CodebookQuantizer(Quantizer):
    """One grid of codes, each standing for a vector; the code with the highest score is chosen.

    A subclass defines `quantize_points`, the choice in training and its gradients. Others than the
    nearest vector are chosen by redefining `scores`.

    Args:
        config: K and D.
        cosine: Whether z and the vectors are scaled to unit length.
    """

    codebook: Tensor
    """float32 (K, D), a parameter or a buffer; read it through `vectors()`."""

    def __init__(self, config: CodebookConfig, *, cosine: bool = False) -> None:
        super().__init__()
        self.codebook_dim = config.codebook_dim
        self.codebook_sizes = (config.codebook_size,)
        self._cosine = cosine

    @abstractmethod
    def quantize_points(self, z: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Quantizes points z (N, D): z_q (N, D), codes int64 (N,) and weighted loss terms."""

    def vectors(self) -> Tensor:
        """Returns the code vectors, float32 (K, D); of unit length with `cosine`."""
        return unit_length(self.codebook) if self._cosine else self.codebook

    def scores(self) -> tuple[Tensor, Tensor]:
        """Returns weights (K, D) and bias (K,) of the scores w_k . z + b_k of the codes."""
        vectors = self.vectors()
        return vectors, -half_squared_norms(vectors)

    def to_code_space(self, z_e: Tensor) -> Tensor:
        """Scales z_e to unit length with `cosine`."""
        return unit_length(z_e, dim=1) if self._cosine else z_e

    def quantize(self, z: Tensor) -> QuantizerOutput:
        """See `Quantizer.quantize`."""
        z_q, codes, losses = self.quantize_points(to_points(z))
        return QuantizerOutput(to_map(z_q, z.shape), (to_grid(codes, z.shape),), losses)

    def assign(self, z: Tensor) -> tuple[Tensor, ...]:
        """Returns the code with the highest score at each position."""
        return (to_grid(best_codes(to_points(z), *self.scores()), z.shape),)

    def decode(self, codes: tuple[Tensor, ...]) -> Tensor:
        """Returns the code vectors of one grid (B, h, w): float32 (B, D, h, w)."""
        (grid,) = codes
        return rearrange(F.embedding(grid, self.vectors()), "b h w d -> b d h w")

    def code_vectors(self) -> tuple[Tensor, ...]:
        """See `Quantizer.code_vectors`."""
        return (self.vectors(),)


def trained_codebook(config: CodebookConfig) -> nn.Parameter:
    """Draws normal code vectors (K, D) to train, which weight decay leaves alone.

    The loss alone moves them: AdamW must not pull them to the origin as well.
    """
    codebook = nn.Parameter(torch.randn(config.codebook_size, config.codebook_dim))
    codebook.no_weight_decay = True  # type: ignore[attr-defined]
    return codebook
