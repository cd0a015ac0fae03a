"""Quantizers that take the nearest code vector and train both sides by distances."""

from __future__ import annotations

from abc import abstractmethod

import torch.nn.functional as F
from torch import Tensor

from stage1_vqvae.quantizers.codebook import CodebookQuantizer
from stage1_vqvae.quantizers.codebook_config import NearestCodebookConfig
from stage1_vqvae.quantizers.entropy import entropy_penalty, squared_distance_logits
from stage1_vqvae.quantizers.estimators import rotate_through, straight_through
from stage1_vqvae.quantizers.search import nearest_codes


class NearestCodebookQuantizer(CodebookQuantizer):
    """The nearest of K vectors, an estimated gradient to z, and loss terms of the kind.

    A kind says what the vectors are and, in `losses`, what draws z and them together. One that
    learns from the points themselves does so before (`revive`) and after (`observe`) the choice.
    """

    def __init__(self, config: NearestCodebookConfig) -> None:
        super().__init__(config.codebook_size, config.codebook_dim, cosine=config.cosine)
        self.config = config
        self.copies_gradient = not config.rotation_trick

    @abstractmethod
    def losses(self, z: Tensor, z_q: Tensor) -> dict[str, Tensor]:
        """Weighted loss terms from points and their code vectors, (N, D) each."""

    def revive(self, z: Tensor) -> None:
        """Moves unused code vectors to where points z (N, D) are, before the choice."""

    def observe(self, z: Tensor, codes: Tensor) -> None:
        """Learns from points z (N, D) and the codes (N,) that they chose."""

    def quantize_points(self, z: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """See `CodebookQuantizer.quantize_points`."""
        if self.training:
            self.revive(z.detach())
        vectors = self.vectors()
        codes = nearest_codes(z.detach(), vectors.detach())  # (N,)
        z_q = F.embedding(codes, vectors)  # (N, D)
        losses = self.losses(z, z_q)
        if self.config.entropy_weight:
            # Of a copy: `observe` moves an EMA codebook before the gradient has passed.
            logits = squared_distance_logits(z, vectors.clone(), self.config.entropy_temperature)
            losses["entropy"] = self.config.entropy_weight * entropy_penalty(logits)
        if self.training:
            self.observe(z.detach(), codes)
        estimator = rotate_through if self.config.rotation_trick else straight_through
        return estimator(z, z_q), codes, losses
