"""Stochastic quantization: codes drawn with a probability that falls with their distance.

Takida et al. 2022, "SQ-VAE: variational Bayes on discrete representation with self-annealed
stochastic quantization", Gaussian SQ-VAE with one variance for all.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stage1_vqvae.collectives import broadcast
from stage1_vqvae.quantizers.annealing import annealed_temperature
from stage1_vqvae.quantizers.config import StochasticConfig
from stage1_vqvae.quantizers.estimators import index_through
from stage1_vqvae.quantizers.gumbel import gumbel_softmax
from stage1_vqvae.quantizers.search import half_squared_norms, nearest_codes
from stage1_vqvae.quantizers.soft_codebook import SoftCodebookQuantizer


class StochasticQuantizer(SoftCodebookQuantizer):
    """p(c | z_e) = softmax_c(-||z_e - e_c||^2 / 2 s^2) with s learned (equations 6 and 9).

    Of the evidence bound the quantizer gives, averaged over positions,

        kl_weight (sum_c p(c | z_e) ||z_e - e_c||^2 / 2 s^2 - H(p(c | z_e)))

    As training makes the reconstruction's share of the bound grow, s falls and the assignments
    harden by themselves. In training a code is drawn by the straight-through Gumbel-softmax, whose
    temperature is annealed; afterwards the nearest, which is the likeliest, is taken.

    kl_weight stands for what the paper's learned variance of p(x | z) does: this project's
    likelihoods have a fixed one and are averaged over pixels.
    """

    config: StochasticConfig

    def __init__(self, config: StochasticConfig) -> None:
        super().__init__(config)
        self.log_variance = nn.Parameter(torch.zeros(()))  # ln s^2

    def vectors(self) -> Tensor:
        """The code vectors, float32 (K, D)."""
        return self.codebook

    def logits(self, z: Tensor) -> Tensor:
        """-||z - e_c||^2 / 2 s^2 of points (N, D), float32 (N, K)."""
        half_distances = (
            torch.addmm(half_squared_norms(self.codebook), z, self.codebook.T, alpha=-1)
            + half_squared_norms(z)[:, None]
        )
        return -half_distances / self.log_variance.exp()

    def quantize_points(self, z: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Draws a code in training mode and takes the nearest in evaluation mode."""
        logits = self.logits(z)  # (N, K)
        if self.training:
            probabilities = gumbel_softmax(logits, self._temperature)
            codes = probabilities.detach().argmax(dim=1)
            z_q = index_through(codes, probabilities, self.codebook)
        else:
            codes = nearest_codes(z, self.codebook)
            z_q = F.embedding(codes, self.codebook)
        log_p = logits.log_softmax(dim=1)
        p = log_p.exp()
        distance = -(p * logits).sum(dim=1).mean()
        entropy = -(p * log_p).sum(dim=1).mean()
        weight = self.config.kl_weight
        return z_q, codes, {"distance": weight * distance, "entropy": -weight * entropy}

    def start_from(self, z: Tensor) -> None:
        """Starts s^2 at the mean squared error per dimension."""
        error = (z - self.codebook[nearest_codes(z, self.codebook)]).square().mean()
        self.log_variance.copy_(broadcast(error.clamp(min=1e-12).log()))

    def set_progress(self, fraction: float) -> None:
        """Lowers the temperature, and ends restarts."""
        super().set_progress(fraction)
        self._temperature = annealed_temperature(
            self.config.temperature, self.config.final_temperature, fraction
        )
