"""Codes sampled from a categorical distribution of the encoder by the Gumbel-softmax.

Jang et al. 2017, "Categorical reparameterization with Gumbel-softmax"; as a VQ-VAE's bottleneck
Ramesh et al. 2021, "Zero-shot text-to-image generation", section 2.1.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stage1_vqvae.quantizers.codebook import CodebookQuantizer, trained_codebook
from stage1_vqvae.quantizers.config import GumbelConfig
from stage1_vqvae.quantizers.entropy import entropy
from stage1_vqvae.quantizers.estimators import annealed_temperature, straight_through_gumbel


class GumbelQuantizer(CodebookQuantizer):
    """p(c | z_e) = softmax(W z_e + b): training samples a code, evaluation takes the likeliest.

    The decoder sees the vector of one code from the start (the straight-through Gumbel-softmax), so
    that training and use do not differ; the temperature only softens the gradient. Two divergences
    from the uniform distribution, at each position and of the mean over the batch, keep the codes
    in play. Code vectors need not be near z_e.
    """

    is_straight_through = False
    temperature: Tensor
    """float32 (): of the Gumbel-softmax; a tensor, so that compiled code serves every value."""

    def __init__(self, config: GumbelConfig) -> None:
        super().__init__(config)
        self.config = config
        self.codebook = trained_codebook(config)
        self.to_logits = nn.Linear(config.codebook_dim, config.codebook_size)
        self.outer_layers = (self.to_logits,)  # a classifier's head
        self.register_buffer("temperature", torch.zeros(()), persistent=False)
        self.set_progress(0.0)

    def scores(self) -> tuple[Tensor, Tensor]:
        """Returns the weights and the bias of the logits."""
        return self.to_logits.weight, self.to_logits.bias

    def quantize_points(self, z: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Samples a code in training mode and takes the likeliest in evaluation mode."""
        logits = self.to_logits(z)  # (N, K)
        if self.training:
            z_q, codes = straight_through_gumbel(logits, self.codebook, self.temperature)
        else:
            codes = logits.argmax(dim=1)
            z_q = F.embedding(codes, self.codebook)
        log_p = logits.log_softmax(dim=1)
        p, uniform = log_p.exp(), math.log(logits.shape[1])
        divergence = uniform + (p * log_p).sum(dim=1).mean()
        diversity = uniform - entropy(p.mean(dim=0))
        losses = {
            "kl": self.config.kl_weight * divergence,
            "diversity": self.config.diversity_weight * diversity,
        }
        return z_q, codes, losses

    def set_progress(self, fraction: float) -> None:
        """Lowers the temperature."""
        config = self.config
        self.temperature.fill_(
            annealed_temperature(config.temperature, config.final_temperature, fraction)
        )
