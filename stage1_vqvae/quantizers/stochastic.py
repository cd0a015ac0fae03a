"""Stochastic quantization: codes sampled with a probability that falls with their distance.

Takida et al. 2022, "SQ-VAE: variational Bayes on discrete representation with self-annealed
stochastic quantization", Gaussian SQ-VAE with one variance for all.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stage1_vqvae.collectives import broadcast
from stage1_vqvae.quantizers.base import to_points
from stage1_vqvae.quantizers.codebook import trained_codebook
from stage1_vqvae.quantizers.config import StochasticConfig
from stage1_vqvae.quantizers.estimators import annealed_temperature, straight_through_gumbel
from stage1_vqvae.quantizers.restarting_codebook import RestartingCodebookQuantizer
from stage1_vqvae.quantizers.search import half_squared_norms, nearest_codes


class StochasticQuantizer(RestartingCodebookQuantizer):
    """p(c | z_e) = softmax_c(-||z_e - e_c||^2 / 2 s^2) with s learned (equations 6 and 9).

    The quantizer's terms of the evidence bound, averaged over positions, are

        kl_weight (sum_c p(c | z_e) ||z_e - e_c||^2 / 2 s^2 - H(p(c | z_e)))

    As training makes the reconstruction's share of the bound grow, s falls and the assignments
    harden by themselves. Training samples a code by the straight-through Gumbel-softmax, whose
    temperature is annealed; evaluation takes the nearest, which is the likeliest.

    kl_weight stands for what the paper's learned variance of p(x | z) does: this project's
    likelihoods have a fixed one and are averaged over pixels.
    """

    config: StochasticConfig
    is_straight_through = False
    temperature: Tensor
    """float32 (): of the Gumbel-softmax; a tensor, so that compiled code serves every value."""

    def __init__(self, config: StochasticConfig) -> None:
        super().__init__(config)
        self.codebook = trained_codebook(config)
        self.log_variance = nn.Parameter(torch.zeros(()))  # ln s^2
        self.register_buffer("temperature", torch.zeros(()), persistent=False)
        self.set_progress(0.0)

    def logits(self, z: Tensor) -> Tensor:
        """Returns -||z - e_c||^2 / 2 s^2 of points (N, D), float32 (N, K)."""
        half_distances = (
            torch.addmm(half_squared_norms(self.codebook), z, self.codebook.T, alpha=-1)
            + half_squared_norms(z)[:, None]
        )
        return -half_distances / self.log_variance.exp()

    def quantize_points(self, z: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Samples a code in training mode and takes the nearest in evaluation mode."""
        logits = self.logits(z)  # (N, K)
        if self.training:
            z_q, codes = straight_through_gumbel(logits, self.codebook, self.temperature)
        else:
            codes = nearest_codes(z, self.codebook)
            z_q = F.embedding(codes, self.codebook)
        log_p = logits.log_softmax(dim=1)
        p = log_p.exp()
        distance = -(p * logits).sum(dim=1).mean()
        entropy = -(p * log_p).sum(dim=1).mean()
        weight = self.config.kl_weight
        return z_q, codes, {"distance": weight * distance, "entropy": -weight * entropy}

    @torch.no_grad()
    def fit(self, batches: list[Tensor]) -> None:
        """Runs k-means, and starts s^2 at its mean squared error per dimension."""
        super().fit(batches)
        z = torch.cat([to_points(batch) for batch in batches])
        error = (z - self.codebook[nearest_codes(z, self.codebook)]).square().mean()
        self.log_variance.copy_(broadcast(error.clamp(min=1e-12).log()))

    def set_progress(self, fraction: float) -> None:
        """Lowers the temperature, and ends restarts."""
        super().set_progress(fraction)
        config = self.config
        self.temperature.fill_(
            annealed_temperature(config.temperature, config.final_temperature, fraction)
        )
